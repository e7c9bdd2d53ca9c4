"""Small preferences, and a tokenizer whose template adds nothing to what TRL tokenizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
PAIRS = [
    ("배고파", " 밥 드세요.", " 참아."),
    ("오늘 날씨 어때?", " 맑고 따뜻합니다. 산책하기 좋아요.", " 몰라"),
    ("심심해", " 책을 읽어 보세요.", " 그래서 어쩌라고 나한테 그래"),
    ("잘 자", " 안녕히 주무세요.", " 어"),
    ("추천해 줘", " 국밥은 어떠세요?", " 알아서 골라."),
    ("고마워", " 별말씀을요!", " 응"),
]


def with_template(model: Path, folder: Path) -> Path:
    """A copy of a causal model's folder whose tokenizer has TEMPLATE and a token for padding."""
    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


def pair_rows() -> list[dict[str, Any]]:
    """PAIRS as TRL's conversational rows."""

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return [
        {"prompt": said("user", asked), "chosen": said("assistant", good), "rejected": said("assistant", bad)}
        for asked, good, bad in PAIRS
    ]


def judged_rows() -> list[dict[str, Any]]:
    """One answer of each of PAIRS, every other one bad, as TRL's rows for KTO."""
    return [
        {"prompt": row["prompt"], "completion": row["rejected" if number % 2 else "chosen"], "label": number % 2 == 0}
        for number, row in enumerate(pair_rows())
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
