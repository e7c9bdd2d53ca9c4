"""Short training runs in the process of the test, and what they leave."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from exceptions import StopRequested
from tests.support.texts import NEGATIVE, POSITIVE

ROWS = 40


class StopAfter:
    """Requests a stop at the n-th check of a run. It checks at each step and at each evaluation batch."""

    def __init__(self, looks: int = 10_000, looks_in_evaluation: int = 10_000) -> None:
        self.looks, self.looks_in_evaluation, self.patient = looks, looks_in_evaluation, False

    def pending(self) -> int | None:
        self.looks -= 1
        return signal.SIGINT if self.looks < 0 else None

    def check(self) -> None:
        self.looks_in_evaluation -= 1
        if self.looks < 0 or self.looks_in_evaluation < 0:
            raise StopRequested(signal.SIGINT)


def texts() -> list[str]:
    return [f"{(POSITIVE if number % 2 else NEGATIVE)[number // 2 % 5]} {number}" for number in range(ROWS)]


def write_csv(path: Path, first: str, second: str, cells: list[str]) -> Path:
    lines = [f'"{text}","{cell}"' for text, cell in zip(texts(), cells, strict=True)]
    path.write_text("\n".join([f"{first},{second}", *lines]) + "\n", encoding="utf-8")
    return path


def parsed(text: str) -> str:
    """A sentence as in KLUE-DP's files, each word beside the next one."""
    words = text.split()
    return "\n".join(
        f"{number}\t{word}\t{word}\tNNG\t{number + 1 if number < len(words) else 0}\t{'NP' if number % 2 else 'VP'}"
        for number, word in enumerate(words, 1)
    )


def own_flags(task: str) -> list[str]:
    """Return the flags that a task has beside those of all tasks."""
    own = {
        "causal-reranker": "reranker.prompt=Q {query} {passage}",  # short: a character is three tokens
        "embedding": "embedding.neighbours=2",  # another order of the examples
    }
    return ["--set", own[task]] if task in own else []


def data_of(task: str, folder: Path) -> Path:
    """A small file of the task's shape."""
    labels = ["긍정" if number % 2 else "부정" for number in range(ROWS)]
    if task == "multi-label-classification":
        return write_csv(folder / "train.csv", "text", "label", [f"{label},글" for label in labels])
    if task == "text-regression":
        return write_csv(folder / "train.csv", "text", "label", [str(number / 8) for number in range(ROWS)])
    if task in {"text-generation", "text2text-generation"}:
        return write_csv(folder / "train.csv", "prompt", "response", labels)
    if task == "embedding":
        return write_csv(folder / "train.csv", "question", "passage", [f"{text} 답" for text in texts()])
    if task in {"preference", "reward"}:
        path = folder / "train.jsonl"
        rows = [{"prompt": text, "chosen": "네, 알겠습니다.", "rejected": "싫어"} for text in texts()]
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return path
    if task in {"reranker", "causal-reranker"}:
        path = folder / "train.jsonl"
        rows = [{"query": text, "pos": ["정말 재미있다"], "neg": ["너무 지루하다", "글쎄"][: 1 + number % 2]}
                for number, text in enumerate(texts())]  # fmt: skip
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return path
    if task == "token-classification":
        path = folder / "train.tsv"
        tagged = ("\n".join(f"{letter}\t{'B-PS' if letter == '영' else 'O'}" for letter in text) for text in texts())
        path.write_text("\n\n".join(tagged) + "\n", encoding="utf-8")
        return path
    if task == "dependency-parsing":
        path = folder / "train.tsv"
        path.write_text("\n\n".join(parsed(text) for text in texts()) + "\n", encoding="utf-8")
        return path
    if task == "question-answering":
        path = folder / "train.json"
        paragraphs = [
            {"context": text, "qas": [{"id": text, "question": "무엇?", "answers": [
                {"text": text.split()[0], "answer_start": 0}]}]}
            for text in texts()
        ]  # fmt: skip
        path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False), encoding="utf-8")
        return path
    return write_csv(folder / "train.csv", "text", "label", labels)


def run_train(flags: list[str], stop: StopAfter) -> None:
    """Run the train command in this process, since another one would spend most of its time on imports."""
    from finetuning.commands import train
    from finetuning_app import build_parser, build_session, overrides_in, read_settings

    arguments = build_parser().parse_args(flags)
    given = frozenset(overrides_in(arguments))
    train.run(build_session(read_settings(arguments), stop, given, settings_file=arguments.config), arguments)


def losses(output_dir: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without times, speeds and memory use."""
    timed = {"examples_per_s", "tokens_per_s", "memory_bytes"}
    lines = (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def final_state(output_dir: Path) -> dict[str, Any]:
    """Every tensor of the newest checkpoint."""
    from safetensors.torch import load_file

    newest = sorted((output_dir / "checkpoints").iterdir())[-1]
    tensors = {**load_file(newest / "model.safetensors"), **load_file(newest / "optimizer.safetensors")}
    return {"step": newest.name, **{name: tensor.numpy().tobytes() for name, tensor in tensors.items()}}


def check_resumed_is_whole(flags: list[str], stop: StopAfter, folder: Path) -> None:
    whole, halved = folder / "whole" / "model", folder / "halved" / "model"
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], stop)
    assert len(list((halved / "checkpoints").iterdir())) == 1
    run_train([*flags, "--output_dir", str(halved), "--resume"], StopAfter())
    assert losses(halved) == losses(whole)
    weights = next(path.name for path in whole.glob("*.safetensors"))
    assert (halved / weights).read_bytes() == (whole / weights).read_bytes()
