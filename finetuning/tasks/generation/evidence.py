"""What the report page shows of generated texts: beside the expected ones, the least similar first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetuning.tasks.answering.metrics import f1
from finetuning.tasks.evidence import Distribution, Evidence, Ranking
from finetuning.tasks.parts import RowColumns


def generated_evidence(
    predictions: Sequence[Any],
    rows: RowColumns,
    show: Callable[[Mapping[str, Any]], tuple[str, str]],
    losses: Sequence[float],
) -> Evidence:
    """Collect what the page shows of a split.

    Args:
        predictions: One of each row; its `generated` is a generated text or None.
        rows: Columns of the split by role.
        show: Returns a row's input and its expected text, "" where none is known.
        losses: The loss by token of each row where it is kept.

    Returns:
        The losses of the rows, and those with a generated text by the F1 of its characters with the expected one.
    """
    blocks = (Distribution("행마다의 손실", "토큰당 손실", {"행": np.array(losses)}),) if losses else ()
    shown = list(_generated(predictions, rows, show))
    if not shown:
        return Evidence(blocks)
    positions = np.array([position for position, *_ in shown])
    if not any(truth for *_, truth in shown):
        return Evidence(blocks, Ranking("생성 예시", "", "", positions, np.zeros(len(shown)), wrong=0))
    alike = np.array([f1(made, [truth]) for _, made, truth in shown])
    wrong = np.array([made != truth for _, made, truth in shown])
    order = np.lexsort((alike, ~wrong))
    title = "생성한 텍스트와 정답 (비슷하지 않은 것부터)"
    return Evidence(
        blocks, Ranking(title, "정답과 다른 행", "글자 F1", positions[order], alike[order], int(wrong.sum()))
    )


def _generated(
    predictions: Sequence[Any], rows: RowColumns, show: Callable[[Mapping[str, Any]], tuple[str, str]]
) -> Iterator[tuple[int, str, str]]:
    """Yield the position of each row with a generated text, that text and the expected one."""
    last = max((position for position, one in enumerate(predictions) if one.generated is not None), default=-1)
    for position, *cells in zip(range(last + 1), *rows.values(), strict=False):
        made = predictions[position].generated
        if made is not None:
            yield position, made.text.strip(), show(dict(zip(rows, cells, strict=True)))[1].strip()
