"""Chat data on a base model, before and after: losses of pairs with a system column and of tool calls, and valid calls.

DATA is ChatbotData.csv; MODEL is a causal model that speaks Korean, such as gemma3-270m. Every run is this program's
own command line: LoRA, seed 42. Of the pairs, shuffled by seed 0, 100 are for test, 100 for validation and 1,000 for
training, each with the same system text in a column. The requests that call tools are made here from sentences written
for it: 100 for training, 30 of other wordings for test. A call is valid if it is JSON in its tags, names the function
that the request needs, and has just its arguments.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner import ROOT, Table, flags_of, program, say, summary_of

SYSTEM = "당신은 친절한 상담원입니다. 짧고 공손하게 답합니다."
OPTIONS = ("model.adapter.method=lora", "training.learning_rate=2e-4", "training.warmup_ratio=0.1",
           "data.batch_size=16", "data.max_length=512", "logging.progress_bar=false",
           "generation.validation_rows=0")  # fmt: skip
# function → (description, arguments, wordings for training, wordings for test)
FUNCTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "get_weather": ("날씨를 알려 준다", ("city",),
                    ("{city} 날씨 알려 줘", "지금 {city}에 비 와?", "{city} 오늘 춥나요?", "{city} 날씨가 궁금해요"),
                    ("{city}에 우산 가져가야 할까?",)),
    "find_restaurant": ("식당을 찾는다", ("city", "food"),
                        ("{city}에서 {food} 맛집 찾아 줘", "{city} {food} 잘하는 집 있어?",
                         "{city}에서 {food} 먹고 싶어"),
                        ("{food} 먹으러 {city} 가는데 추천해 줘",)),
    "set_alarm": ("알람을 맞춘다", ("time",),
                  ("{time}에 깨워 줘", "{time} 알람 맞춰 줘", "{time}으로 알람 부탁해요"), ("{time}에 일어나야 해",)),
    "book_train": ("기차표를 예매한다", ("start", "end"),
                   ("{start}에서 {end} 가는 기차표 예매해 줘", "{start}발 {end}행 기차 잡아 줘"),
                   ("{start}에서 {end}까지 기차로 갈래",)),
    "send_message": ("메시지를 보낸다", ("name", "text"),
                     ("{name}에게 {text}라고 보내 줘", "{name}한테 {text} 문자 보내"),
                     ("{name}에게 {text}라고 전해 줘",)),
}  # fmt: skip
VALUES = {
    "city": ("서울", "부산", "대구", "제주", "강릉", "전주", "광주"),
    "food": ("냉면", "국밥", "파스타", "초밥", "떡볶이"),
    "time": ("아침 7시", "오후 3시", "밤 11시", "새벽 5시"), "start": ("서울", "대전", "수원"),
    "end": ("부산", "목포", "여수"),
    "name": ("민수", "지영", "엄마", "팀장님"), "text": ("늦어요", "고마워", "도착했어", "생일 축하해"),
}  # fmt: skip
_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def tools() -> list[dict[str, Any]]:
    """Return the functions as JSON schemas."""
    return [
        {"type": "function", "function": {"name": name, "description": said, "parameters": {
            "type": "object", "properties": {one: {"type": "string"} for one in arguments}, "required": list(arguments),
        }}}
        for name, (said, arguments, _, _) in FUNCTIONS.items()
    ]  # fmt: skip


def requests(count: int, is_test: bool, seed: int) -> list[dict[str, Any]]:
    """Return requests, each with the call that answers it; all differ, and functions take turns while they can."""
    draw, made = random.Random(seed), dict[str, dict[str, Any]]()
    for name in itertools.cycle(FUNCTIONS):
        if len(made) == count:
            break
        _, arguments, training, test = FUNCTIONS[name]
        values = {one: draw.choice(VALUES[one]) for one in arguments}
        asked = draw.choice(test if is_test else training).format(**values)
        call = {"type": "function", "function": {"name": name, "arguments": values}}
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        made.setdefault(asked, {"messages": turns, "tools": tools()})
    return list(made.values())


def is_valid(generated: str, row: dict[str, Any]) -> bool:
    """Return whether a generated text is the call that a request needs."""
    found = _CALL.search(generated)
    if found is None:
        return False
    try:
        call = json.loads(found[1])
    except ValueError:
        return False
    expected = row["messages"][-1]["tool_calls"][0]["function"]
    return bool(call.get("name") == expected["name"] and call.get("arguments") == expected["arguments"])


def write_pairs(data: Path, folder: Path, sizes: Sequence[int]) -> list[str]:
    """Write test, validation and train of pairs with a system column; return the test questions."""
    with data.open(encoding="utf-8-sig", newline="") as file:
        pairs = list(csv.DictReader(file))
    random.Random(0).shuffle(pairs)
    folder.mkdir()
    start = 0
    for name, size in zip(("test", "validation", "train"), sizes, strict=True):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("system", "question", "answer"))
            writer.writerows((SYSTEM, pair["Q"], pair["A"]) for pair in pairs[start : start + size])
        start += size
    return [pair["Q"] for pair in pairs[: sizes[0]]]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def flags(model: Path, data: Path, scratch: Path, name: str, options: Sequence[str]) -> list[str]:
    """Return the flags of a run."""
    given = {"--task": "text-generation", "--model_name": model, "--dataset": data, "--output_dir": scratch / name,
             "--seed": 42}  # fmt: skip
    return flags_of(given, (*OPTIONS, *options, f"data.dataset_cache_dir={scratch / 'cache'}"))


def test_loss(base: Path, data: Path, scratch: Path, options: Sequence[str]) -> dict[str, float]:
    """Evaluate the base model, as it is, on the test rows."""
    copy = Path(shutil.copytree(base, scratch / "untrained", dirs_exist_ok=True))  # evaluate writes beside the model
    program("evaluate", *flags(copy, data, scratch, "untrained", options))
    found: dict[str, float] = json.loads((copy / "metrics-test.json").read_text(encoding="utf-8"))
    return found


def answers(folder: Path, asked: Path, tokens: int) -> list[str]:
    """Generate the answer to each row of a file."""
    chosen = ("text_generation.format=chat", f"generation.max_new_tokens={tokens}")
    said = program(
        "predict", "--task", "text-generation", "--output_dir", folder, "--input", asked, *flags_of({}, chosen)
    )
    return [json.loads(line)["generated"] for line in said.splitlines()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="ChatbotData.csv")
    parser.add_argument("model", type=Path, help="a folder with a causal model that speaks Korean")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2, help="of the pairs")
    parser.add_argument("--call_epochs", type=int, default=10, help="of the calls, which are fewer")
    parser.add_argument("--only", choices=("pairs", "calls"))


def tiny(folder: Path) -> list[str]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(ROOT / "examples" / "encoder" / "tokenizer.json"), unk_token="[UNK]", eos_token="[SEP]"
    )
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        eos_token_id=tokenizer.eos_token_id,
    )).save_pretrained(folder / "model")  # fmt: skip
    tokenizer.save_pretrained(folder / "model")
    with (folder / "pairs.csv").open("w", encoding="utf-8") as file:
        file.write("Q,A,label\n" + "".join(f"물음 {number},대답 {number},0\n" for number in range(230)))
    return [str(folder / "pairs.csv"), str(folder / "model"), "--pairs", "20", "--calls", "10",
            "--epochs", "1", "--call_epochs", "2"]  # fmt: skip


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train on pairs, on calls, or on both in turn; tables of losses, ten answers as they came, and valid calls."""
    parts = {"pairs": measure_pairs, "calls": measure_calls}
    found = list[Table]()
    for name in (arguments.only,) if arguments.only else tuple(parts):
        with tempfile.TemporaryDirectory() as folder:
            found.extend(parts[name](arguments, Path(folder)))
    return found


