"""The bundled reviews: enough of them, balanced, and none of test that is nearly one of train."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter

from tests.support.paths import ROOT

SPLITS = ("train", "validation", "test")


def rows_of(split: str) -> list[dict[str, str]]:
    with (ROOT / "examples" / "reviews" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def trigrams(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(len(text) - 2)}


def test_there_are_enough_reviews_of_both_labels() -> None:
    rows = [row for split in SPLITS for row in rows_of(split)]
    assert len(rows) >= 800
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == {"긍정", "부정"}
    assert min(counts.values()) > 0.45 * len(rows)
    assert all(unicodedata.is_normalized("NFC", row["text"]) and row["text"].strip() for row in rows)


def test_no_review_is_nearly_one_of_another_split() -> None:
    texts = {split: [trigrams(row["text"]) for row in rows_of(split)] for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS[SPLITS.index(one) + 1 :]:
            for mine in texts[one]:
                for theirs in texts[other]:
                    assert len(mine & theirs) <= 0.3 * len(mine | theirs)
