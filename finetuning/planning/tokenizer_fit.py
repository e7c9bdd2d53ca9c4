"""Measure how well a tokenizer fits the text: tokens per word, unknown tokens, and text lost to max_length."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetuning.korean.letters import kind_of
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SAMPLE = 1000  # rows
_NO_TEXT = frozenset({"row", "id", "label", "answers", "is_impossible"})
_WHOLE = 1 << 20  # a max_length that truncates nothing
_COUNTED = 1 << 14  # characters of a text that are counted, so that the rows of a sample take seconds at most
_MOST_A_TOKEN = 64  # characters, far more than the tokens of any language have on average
_KOREAN_ENOUGH = 200  # Hangul syllables that a sample needs before a tokenizer is judged
_MANY_UNKNOWN, _MANY_TOKENS = 0.05, 1.5
_SHOWN = 8  # unknown characters of a kind
_BETTER = {
    "AutoModelForCausalLM": "한국어로 사전학습한 언어 모델(예: skt/kogpt2-base-v2)",
    "AutoModelForSeq2SeqLM": "한국어도 함께 학습한 모델(예: google/mt5-small)",
}
_BETTER_ENCODER = "한국어로 사전학습한 모델(예: klue/roberta-base)"
HEADINGS = (
    "토큰/어절",
    "토큰/음절",
    "알 수 없는 토큰",
    "글자 단위 미만으로 쪼개진 토큰",
    "잘린 행",
    "잘려 나간 텍스트",
)


@dataclass(frozen=True)
class Fit:
    """Measures of a tokenizer on a sample of rows.

    Attributes:
        rows: Rows in the sample.
        syllables: Hangul syllables in the sample.
        per_word: Tokens per word (어절).
        per_syllable: Tokens with Hangul per Hangul syllable.
        unknown: Share of tokens that are the unknown token.
        fragments: Share of tokens that cover only part of a character, such as bytes or conjoining jamo.
        cut: Share of rows truncated at max_length.
        lost: Share of all tokens that truncation removed.
        unknown_letters: Characters that the tokenizer does not know, the most frequent first, with their number.
    """

    rows: int
    syllables: int
    per_word: float
    per_syllable: float
    unknown: float
    fragments: float
    cut: float
    lost: float
    unknown_letters: tuple[tuple[str, int], ...] = ()

    def cells(self) -> tuple[str, ...]:
        """Return the measures as text, in the order of HEADINGS."""
        shares = (self.unknown, self.fragments, self.cut, self.lost)
        return (f"{self.per_word:.2f}", f"{self.per_syllable:.2f}", *(f"{100 * share:.1f}%" for share in shares))

    def line(self) -> str:
        """Return the measures as one line for the log."""
        said = ", ".join(f"{name} {cell}" for name, cell in zip(HEADINGS, self.cells(), strict=True))
        return f"tokenizer: {said} (학습 데이터 {self.rows:,}행)"

    def unknown_line(self) -> str:
        """Return a line on the characters that the tokenizer does not know, by their kind; empty if it knows all."""
        kinds: dict[str, list[tuple[str, int]]] = {}
        for letter, count in self.unknown_letters:
            kinds.setdefault(kind_of(letter), []).append((letter, count))
        shown = [
            f"{kind} {len(own):,}가지 {sum(count for _, count in own):,}번"
            f"({' '.join(_printable(letter) for letter, _ in own[:_SHOWN])}{' 등' if len(own) > _SHOWN else ''})"
            for kind, own in kinds.items()
        ]
        if not shown:
            return ""
        return (
            f"tokenizer가 모르는 글자: {', '.join(shown)}. 그 글자나 그 글자가 든 어절은 모델에 전달되지 않습니다"
            f"(학습 데이터 {self.rows:,}행)."
        )

    def warning(self, auto_class: str) -> str:
        """Return a warning that the tokenizer does not suit Korean, with a better choice; empty if it does.

        Args:
            auto_class: The task's class in transformers, such as AutoModelForCausalLM.

        Returns:
            The warning in Korean, or an empty string.
        """
        if self.syllables < _KOREAN_ENOUGH:
            return ""
        found = []
        if self.unknown > _MANY_UNKNOWN:
            found.append(
                f"토큰의 {100 * self.unknown:.0f}%가 알 수 없는 토큰(UNK)이어서 그 글자는 모델에 전달되지 않습니다."
            )
        if self.per_syllable > _MANY_TOKENS:
            found.append(
                f"한글 음절 하나를 평균 {self.per_syllable:.1f} 토큰으로 나누므로 "
                "학습이 느리고 max_length에 텍스트가 적게 들어갑니다."
            )
        if not found:
            return ""
        better = _BETTER.get(auto_class, _BETTER_ENCODER)
        text = f"이 tokenizer는 한국어에 맞지 않습니다. {' '.join(found)} {better} 쪽이 낫습니다."
        if auto_class == "AutoModelForCausalLM" and self.per_syllable > _MANY_TOKENS:
            text += " byte-level BPE이면 model.extend_vocabulary로 한국어 서브워드를 추가할 수도 있습니다."
        return text


def measure(
    rows: Dataset, task: Task, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
) -> Fit:
    """Measure a tokenizer on the first SAMPLE rows of a split.

    Args:
        rows: The split.
        task: Encodes the rows.
        tokenizer: The tokenizer, fitted to the task.
        label_names: Label names in the order of their ids.
        max_length: Most tokens of an example.

    Returns:
        The measures.
    """
    table = rows.select(range(min(SAMPLE, len(rows))))
    sample: dict[str, Sequence[Any]] = {name: table[name][:] for name in table.column_names}
    counts = _Counts()
    counts.add([text[:_COUNTED] for text in texts_of(sample)], tokenizer)
    most = max(_COUNTED, _MOST_A_TOKEN * max_length)  # a longer text is cut, or goes on as it began
    beginnings = {role: cells if role in _NO_TEXT or role == "messages" else [cell[:most] for cell in cells]
                  for role, cells in sample.items()}  # fmt: skip
    kept = task.encodes.encode(beginnings, tokenizer, label_names, max_length)
    left = 1.0  # overlapping windows have more tokens than the text
    if any(kept["truncated"]):
        left = sum(map(len, kept["input_ids"])) / max(1, _whole_tokens(sample, task, tokenizer, label_names, counts))
    return Fit(
        rows=len(table),
        syllables=counts.syllables,
        per_word=counts.tokens / max(1, counts.words),
        per_syllable=counts.hangul_tokens / max(1, counts.syllables),
        unknown=counts.unknown / max(1, counts.tokens),
        fragments=counts.fragments / max(1, counts.tokens),
        cut=sum(kept["truncated"]) / max(1, len(kept["truncated"])),
        lost=max(0.0, 1 - left),
        unknown_letters=_unknown_letters(counts.letters, tokenizer),
    )


def _whole_tokens(
    sample: Mapping[str, Sequence[Any]], task: Task, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str],
    counts: _Counts,
) -> int:  # fmt: skip
    """Count the tokens of rows that are not truncated; those of very long rows are estimated from their characters."""
    lengths = [sum(map(len, texts_of({role: [cell] for role, cell in zip(sample, cells, strict=True)})))
               for cells in zip(*sample.values(), strict=True)]  # fmt: skip
    short = [number for number, length in enumerate(lengths) if length <= _COUNTED]
    rows = {role: [cells[number] for number in short] for role, cells in sample.items()}
    encoded = task.encodes.encode(rows, tokenizer, label_names, _WHOLE)["input_ids"] if short else []
    long = sum(length for length in lengths if length > _COUNTED)
    return sum(map(len, encoded)) + long * counts.tokens // max(1, counts.characters)


def _unknown_letters(letters: Counter[str], tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, int], ...]:
    """Return the characters that a tokenizer drops or has the unknown token for, with their number."""
    own = [(letter, count) for letter, count in letters.most_common() if not letter.isascii() and kind_of(letter)]
    if not own:
        return ()
    encoded = tokenizer([letter for letter, _ in own], add_special_tokens=False)["input_ids"]
    return tuple(pair for pair, ids in zip(own, encoded, strict=True) if not ids or tokenizer.unk_token_id in ids)


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else f"U+{ord(letter):04X}"


def table_of(fits: Mapping[str, Fit]) -> list[str]:
    """Format the measures of several models as a table, one line per model.

    Args:
        fits: Measures by model name.

    Returns:
        The lines, beginning with the headings.
    """
    lines = [" | ".join(("모델", *HEADINGS))]
    return lines + [" | ".join((name, *fit.cells())) for name, fit in fits.items()]


@dataclass
class _Counts:
    """Sums over the texts of a sample."""

    words: int = 0
    characters: int = 0
    syllables: int = 0
    tokens: int = 0
    hangul_tokens: int = 0
    unknown: int = 0
    fragments: int = 0
    letters: Counter[str] = field(default_factory=Counter)

    def add(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Count texts, not truncated and without special tokens."""
        if not texts:
            return
        is_fast, unknown = tokenizer.is_fast, tokenizer.unk_token_id
        encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=is_fast, verbose=False)
        places = encoded["offset_mapping"] if is_fast else [None] * len(texts)
        for text, ids, own in zip(texts, encoded["input_ids"], places, strict=True):
            self.unknown += ids.count(unknown)
            self._add(text, len(ids), own)

    def _add(self, text: str, tokens: int, places: Sequence[tuple[int, int]] | None) -> None:
        """Count a text by the place of each token in it; None where the tokenizer does not tell."""
        syllables = sum("가" <= letter <= "힣" for letter in text)
        self.words += len(text.split())
        self.characters += len(text)
        self.letters.update(text)
        self.syllables += syllables
        self.tokens += tokens
        if places is None:  # all tokens of a text with Hangul are counted
            self.hangul_tokens += tokens if syllables else 0
            return
        self.hangul_tokens += sum(any("가" <= letter <= "힣" for letter in text[start:end]) for start, end in places)
        ends = [0, *(end for _, end in places)]
        starts = [*(start for start, _ in places), len(text)]
        self.fragments += sum(  # the token shares a character with the one before or after it
            starts[number] < ends[number] or starts[number + 1] < ends[number + 1] for number in range(len(places))
        )


def texts_of(sample: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield every text of the rows, and every message of conversations.

    Args:
        sample: Cells by column name.

    Yields:
        The texts, column by column.
    """
    for role, cells in sample.items():
        if role == "messages":
            yield from (message["content"] for cell in cells for message in json.loads(cell))
        elif role not in _NO_TEXT:
            yield from cells
