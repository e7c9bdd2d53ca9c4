"""Dialogue states on made dialogues in KLUE-DST's published shape, with the slots and values of its ontology.

ONTOLOGY is KLUE-DST's ontology.json; its dialogues are not at hand. A dialogue is made of fixed sentences: a user asks
for a place, a lodging or a restaurant, adds one to two wishes at a time, and may only greet or thank. So the figures
show that states are learned, not how well KLUE-DST is solved. Scored is what `predict` writes for the turns of held-out
dialogues, after training and before; beside it no state at all, and the true state of the turn before.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner import Table, flags_of, program, say
from finetuning.tasks.generation.states import EMPTY, state_scores

_DOMAINS = {"관광": ("종류", "지역"), "숙소": ("종류", "지역", "가격대"), "식당": ("종류", "지역", "가격대")}
_SAID = {
    "종류": "{domain} 종류는 {value}이면 좋겠어요.", "지역": "{domain} 위치는 {value} 쪽으로 찾아 주세요.",
    "가격대": "{domain} 가격은 {value} 쪽이 좋아요.",
}  # fmt: skip
_WISHES = {
    "관광": ("경치 좋은", "교육적", "역사적", "주차 가능"),
    "숙소": ("조식 가능", "인터넷 가능", "수영장 유무", "주차 가능"),
    "식당": ("야외석 유무", "주류 판매", "인터넷 가능", "주차 가능"),
}
_LONGEST = 96  # tokens of a state; a model that repeats itself goes on to the end
_COLUMNS = ("turns", "model", "joint_goal_accuracy", "slot_f1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ontology", type=Path, metavar="ONTOLOGY")
    parser.add_argument("model", type=Path, metavar="LANGUAGE_MODEL")
    parser.add_argument("--dialogues", type=int, default=80, help="dialogues to train on")
    parser.add_argument("--held-out", type=int, default=25, help="dialogues to score")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> list[Table]:
    """Make dialogues, train on them, and score the states of others."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_splits(arguments.ontology, scratch / "data", arguments.dialogues, arguments.held_out, arguments.seed)
        say("before training")
        untrained = Path(shutil.copytree(arguments.model, scratch / "untrained"))
        before = said_by(untrained, scratch / "data", ["--task", "text-generation"])
        say("training")
        program("train", *train_flags(arguments, scratch))
        after = said_by(scratch / "model", scratch / "data", [])
    name = arguments.model.name
    rows = [*naive_scores(after), scored(f"{name}, untrained", before), scored(f"{name}, trained", after)]
    return [Table(_COLUMNS, rows, f"Made dialogues in KLUE-DST's shape, {arguments.dialogues} for training")]


def train_flags(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    """The words of the training run."""
    return flags_of(
        {"--recipe": "klue-dst", "--task": "text-generation", "--model_name": arguments.model,
         "--dataset": scratch / "data", "--output_dir": scratch / "model", "--epochs": arguments.epochs,
         "--learning_rate": arguments.learning_rate, "--seed": arguments.seed, "--max_length": 384,
         "--batch_size": 8},
        (f"generation.max_new_tokens={_LONGEST}", f"data.dataset_cache_dir={scratch / 'cache'}",
         "logging.progress_bar=false"),
    )  # fmt: skip


def said_by(model: Path, data: Path, flags: Sequence[str]) -> list[dict[str, Any]]:
    """What a model says about the turns of the held-out dialogues, beside the true states."""
    words = [
        "--output_dir",
        model,
        *flags,
        "--input",
        data / "test.json",
        "--set",
        f"generation.max_new_tokens={_LONGEST}",
    ]
    printed = program("predict", "--model_name", model, *words)
    return [json.loads(line) for line in printed.splitlines()]


def scored(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """KLUE's scores of generated states."""
    pairs = [(str(row["generated"]).strip(), row["response"]) for row in rows]
    return {"turns": len(rows), "model": name, **state_scores(pairs)}


def naive_scores(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The scores of saying that there is no state, and of the true state of the dialogue's turn before."""
    yield scored("no state", [{**row, "generated": EMPTY} for row in rows])
    known = {(row["guid"], row["turn"]): row["response"] for row in rows}
    before = [known.get((row["guid"], row["turn"] - 1), EMPTY) for row in rows]
    yield scored("the state before", [{**row, "generated": one} for row, one in zip(rows, before, strict=True)])


# --- dialogues ---


def make_splits(ontology: Path, folder: Path, dialogues: int, held_out: int, seed: int) -> None:
    """Write train.json, validation.json and test.json; no dialogue is in two of them."""
    values = json.loads(ontology.read_text(encoding="utf-8"))
    drawn, made, seen = random.Random(seed), list[dict[str, Any]](), set[str]()
    few = max(4, held_out // 4)
    while len(made) < dialogues + few + held_out:
        dialogue = _dialogue(values, drawn)
        if (text := json.dumps(dialogue, ensure_ascii=False)) not in seen:
            seen.add(text)
            made.append({"guid": f"made_{len(made):05d}", "domains": [dialogue[0]], "dialogue": dialogue[1]})
    folder.mkdir(parents=True)
    parts = {"test": made[:held_out], "validation": made[held_out : held_out + few], "train": made[held_out + few :]}
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")


def _dialogue(values: Mapping[str, Sequence[str]], drawn: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """Draw a domain and a dialogue of two to four turns of the user."""
    domain = drawn.choice(list(_DOMAINS))
    wishes = [*_DOMAINS[domain], *drawn.sample(_WISHES[domain], 2)]
    drawn.shuffle(wishes)
    state, turns = dict[str, str](), list[dict[str, Any]]()
    if drawn.random() < 0.3:
        turns += _turns("안녕하세요, 여행 준비를 도와주세요.", state, "네, 무엇을 찾으시나요?")
    for _ in range(drawn.randint(1, 3)):
        asked = [_wished(domain, wishes.pop(), values, drawn, state) for _ in range(drawn.randint(1, 2)) if wishes]
        if asked:
            turns += _turns(" ".join(asked), state, f"네, 맞는 {domain} 정보를 찾았습니다. 더 필요하신 것이 있나요?")
    if drawn.random() < 0.3:
        turns += _turns("아니요, 고맙습니다.", state, "즐거운 여행 되세요.")
    return domain, turns


def _turns(said: str, state: Mapping[str, str], answer: str) -> list[dict[str, Any]]:
    spoken = [f"{slot}-{value}" for slot, value in state.items()]
    return [{"role": "user", "text": said, "state": spoken}, {"role": "sys", "text": answer}]


def _wished(
    domain: str, wish: str, values: Mapping[str, Sequence[str]], drawn: random.Random, state: dict[str, str]
) -> str:
    """Say a wish, and put it into the state."""
    slot = f"{domain}-{wish}"
    own = [value for value in values[slot] if value not in ("none", "dontcare", "no")]
    state[slot] = drawn.choice(own)
    if wish in _SAID:
        return _SAID[wish].format(domain=domain, value=state[slot])
    name = wish.removesuffix(" 유무").removesuffix(" 가능")
    return f"{domain} 조건에 {name}도 넣어 주세요."
