"""Pairs of natural language inference as triplets: a premise, hypotheses that follow from it, and contradictions.

As SimCSE (Gao et al. 2021) trains embeddings on NLI: an entailment is the passage of its premise, a contradiction its
hard negative. Neutral hypotheses are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exceptions import DataError
from finetuning.cells import as_label, as_text
from finetuning.korean.column_names import LABELS, pair_in
from finetuning.tasks.parts import Gathered

SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0, "함의": 1.0, "중립": 0.5, "모순": 0.0}
_NUMBERS = {"0", "1", "2", "-1"}
_NLI_PAIRS = {("premise", "hypothesis"), ("전제", "가설")}
_LOOKED_AT = 1000  # rows
_COLUMNS = ("question", "positives", "negatives")


def triplets(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Gathered | None:
    """Gather the hypotheses of each premise; None where the rows are no pairs with names of NLI's labels.

    Args:
        columns: Names of the source's columns.
        rows: Its rows.

    Returns:
        Columns, a row for each premise with an entailment, and a sentence for the log.
    """
    found = _pair_and_label(columns)
    if found is None:
        return None
    first, second, label = found
    labels = {as_label(row.get(label)).casefold() for row in itertools.islice(rows, _LOOKED_AT)} - {"", "-"}
    if not labels or not labels <= SCORES.keys():
        return None
    premises: dict[str, dict[float, list[str]]] = {}
    for row in rows:
        premise, hypothesis = as_text(row.get(first)), as_text(row.get(second))
        score = SCORES.get(as_label(row.get(label)).casefold())
        if premise.strip() and hypothesis.strip() and score is not None:
            premises.setdefault(premise, {}).setdefault(score, []).append(hypothesis)
    made = [
        dict(zip(_COLUMNS, (premise, own[1.0], own.get(0.0, [])), strict=True))
        for premise, own in premises.items()
        if 1.0 in own
    ]
    note = (
        f"NLI 데이터를 triplet으로 읽었습니다: 전제 {len(made):,}개(함의는 정답, 모순은 오답 문서). 함의가 없어 "
        f"뺀 전제 {len(premises) - len(made):,}개."
    )
    return _COLUMNS, made, note


def check_scores(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise DataError where numbers of classes of NLI would be read as scores of similarity.

    Args:
        columns: Names of the source's columns.
        rows: Its rows.
        where: The source, as messages name it.
    """
    found = _pair_and_label(columns)
    if found is None or (found[0].casefold(), found[1].casefold()) not in _NLI_PAIRS:
        return
    labels = {as_label(row.get(found[2])) for row in itertools.islice(rows, _LOOKED_AT)} - {""}
    if labels and labels <= _NUMBERS:
        raise DataError(
            f"NLI 데이터의 라벨이 숫자입니다: {', '.join(sorted(labels))}. 번호를 점수로 읽으면 잘못 학습합니다.",
            where=f"{where}, '{found[2]}' 열",
            remedy="entailment, neutral, contradiction(함의, 중립, 모순)으로 바꾸세요. "
            "KLUE-NLI의 번호는 차례로 0, 1, 2입니다.",
        )


def _pair_and_label(columns: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the columns of a pair of texts and of its label; None where a source has none, or several labels."""
    pair, labels = pair_in(columns), [name for name in columns if name.casefold() in LABELS]
    usual = [name for name in labels if name.casefold() in ("gold_label", "label")] or labels
    return (*pair, usual[0]) if pair is not None and usual else None
