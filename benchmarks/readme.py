"""Tables of the READMEs made from results.

A table stands between `<!-- benchmark throughput-encoder -->` and `<!-- /benchmark -->`, and is written anew from the
newest result of that name.
"""

from __future__ import annotations

import re
from typing import Any

from benchmarks.runner import ROOT, newest, say

_BLOCK = re.compile(r"(<!-- benchmark ([\w-]+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)
_UNIT = {"README.md": "배", "README.en.md": " ×"}
_HEADS = {
    "README.md": {
        "throughput-encoder": ("NSMC 분류, BERT-base 크기, 16 × 4", "예제/초", "이 프로그램은", "손실", "최대 메모리"),
        "throughput-causal": ("질문과 답, SmolLM2-135M 전체 학습, 16 × 1", "예제/초", "이 프로그램은", "손실",
                              "최대 메모리"),
    },
    "README.en.md": {
        "throughput-encoder": ("NSMC, a BERT-base shape, 16 × 4", "examples a second", "this program is", "loss",
                               "peak memory"),
        "throughput-causal": ("questions and answers, all of SmolLM2-135M, 16 × 1", "examples a second",
                              "this program is", "loss", "peak memory"),
    },
}  # fmt: skip
_NAMES = {
    "README.md": {
        "ours": "이 프로그램, bf16",
        "ours-compiled": "이 프로그램, bf16, `torch_compile`(긴 학습의 기본값)",
        "trainer": "`transformers.Trainer`, bf16",
        "trainer-float32": "`transformers.Trainer`, float32(기본값)",
        "trainer-tuned": "`transformers.Trainer`, bf16, `group_by_length`(배치 구성이 달라짐)",
        "sft": "TRL `SFTTrainer`, bf16",
        "sft-packing": "TRL `SFTTrainer`, bf16, packing(배치 구성이 달라짐)",
        "throughput-encoder bare": "상한: 패딩 없는 행으로 forward, backward, step만",
        "throughput-causal bare": "상한: 512 토큰의 행으로 forward, backward, step만",
    },
    "README.en.md": {
        "ours": "this program, bf16",
        "ours-compiled": "this program, bf16, `torch_compile` (default in long training)",
        "trainer": "`transformers.Trainer`, bf16",
        "trainer-float32": "`transformers.Trainer`, float32 (its default)",
        "trainer-tuned": "`transformers.Trainer`, bf16, `group_by_length` (other batches)",
        "sft": "TRL's `SFTTrainer`, bf16",
        "sft-packing": "TRL's `SFTTrainer`, bf16, packing (other batches)",
        "throughput-encoder bare": "limit: rows without padding, forward, backward and step alone",
        "throughput-causal bare": "limit: rows of 512 tokens, forward, backward and step alone",
    },
}


def table_of(result: dict[str, Any], document: str) -> str:
    """The Markdown table of a throughput result in the language of a README."""
    heads, names = _HEADS[document][result["benchmark"]], _NAMES[document]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in result["tables"][0]["rows"]:
        name = names.get(row["name"]) or names[f"{result['benchmark']} {row['name']}"]
        ratio = f"{row['this program is']:.2g}{_UNIT[document]}" if row["this program is"] else ""
        loss = f"{row['loss']:.3f}" if row["loss"] is not None else ""
        cells = (name, f"{row['examples/s']:.1f}", ratio, loss, f"{row['peak, GiB']:.2f} GiB")
        lines.append("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    return "\n".join(lines) + "\n"


def rendered(text: str, document: str) -> str:
    """A README's text with its tables made from the newest results."""

    def block(found: re.Match[str]) -> str:
        result = newest(found[2])
        return found[1] + table_of(result, document) + found[3] if result else found[0]

    return _BLOCK.sub(block, text)


def update() -> None:
    """Write the tables of both READMEs."""
    for document in _HEADS:
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        made = rendered(text, document)
        say(f"{document}: {'unchanged' if made == text else 'written'}")
        path.write_text(made, encoding="utf-8")
