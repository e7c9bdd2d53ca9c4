"""The bundled reviews: enough of them, balanced, none of test nearly one of train, and not solved by single words."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter, defaultdict

import pytest

from benchmarks.quickstart import accuracy_of_words
from tests.support.paths import ROOT

LABELS = {"긍정", "부정", "중립"}
FEWEST = {"train": 2000, "validation": 200, "test": 400}


def rows_of(split: str) -> list[dict[str, str]]:
    with (ROOT / "examples" / "reviews" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def trigrams(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 3] for start in range(max(len(text) - 2, 1)))


def overlaps() -> list[tuple[float, str, str, bool]]:
    """Return pairs of rows with common trigrams: their share, both splits, and whether their labels are the same."""
    rows = [(split, row["label"], trigrams(row["text"])) for split in FEWEST for row in rows_of(split)]
    holders: dict[str, list[int]] = defaultdict(list)
    found = []
    for number, (split, label, mine) in enumerate(rows):
        common = Counter(other for trigram in mine for other in holders[trigram])
        for other, shared in common.items():
            other_split, other_label, theirs = rows[other]
            found.append((shared / len(mine | theirs), split, other_split, label == other_label))
        for trigram in mine:
            holders[trigram].append(number)
    return found


@pytest.mark.parametrize("split", FEWEST)
def test_there_are_enough_reviews_of_each_label(split: str) -> None:
    rows = rows_of(split)
    assert len(rows) >= FEWEST[split]
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == LABELS
    assert min(counts.values()) > 0.95 * len(rows) / len(LABELS)
    assert all(unicodedata.is_normalized("NFC", row["text"]) and row["text"].strip() for row in rows)


def test_no_review_is_there_twice_or_nearly_one_of_another_split() -> None:
    texts = [row["text"] for split in FEWEST for row in rows_of(split)]
    assert len(set(texts)) == len(texts)
    for share, split, other_split, same_label in overlaps():
        assert share <= (0.4 if split != other_split else 0.6 if same_label else 0.8)


def test_counting_words_does_not_solve_them() -> None:
    assert accuracy_of_words(ROOT / "examples" / "reviews") <= 0.8
