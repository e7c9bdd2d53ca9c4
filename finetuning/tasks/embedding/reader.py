"""Reading texts that belong together: questions with passages, hard negatives, and pairs of texts with a score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from exceptions import BadRow, DataError
from finetuning.cells import as_text, written_value
from finetuning.korean.column_names import LABELS, PASSAGES, QUERIES, TEXTS, pair_in
from finetuning.tasks.embedding.judged import judged_pairs
from finetuning.tasks.embedding.losses import LOSSES
from finetuning.tasks.embedding.nli import SCORES, inferences, triplets
from finetuning.tasks.parts import Gathered, RowReader
from finetuning.tasks.passages import NEGATIVES, only_text, texts_in
from finetuning.types import Column


class EmbeddingReader(RowReader):
    """Reads a question and its passages, with hard negatives; under losses of scores two texts and their score.

    A row becomes `question`, `context` (its passage), `positives` (further passages), `negatives` and `label` (the
    score), as far as its source has them. All rows of one passage stay on one side when data are held out.
    """

    grouped_by = "context"
    instead = MappingProxyType({"text_column": "question_column", "text_pair_column": "context_column"})

    @property
    def takes_scores(self) -> bool:
        """Whether the loss takes pairs of texts with a score."""
        return LOSSES[self.settings.embedding.loss].takes_scores

    def gathered(self, columns: Sequence[str], cells: Iterable[Mapping[str, Any]], where: str) -> Gathered | None:
        """Gather judged passages by their question, hypotheses of NLI by their premise; see `RowReader.gathered`."""
        if not self.takes_scores and all(column.is_default() for column in self._texts(())):
            found = judged_pairs(columns, cells)
            if found is not None:
                return found
        pairs = inferences(columns, cells, where, self.settings.embedding.highest_score)
        if pairs is None or not self.takes_scores:
            return None if pairs is None else triplets(pairs)
        return (tuple(columns), pairs, pairs.note()) if pairs.numbers else None

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the two texts, and the scores or the hard negatives; see `RowReader.columns`.

        Either text may be missing where texts are embedded: it is then a target.
        """
        texts = self._texts(available)
        if self.takes_scores:
            return (*texts, self.column("label", "label_column", LABELS, target=True))
        self._check_has_no_scores(available)
        others = {column.name for column in texts}
        negatives = [
            self.found_column(f"negatives_{number}", "negative_column", name, target=True, optional=True)
            for number, name in enumerate(available)
            if name not in others and (name == self.settings.data.negative_column or NEGATIVES.fullmatch(name))
        ]
        if "answers" in available:  # KLUE-MRC has questions that their passage does not answer
            negatives.append(self.found_column("answers", "answers_column", "answers", target=True, optional=True))
        return (*texts, *negatives)

    def _texts(self, available: Sequence[str]) -> tuple[Column, ...]:
        question = self._text("question", "question_column", QUERIES, available)
        passage = self._text("context", "context_column", PASSAGES, available)
        has_question, has_passage = (_is_there(column, available) for column in (question, passage))
        pair = pair_in(available)
        if pair is not None and not (has_question and has_passage):
            first, second = (name.casefold() for name in pair)
            return (
                dataclasses.replace(question, usual=(first,)), dataclasses.replace(passage, usual=(second,)),
            )  # fmt: skip
        if has_question and has_passage:
            return question, passage
        if available and not has_question:
            alone = self._text("context", "context_column", (*PASSAGES, *TEXTS), available)
            return dataclasses.replace(question, target=True), alone
        return question, dataclasses.replace(passage, target=True)

    def _text(self, role: str, setting: str, usual: Sequence[str], available: Sequence[str]) -> Column:
        """Return the column of a text; by its usual names the first of them that the source has."""
        column, spelled = self.column(role, setting, tuple(usual)), {name.casefold() for name in available}
        found = next((name for name in usual if name in spelled), None)
        return column if found is None else dataclasses.replace(column, usual=(found,))

    def _check_has_no_scores(self, available: Sequence[str]) -> None:
        pair = pair_in(available)
        label = next((name for name in available if name.casefold() in LABELS), None)
        if pair is not None and label is not None:
            raise DataError(
                f"질문과 정답 문서가 아니라, 점수나 라벨이 있는 문장 쌍입니다('{label}' 열).",
                where=f"embedding.loss: {self.settings.embedding.loss}, 열: {', '.join(available[:10])}",
                remedy="--set embedding.loss=cosent로 학습하세요. 점수는 클수록 비슷한 값이어야 합니다.",
            )

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring a row into its texts; see `RowReader.prepare`."""
        made: dict[str, Any] = {}
        if "question" in row:
            made["question"] = only_text(row["question"], "질문")
        if "context" in row:
            found = texts_in(row["context"])
            if not found:
                raise BadRow("정답 문서가 없는 행")
            made["context"] = found[0]
            if not self.takes_scores:
                made["positives"] = found[1:]
        if self.takes_scores:
            return {**made, "label": _score(row["label"])} if "label" in row else made
        if "answers" in row and _has_no_answer(row["answers"]):
            raise BadRow("지문에 답이 없는 질문", is_fault=False)
        passages = [made.get("context"), *made.get("positives", [])]
        others = [text for role, cell in row.items() if role.startswith("negatives_") for text in texts_in(cell)]
        return {**made, "negatives": [text for text in dict.fromkeys(others) if text not in passages]}


def _is_there(column: Column, available: Sequence[str]) -> bool:
    return column.name in available or (
        column.is_default() and any(name.casefold() in column.usual for name in available)
    )


def _score(cell: Any) -> str:
    """Return a score as text; the labels of NLI are 1, 0.5 and 0."""
    known = SCORES.get(str(cell).strip().casefold())
    if known is not None:
        return as_text(known)
    try:
        value = float(cell)
    except (TypeError, ValueError) as error:
        raise BadRow("점수가 숫자가 아닌 쌍") from error
    if not math.isfinite(value) or isinstance(cell, bool):
        raise BadRow("점수가 숫자가 아닌 쌍")
    return as_text(value)


def _has_no_answer(cell: Any) -> bool:
    """Return whether the answers of a question about a passage are none."""
    if isinstance(cell, str):
        with suppress(ValueError):
            cell = written_value(cell)
    if isinstance(cell, Mapping):  # the shape of the Hub: lists of texts and of places
        cell = cell.get("text", ())
    return isinstance(cell, list | tuple) and not cell
