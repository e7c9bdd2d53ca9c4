"""Reading what a reranker learns from: pairs with a label or a score, and queries with good and bad passages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from exceptions import BadRow, DataError
from finetuning.cells import as_text, written_value
from finetuning.config.schema import Settings
from finetuning.korean.column_names import CANDIDATES, DOCUMENTS, POSITIVES, QUERIES, RELEVANCES
from finetuning.tasks.parts import RowReader
from finetuning.tasks.passages import NEGATIVES, only_text, texts_in
from finetuning.tasks.reranker.losses import OF_LISTS
from finetuning.types import Column

_TEACHER = MappingProxyType({
    "positive_scores": ("pos_scores", "positive_scores", "pos_score", "positive_score", "정답점수", "정답_점수"),
    "negative_scores": ("neg_scores", "negative_scores", "neg_score", "negative_score", "오답점수", "오답_점수"),
})  # fmt: skip
_RELEVANT = {
    **dict.fromkeys(("true", "yes", "o", "relevant", "관련", "관련있음", "관련 있음", "적합"), 1.0),
    **dict.fromkeys(("false", "no", "x", "irrelevant", "무관", "관련없음", "관련 없음", "부적합"), 0.0),
}
_SHOWN = 40


class RerankReader(RowReader):
    """Reads a query and a passage with a label, or a query with its good and its bad passages.

    A row becomes `question`, `context` and `label`, or `question`, `passages` and their `labels`; under a teacher's
    loss its scores are in `teacher`. All rows of one query stay on one side when data are held out.
    """

    grouped_by = "question"
    instead = MappingProxyType({"text_column": "question_column", "text_pair_column": "context_column"})

    @property
    def loss(self) -> str | None:
        """The loss that the settings name; None where the data decide."""
        return self.settings.reranker.loss

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns of a pair, of a list, or of good and bad passages; see `RowReader.columns`."""
        question = self._first("question", "question_column", QUERIES, available)
        negatives = [
            self.found_column(f"negatives_{number}", "negative_column", name, optional=True)
            for number, name in enumerate(available)
            if name == self.settings.data.negative_column or NEGATIVES.fullmatch(name)
        ]
        label = self.column("label", "label_column", RELEVANCES, target=True)
        if negatives:
            positives = self._first("positives", "context_column", (*POSITIVES, *DOCUMENTS), available)
            return (question, positives, *negatives, *self._teacher(available))
        several = next((name for name in available if name.casefold() in CANDIDATES), None)
        context = self.column("context", "context_column", DOCUMENTS)
        if several is not None and context.name not in available:
            return question, self.found_column("passages", "context_column", several), label
        return question, self._first("context", "context_column", DOCUMENTS, available), label

    def _first(self, role: str, setting: str, usual: Sequence[str], available: Sequence[str]) -> Column:
        """Return the column of a role; by its usual names the first of them that the source has."""
        spelled = {name.casefold() for name in available}
        found = next((name for name in usual if name in spelled), None)
        return self.column(role, setting, tuple(usual) if found is None else (found,))

    def _teacher(self, available: Sequence[str]) -> list[Column]:
        """Return the columns of a teacher's scores, which only a loss beside them reads."""
        if self.loss != "margin_mse":
            return []
        return [Column(role, "negative_column", names[0], names[0], names) for role, names in _TEACHER.items()]

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Return the settings with the shape of the data and a loss for it; see `RowReader.refine`.

        Args:
            roles: Roles of the columns that were found.
            train_labels: Count of each label in train.

        Returns:
            The settings.

        Raises:
            DataError: The loss compares the passages of a list, and the rows are single pairs; or all labels are one.
        """
        options, labels = self.settings.reranker, [float(label) for label in train_labels]
        shape = "lists" if "passages" in roles else options.format
        if shape is None or (shape == "lists" and "passages" not in roles):
            shape = "pairs" if set(labels) <= {0.0, 1.0} else "scores"
        within = all(0 <= label <= 1 for label in labels)
        loss = options.loss or ("listwise" if shape == "lists" else "bce" if within else "mse")
        if shape != "lists" and loss in OF_LISTS:
            raise DataError(
                f"{loss}에는 질문마다 정답 문서와 오답 문서의 목록이 필요한데, 질문과 문서의 쌍이 한 행씩 있습니다.",
                where=f"reranker.loss: {loss}",
                remedy="query, positives, negatives 열로 질문마다 한 행이 되게 묶거나, reranker.loss를 지우세요.",
            )
        if shape != "lists" and len(labels) < 2:
            raise DataError(
                f"학습 데이터의 라벨이 한 가지뿐입니다: {next(iter(train_labels), '없음')}",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy="관련 있는 쌍(1)과 없는 쌍(0)이 모두 있어야 합니다. 오답 문서가 있는 데이터를 쓰세요.",
            )
        found = options.model_copy(update={"format": shape, "loss": loss})
        return self.settings.model_copy(update={"reranker": found})

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring a row into a pair or a list; see `RowReader.prepare`."""
        made = {"question": only_text(row["question"], "질문")}
        if "positives" in row:
            return {**made, **self._within(self._chosen(row))}
        if "passages" in row:
            passages = texts_in(row["passages"])
            if not passages:
                raise BadRow("문서가 없는 행")
            if "label" not in row:
                return {**made, "passages": passages}
            labels = [self._score(cell) for cell in _cells_in(row["label"])]
            if len(labels) != len(passages):
                raise BadRow(f"문서는 {len(passages)}개인데 라벨은 {len(labels)}개인 행")
            return {**made, **self._within({"passages": passages, "labels": labels})}
        made["context"] = only_text(row["context"], "문서")
        return {**made, "label": as_text(self._score(row["label"]))} if "label" in row else made

    def _chosen(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the list of a row's good and bad passages. A bad one that is a good one, too, is left out."""
        good = texts_in(row["positives"])
        bad = [text for role, cell in row.items() if role.startswith("negatives_") for text in texts_in(cell)]
        if not good:
            raise BadRow("정답 문서가 없는 행")
        kept = [place for place, text in enumerate(bad) if text not in good and text not in bad[:place]]
        passages = [*good, *(bad[place] for place in kept)]
        found: dict[str, Any] = {"passages": passages, "labels": [1.0] * len(good) + [0.0] * len(kept)}
        if "positive_scores" in row:
            first, second = ([_number(cell) for cell in _cells_in(row[role])] for role in _TEACHER)
            if (len(first), len(second)) != (len(good), len(bad)):
                raise BadRow("교사 점수와 문서의 수가 다른 행")
            found["teacher"] = [*first, *(second[place] for place in kept)]
        return found

    def _within(self, row: dict[str, Any]) -> dict[str, Any]:
        """Cut a list to `reranker.max_passages`: the first, at most half good unless bad ones lack."""
        most, labels = self.settings.reranker.max_passages, row["labels"]
        if most is None or len(labels) <= most:
            return row
        good, bad = (
            [place for place, label in enumerate(labels) if (label > 0) == is_good] for is_good in (True, False)
        )
        taken = good[: max(most // 2, most - len(bad))]
        kept = sorted([*taken, *bad[: most - len(taken)]])
        return {role: [cells[place] for place in kept] for role, cells in row.items()}

    def complete(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Check that a list has a passage that is relevant and one that is not; see `RowReader.complete`."""
        labels = row.get("labels")
        if labels is not None and self.loss not in ("bce", "mse"):
            if not any(label > 0 for label in labels):
                raise BadRow("정답 문서가 없는 행")
            if not any(label <= 0 for label in labels):
                raise BadRow("오답 문서가 없는 행")
        return row, ""

    def _score(self, cell: Any) -> float:
        known = float(cell) if isinstance(cell, bool) else _RELEVANT.get(str(cell).strip().casefold())
        score = _number(cell) if known is None else known
        if self.loss == "bce" and not 0 <= score <= 1:
            raise BadRow("bce로 학습할 수 없는, 0과 1 사이가 아닌 점수", found=as_text(cell)[:_SHOWN])
        return score


def _cells_in(cell: Any) -> list[Any]:
    """Return the values of a cell that is a list, also one that is written as text; any other cell is one value."""
    if isinstance(cell, str) and cell.lstrip()[:1] == "[":
        with suppress(ValueError):
            cell = written_value(cell)
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def _number(cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError) as error:
        raise BadRow("0, 1이나 숫자인 점수가 아닌 라벨", found=as_text(cell)[:_SHOWN]) from error
    if not math.isfinite(value):
        raise BadRow("0, 1이나 숫자인 점수가 아닌 라벨", found=as_text(cell)[:_SHOWN])
    return value
