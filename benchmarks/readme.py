"""Tables of docs/memory-and-speed.md and docs/tasks.md made from results, in both languages.

A table stands between `<!-- benchmark throughput-encoder -->` and `<!-- /benchmark -->`, and is written anew from the
newest result of that name.
"""

from __future__ import annotations

import re
from typing import Any

from benchmarks.runner import ROOT, newest, say
from benchmarks.task_tables import TABLES

_BLOCK = re.compile(r"(<!-- benchmark ([\w-]+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)
KOREAN, ENGLISH = "docs/memory-and-speed.md", "docs/memory-and-speed.en.md"
DOCUMENTS = {KOREAN: "ko", ENGLISH: "en", "docs/tasks.md": "ko", "docs/tasks.en.md": "en"}
_UNIT = {KOREAN: "배", ENGLISH: " ×"}
_HEADS = {
    KOREAN: {
        "throughput-encoder": ("NSMC 분류, BERT-base 크기, 16 × 4", "예제/초", "이 프로그램은", "손실", "최대 메모리"),
        "throughput-causal": ("질문과 답, SmolLM2-135M 전체 학습, 16 × 1", "예제/초", "이 프로그램은", "손실",
                              "최대 메모리"),
        "embedding": ("KorQuAD 질문과 문서, e5-small, window 128", "예제/초", "이 프로그램은", "최대 메모리"),
        "embedding-quality-korquad": ("학습에 쓰지 않은 KorQuAD 문서 300개에서 찾기, 시드 셋의 평균(범위)", "recall@1",
                                      "nDCG@10"),
    },
    ENGLISH: {
        "throughput-encoder": ("NSMC, a BERT-base shape, 16 × 4", "examples a second", "this program is", "loss",
                               "peak memory"),
        "throughput-causal": ("questions and answers, all of SmolLM2-135M, 16 × 1", "examples a second",
                              "this program is", "loss", "peak memory"),
        "embedding": ("KorQuAD's questions and passages, e5-small, a window of 128", "examples a second",
                      "this program is", "peak memory"),
        "embedding-quality-korquad": ("search in 300 passages of KorQuAD not trained on, mean (range) of three seeds",
                                      "recall@1", "nDCG@10"),
    },
}  # fmt: skip
_NAMES = {
    KOREAN: {
        "ours": "이 프로그램, bf16",
        "ours-compiled": "이 프로그램, bf16, `torch_compile`(긴 학습의 기본값)",
        "trainer": "`transformers.Trainer`, bf16",
        "trainer-float32": "`transformers.Trainer`, float32(기본값)",
        "trainer-tuned": "`transformers.Trainer`, bf16, `group_by_length`(배치 구성이 달라짐)",
        "trainer-compiled": "`transformers.Trainer`, bf16, `torch_compile`",
        "sft": "TRL `SFTTrainer`, bf16",
        "sft-packing": "TRL `SFTTrainer`, bf16, packing(배치 구성이 달라짐)",
        "throughput-encoder bare": "상한: 패딩 없는 행으로 forward, backward, step만",
        "throughput-causal bare": "상한: 512 토큰의 행으로 forward, backward, step만",
        "embedding untrained": "학습 전",
        "embedding ours": "이 프로그램, `batch_size` {size}",
        "embedding mnrl": "sentence-transformers, `MultipleNegativesRankingLoss`",
        "embedding cached": "sentence-transformers, `Cached...RankingLoss`, `mini_batch_size` {size}",
    },
    ENGLISH: {
        "ours": "this program, bf16",
        "ours-compiled": "this program, bf16, `torch_compile` (default in long training)",
        "trainer": "`transformers.Trainer`, bf16",
        "trainer-float32": "`transformers.Trainer`, float32 (its default)",
        "trainer-tuned": "`transformers.Trainer`, bf16, `group_by_length` (other batches)",
        "trainer-compiled": "`transformers.Trainer`, bf16, `torch_compile`",
        "sft": "TRL's `SFTTrainer`, bf16",
        "sft-packing": "TRL's `SFTTrainer`, bf16, packing (other batches)",
        "throughput-encoder bare": "limit: rows without padding, forward, backward and step alone",
        "throughput-causal bare": "limit: rows of 512 tokens, forward, backward and step alone",
        "embedding untrained": "untrained",
        "embedding ours": "this program, `batch_size` {size}",
        "embedding mnrl": "sentence-transformers, `MultipleNegativesRankingLoss`",
        "embedding cached": "sentence-transformers, `Cached...RankingLoss`, `mini_batch_size` {size}",
    },
}
_PARTS = {"gpu": ["gpu", "gpu-qlora", "gpu-peers"]}  # calls whose results make one table
_GPU_HEAD = {
    KOREAN: "GPU({card})에서 `python -m benchmarks gpu`로 측정한 값입니다. 값이 여러 개면 설정마다 하나씩입니다.",
    ENGLISH: "Measured on a GPU ({card}) by `python -m benchmarks gpu`; several values are of several settings.",
}
_GPU_COLUMNS = {
    KOREAN: "| GPU에서 측정한 것 | 목표 | 측정값 |",
    ENGLISH: "| on a GPU | goal | measured |",
}
_GOALS = {
    KOREAN: {
        "short-trainer": "짧은 한국어 텍스트, BERT-base: `Trainer` bf16의 몇 배 속도",
        "short-tuned": "같은 것: `group_by_length`와 fused AdamW를 쓴 `Trainer`의 몇 배 속도",
        "chat-packing": "질문과 답, 1B 전체: packing을 쓴 `SFTTrainer`의 몇 배 속도",
        "chat-packing-liger": "같은 것: packing과 Liger kernel을 쓴 `SFTTrainer`의 몇 배 속도",
        "rows-trainer": "2,048 토큰의 행, 1B 전체: `Trainer` bf16의 몇 배 속도",
        "rows-rate": "같은 것: 이 카드에서 측정한 bf16 행렬 곱 속도에 대한 비율",
        "full-1b-gib": "8 GB 한도에서 1B 전체 학습: 쓴 GPU 메모리(GiB)",
        "qlora-8b-gib": "10 GB 한도에서 8B 4비트 LoRA: 쓴 GPU 메모리(GiB)",
        "estimate": "예상 메모리 ÷ 측정한 최대 메모리",
        "waits": "로그 사이에 GPU를 기다린 횟수",
        "resumed": "`training.deterministic`으로 재개한 학습이 비트 단위까지 동일함(1)",
    },
    ENGLISH: {
        "short-trainer": "short Korean texts, BERT-base: times the speed of `Trainer` in bf16",
        "short-tuned": "the same: with `group_by_length` and fused AdamW in `Trainer`, times its speed",
        "chat-packing": "questions and answers, all of a 1B: times the speed of `SFTTrainer` with packing",
        "chat-packing-liger": "the same: times the speed of `SFTTrainer` with packing and Liger's kernels",
        "rows-trainer": "rows of 2,048 tokens, all of a 1B: times the speed of `Trainer` in bf16",
        "rows-rate": "the same: share of the card's measured rate of bf16 matrix products",
        "full-1b-gib": "all of a 1B under 8 GB: GPU memory used, GiB",
        "qlora-8b-gib": "8B LoRA in 4 bits under 10 GB: GPU memory used, GiB",
        "estimate": "estimated memory ÷ measured peak",
        "waits": "waits for the GPU between two lines of the log",
        "resumed": "a resumed run under `training.deterministic` equal to the bit (1)",
    },
}


def table_of(result: dict[str, Any], document: str) -> str:
    """The Markdown table of speeds in the language of a document. The untrained model has no speed and no line."""
    heads, names = _HEADS[document][result["benchmark"]], _NAMES[document]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in result["tables"][0]["rows"]:
        if "examples/s" not in row:
            continue
        ratio = f"{row['this program is']:.2g}{_UNIT[document]}" if row["this program is"] else ""
        cells = [_name_of(row, result["benchmark"], names), f"{row['examples/s']:.1f}", ratio]
        if "loss" in row:
            cells.append(f"{row['loss']:.3f}" if row["loss"] is not None else "")
        cells.append(f"{row['peak, GiB']:.2f} GiB")
        lines.append("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    return "\n".join(lines) + "\n"


def quality_table_of(result: dict[str, Any], document: str) -> str:
    """The Markdown table of models that were compared after training, in the language of a document."""
    heads, names = _HEADS[document][result["benchmark"]], _NAMES[document]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in result["tables"][0]["rows"]:
        cells = [_name_of(row, "embedding", names)]
        for metric in heads[1:]:
            runs = row[f"{metric} by run"]
            spread = f" ({min(runs):.4f}–{max(runs):.4f})" if len(runs) > 1 else ""
            cells.append(f"{row[metric]:.4f}{spread}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _name_of(row: dict[str, Any], benchmark: str, names: dict[str, str]) -> str:
    """What a contender is called; `cached-32` is `embedding cached` with a size of 32."""
    if "name" in row:
        return names.get(row["name"]) or names[f"{benchmark} {row['name']}"]
    kind, _, size = row["contender"].partition("-")
    return names[f"{benchmark} {kind}"].format(size=size)


def gpu_table_of(results: list[dict[str, Any]], document: str) -> str:
    """What was measured on a GPU beside what it should be, in the language of a document, with the card's name."""
    device = next(line["device"] for line in results[0]["tables"][2]["rows"] if "device" in line)
    measured = {row["goal"]: row for result in results for row in result["tables"][0]["rows"]}
    lines = [_GPU_HEAD[document].format(card=device), "", _GPU_COLUMNS[document], "|---|---|---|"]
    for goal, name in _GOALS[document].items():
        if goal in measured:
            values = ", ".join(f"{value:.3g}" for value in measured[goal]["measured"])
            lines.append(f"| {name} | {measured[goal]['wanted']} | {values} |")
    return "\n".join(lines) + "\n"


def rendered(text: str, document: str) -> str:
    """A document's text with its tables made from the newest results; what has no result stays as it is."""

    def block(found: re.Match[str]) -> str:
        results = [result for part in _PARTS.get(found[2], [found[2]]) if (result := newest(part)) is not None]
        if not results:
            return found[0]
        if found[2] == "gpu":
            made = gpu_table_of(results, document)
        elif found[2] in TABLES:
            made = TABLES[found[2]](results[0], DOCUMENTS[document])
        else:
            table = quality_table_of if found[2].startswith("embedding-quality-") else table_of
            made = table(results[0], document)
        return found[1] + made + found[3]

    return _BLOCK.sub(block, text)


def update() -> None:
    """Write the tables of the documents."""
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        made = rendered(text, document)
        say(f"{document}: {'unchanged' if made == text else 'written'}")
        path.write_text(made, encoding="utf-8")
