"""Pairs of natural language inference as triplets: a premise, hypotheses that follow from it, and contradictions.

As SimCSE (Gao et al. 2021) trains embeddings on NLI: an entailment is the passage of its premise, a contradiction its
hard negative. Neutral hypotheses are left out. Labels may be names, or the numbers of KLUE-NLI and KorNLI.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from exceptions import DataError
from finetuning.cells import as_label, as_text
from finetuning.korean.column_names import LABELS, pair_in
from finetuning.tasks.parts import Gathered

SCORES: Mapping[str, float] = MappingProxyType({
    "entailment": 1.0, "neutral": 0.5, "contradiction": 0.0, "함의": 1.0, "중립": 0.5, "모순": 0.0,
})  # fmt: skip
_NUMBERS = MappingProxyType({"0": "entailment", "1": "neutral", "2": "contradiction"})
_UNLABELLED = {"", "-", "-1"}
_NLI_PAIRS = {("premise", "hypothesis"), ("전제", "가설")}
_LOOKED_AT = 1000  # rows
_COLUMNS = ("question", "positives", "negatives")


@dataclass(frozen=True)
class Inferences:
    """Pairs with labels of NLI; can be iterated again.

    Attributes:
        rows: The source's rows.
        columns: Names of its columns: premise, hypothesis, label.
        numbers: Number → label; empty where the labels are names.
    """

    rows: Iterable[Mapping[str, Any]]
    columns: tuple[str, str, str]
    numbers: Mapping[str, str]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, with the names of their labels."""
        label = self.columns[2]
        for row in self.rows:
            found = as_label(row.get(label)).casefold()
            yield {**row, label: self.numbers.get(found, None if found in _UNLABELLED else found)}

    def note(self) -> str:
        """Return how numbers were read, a sentence for the log; "" where there are none."""
        if not self.numbers:
            return ""
        read = ", ".join(f"{number} {name}" for number, name in self.numbers.items())
        return f"라벨의 번호를 KLUE-NLI와 KorNLI의 순서로 읽었습니다: {read}. 순서가 다르면 이름으로 바꾸세요."


def inferences(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], where: str, highest_score: float
) -> Inferences | None:
    """Find out whether a source is NLI.

    Args:
        columns: Names of its columns.
        rows: Its rows; they can be iterated again.
        where: The source, as messages name it.
        highest_score: `embedding.highest_score`.

    Returns:
        Its pairs; None where it is something else.

    Raises:
        DataError: Numbers that may be labels of NLI, or may be not: read as scores, contradictions would be the pairs
            that are most alike.
    """
    found = _pair_and_label(columns)
    if found is None:
        return None
    labels = {as_label(row.get(found[2])).casefold() for row in itertools.islice(rows, _LOOKED_AT)} - _UNLABELLED
    if labels and labels <= SCORES.keys():
        return Inferences(rows, found, MappingProxyType({}))
    is_named = (found[0].casefold(), found[1].casefold()) in _NLI_PAIRS
    if is_named and labels == _NUMBERS.keys():
        return Inferences(rows, found, _NUMBERS)
    if (is_named and labels and labels <= _NUMBERS.keys()) or (labels == _NUMBERS.keys() and highest_score == 1):
        raise _unclear(labels, f"{where}, '{found[2]}' 열", is_named)
    return None


def _unclear(labels: Iterable[str], where: str, is_named: bool) -> DataError:
    scores = "" if is_named else " 점수라면 --set embedding.loss=cosent --set embedding.highest_score=2로 알려 주세요."
    return DataError(
        f"라벨이 {', '.join(sorted(labels))}뿐이라, NLI 라벨의 번호인지 점수인지 알 수 없습니다.",
        where=where,
        remedy="NLI라면 라벨을 entailment, neutral, contradiction(함의, 중립, 모순)으로 바꾸세요(KLUE-NLI와 "
        f"KorNLI에서는 차례로 0, 1, 2).{scores}",
    )


def triplets(pairs: Inferences) -> Gathered:
    """Gather the hypotheses of each premise.

    Args:
        pairs: The pairs.

    Returns:
        Columns, a row for each premise with an entailment, and a sentence for the log.
    """
    first, second, label = pairs.columns
    premises: dict[str, dict[float, list[str]]] = {}
    for row in pairs:
        premise, hypothesis = as_text(row.get(first)), as_text(row.get(second))
        score = SCORES.get(row[label] or "")
        if premise.strip() and hypothesis.strip() and score is not None:
            premises.setdefault(premise, {}).setdefault(score, []).append(hypothesis)
    made = [
        dict(zip(_COLUMNS, (premise, own[1.0], own.get(0.0, [])), strict=True))
        for premise, own in premises.items()
        if 1.0 in own
    ]
    note = (
        f"NLI 데이터를 triplet으로 읽었습니다: 전제 {len(made):,}개(함의는 정답, 모순은 오답 문서). 함의가 없어 "
        f"뺀 전제 {len(premises) - len(made):,}개. {pairs.note()}"
    )
    return _COLUMNS, made, note.rstrip()


def _pair_and_label(columns: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the columns of a pair of texts and of its label; None where a source has none, or several labels."""
    pair, labels = pair_in(columns), [name for name in columns if name.casefold() in LABELS]
    usual = [name for name in labels if name.casefold() in ("gold_label", "label")] or labels
    return (*pair, usual[0]) if pair is not None and usual else None
