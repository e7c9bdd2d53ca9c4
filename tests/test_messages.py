"""Every Korean message in the source: right particles, polite sentences, one spelling per term."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT

HANGUL = re.compile("[가-힣]")
CLOSING = "[\"'`”’]*"  # a particle after a bracket is of the word before it
PARTICLE = "(?:을|를|은|는|이|가|과|와|으로|로|이나|나|이라|라|이면|면|이어서|여서)"
WRONG_AFTER_PLACEHOLDER = re.compile(f"\x00{CLOSING}{PARTICLE}(?![가-힣])")
WRONG_AFTER_PERCENT = re.compile(f"%[.0-9]*[sdfg]{CLOSING}{PARTICLE}(?![가-힣])")
BOTH = re.compile(r"[을은이과]\([를는가와]\)|\(으\)로|[를는가와]\([을은이과]\)")  # what with_particle is there to avoid
NOT_POLITE = re.compile(r"(?:(?<!니)다|하라|해라|할\s?것|[함됨음임]|[해돼]|[으]?ㅁ)[.!](?=\s|$)")
ONE_WORD = {
    "레이블": "라벨", "토크나이저": "tokenizer", "체크 포인트": "체크포인트", "쓰레드": "스레드", "메세지": "메시지",
    "디렉토리": "폴더", "디렉터리": "폴더", "화일": "파일", "에폭": "epoch", "에포크": "epoch", "학습율": "학습률",
    "러닝레이트": "학습률", "데이타": "데이터", "컬럼": "열", "칼럼": "열", "인자값": "값", "파라메터": "파라미터",
    "퍼플렉시티": "perplexity", "데이터 셋": "데이터셋", "어뎁터": "어댑터", "가중치들": "가중치",
}  # fmt: skip
NAMES_OF_OTHERS = {"finetuning/korean/column_names.py"}  # what people call their columns, and no word of ours


class Message(NamedTuple):
    """A string literal; text has NUL where a value is put in, unless with_particle puts it in with its particle."""

    place: str
    text: str


def sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(line) for line in listed.stdout.splitlines()]
    return [path for path in paths if path.parts[0] not in {"tests", "benchmarks", "examples"}]


def messages_of(path: Path) -> Iterator[Message]:
    """The Korean string literals of a module, docstrings left out, adjoining ones as one."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside
        text = node.value if is_text else _joined(node) if isinstance(node, ast.JoinedStr) else ""  # type: ignore[attr-defined]
        if HANGUL.search(text):
            yield Message(f"{path}:{node.lineno}", text)  # type: ignore[attr-defined]


def _joined(node: ast.JoinedStr) -> str:
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "" if _has_particle(part) else "\x00"
        for part in node.values
    )


def _has_particle(part: ast.expr) -> bool:
    value = part.value if isinstance(part, ast.FormattedValue) else part
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "with_particle"


MESSAGES = [message for path in sources() for message in messages_of(path)]
GUIDES = [path for path in (ROOT / "docs").glob("*.md") if ".en." not in path.name]
RECIPES = [*(ROOT / "recipes").glob("*.yaml")]
DOCUMENTS = ["README.md", "config.yaml", *(str(path.relative_to(ROOT)) for path in (*GUIDES, *RECIPES))]


def found(pattern: re.Pattern[str]) -> list[str]:
    return [f"{place}: {text!r}" for place, text in MESSAGES if pattern.search(text)]


def test_the_walk_finds_the_messages() -> None:
    assert len(MESSAGES) > 500
    assert any(place.startswith("training_manager.py") for place, _ in MESSAGES)


def test_a_particle_after_a_value_goes_through_with_particle() -> None:
    assert found(WRONG_AFTER_PLACEHOLDER) == []
    assert found(WRONG_AFTER_PERCENT) == []
    assert found(BOTH) == []


def test_sentences_are_polite() -> None:
    assert found(NOT_POLITE) == []


@pytest.mark.parametrize("word", ONE_WORD)
def test_each_term_has_one_spelling(word: str) -> None:
    places = [place for place, text in MESSAGES if word in text and place.split(":")[0] not in NAMES_OF_OTHERS]
    documents = [name for name in DOCUMENTS if word in (ROOT / name).read_text(encoding="utf-8")]
    assert places + documents == [], f"'{ONE_WORD[word]}'"


@pytest.mark.parametrize(
    ("pattern", "wrong", "right"),
    [
        (WRONG_AFTER_PLACEHOLDER, "\x00을 찾습니다", "\x00개를 찾습니다"),
        (WRONG_AFTER_PLACEHOLDER, "'\x00'가 없습니다", "'\x00' 열이 없습니다"),
        (WRONG_AFTER_PLACEHOLDER, "\x00로 읽습니다", "\x00로부터"),
        (WRONG_AFTER_PERCENT, "%s는 없습니다", "%s행은 없습니다"),
        (WRONG_AFTER_PERCENT, "%.3g이 아니라", "%.3g입니다"),
        (NOT_POLITE, "파일이 없다.", "파일이 없습니다."),
        (NOT_POLITE, "확인할 것.", "확인하세요."),
        (BOTH, "파일을(를)", "파일을"),
    ],
)
def test_the_patterns_tell_right_from_wrong(pattern: re.Pattern[str], wrong: str, right: str) -> None:
    assert pattern.search(wrong)
    assert not pattern.search(right)
