"""What a label that is a score may look like."""

from __future__ import annotations

import pytest

from finetuning.tasks.classification.labels import as_number


@pytest.mark.parametrize(("text", "number"), [("1.5", 1.5), ("-2", -2.0), ("1e-3", 0.001), ("３.５", 3.5)])
def test_a_number_is_read(text: str, number: float) -> None:
    assert as_number(text) == number


@pytest.mark.parametrize("text", ["1_0", "1_0.5", "nan", "inf", "1,5", "50%", "", "높음"])
def test_what_only_python_reads_as_a_number_is_a_word(text: str) -> None:
    assert as_number(text) is None