def measure_pairs(arguments: argparse.Namespace, scratch: Path) -> list[Table]:
    """Train on pairs with a system text; return the losses, and ten answers before and after."""
    asked = write_pairs(arguments.data, scratch / "pairs", (100, 100, arguments.pairs))
    options = (f"training.epochs={arguments.epochs}",)
    losses = trained_losses("pairs with a system text", arguments.model, scratch / "pairs", scratch, options)
    with (scratch / "asked.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("system", "question"), *((SYSTEM, one) for one in asked[:10])])
    shown = Table(("question", "before", "after"))
    made = [answers(scratch / name, scratch / "asked.csv", 40) for name in ("untrained", "trained")]
    shown.rows.extend(dict(zip(shown.columns, one, strict=True)) for one in zip(asked[:10], *made, strict=True))
    return [losses, shown]


def measure_calls(arguments: argparse.Namespace, scratch: Path) -> list[Table]:
    """Train on requests that call tools; return the losses, and the share of valid calls before and after."""
    folder, rows = scratch / "calls", requests(30, is_test=True, seed=1)
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", requests(arguments.calls, is_test=False, seed=0))
    write_jsonl(folder / "validation.jsonl", requests(10, is_test=False, seed=2))
    write_jsonl(folder / "test.jsonl", rows)
    options = (f"training.epochs={arguments.call_epochs}", "data.max_length=1024",
               "memory.gradient_accumulation_steps=1")  # fmt: skip
    losses = trained_losses("calls of tools", arguments.model, folder, scratch, options)
    write_jsonl(scratch / "asked.jsonl", [{**row, "messages": row["messages"][:1]} for row in rows])
    calls: dict[str, Any] = {"valid calls": f"of {len(rows)}"}
    for column, name in (("before", "untrained"), ("after", "trained")):
        made = answers(scratch / name, scratch / "asked.jsonl", 80)
        calls[column] = sum(is_valid(text, row) for text, row in zip(made, rows, strict=True)) / len(rows)
    return [losses, Table(("valid calls", "before", "after"), [calls])]


def trained_losses(name: str, base: Path, data: Path, scratch: Path, options: Sequence[str]) -> Table:
    """Train the base model; return its loss on the test rows before and after."""
    before = test_loss(base, data, scratch, options)["loss"]
    program("train", *flags(base, data, scratch, "trained", options))
    after = summary_of(scratch / "trained")
    row = {"data": name, "rows": after["rows"]["train"], "steps": after["steps"], "loss before": before,
           "loss after": after["test"]["loss"]}  # fmt: skip
    say(f"{name}: {row}")
    return Table(tuple(row), [row])
