"""Durations as they are said."""

from __future__ import annotations

import pytest

from finetuning.korean.durations import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0초"), (45, "45초"), (59.6, "1분"), (60, "1분"), (200, "3분 20초"), (3600, "1시간"), (7499, "2시간 4분"),
        (86_400, "1일"), (97_200, "1일 3시간"),
    ],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said
