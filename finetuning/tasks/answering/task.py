"""Extractive question answering: the span of a context that answers a question, or that there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.cells import as_text
from finetuning.config.schema import Settings
from finetuning.korean.column_names import ANSWERS, CONTEXTS, QUESTIONS
from finetuning.tasks.answering import metrics as answer_metrics
from finetuning.tasks.answering.answers import answer_texts, gold_answers, is_true
from finetuning.tasks.answering.encoding import QuestionEncoder
from finetuning.tasks.answering.scoring import AnswerScorer
from finetuning.tasks.base import Task
from finetuning.tasks.evidence import Case, Distribution, Evidence, Mark, Part, ranked_wrong
from finetuning.tasks.parts import RowColumns, RowReader
from finetuning.tasks.presenter import Presenter
from finetuning.types import Column

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NONE = "없음"
_USAGE = """
import torch

question, context = "누가 한글을 만들었나?", "한글은 세종대왕이 1443년에 만들었다."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt")
in_context = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
with torch.inference_mode():
    output = model(**inputs)
start = int(output.start_logits[0].where(in_context, -torch.inf).argmax())
end = start + int(output.end_logits[0].where(in_context, -torch.inf)[start:].argmax())
print(context[inputs.token_to_chars(start).start : inputs.token_to_chars(end).end])
"""


class QuestionAnswering(Task):
    """The span of a context that answers a question: cross-entropy of its first and last token.

    The answer of a window without it, and of a question without an answer, is the first token ([CLS]).
    """

    name = "question-answering"
    aliases = ("extractive-qa", "qa", "mrc", "machine-reading-comprehension", "squad", "질의응답", "기계독해")
    auto_class = "AutoModelForQuestionAnswering"
    pipeline = None
    usage = _USAGE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = QuestionReader(settings)
        self.encodes = QuestionEncoder(settings)
        self.scores = AnswerScorer(settings)
        self.shows = AnswerPresenter(self.scores)


class QuestionReader(RowReader):
    """Reads a question, a context, and the answers in it."""

    grouped_by = "context"
    counts_characters = True

    instead = MappingProxyType({"text_column": "context_column", "label_column": "answers_column"})

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return question, context and answers, and `is_impossible` and an id if the source has them."""
        found = [
            self.column("question", "question_column", QUESTIONS),
            self.column("context", "context_column", CONTEXTS),
            self.column("answers", "answers_column", ANSWERS, target=True),
        ]
        if "is_impossible" in available:
            found.append(
                self.found_column("is_impossible", "answers_column", "is_impossible", target=True, optional=True)
            )
        identity = next((name for name in ("id", "guid") if name in available), None)
        if identity is not None:  # only to tell predictions apart
            found.insert(0, self.found_column("id", "question_column", identity, optional=True))
        return tuple(found)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Place the answers in the context; see `RowReader.prepare`."""
        found = {"question": row["question"], "context": row["context"]}
        if "answers" in row:
            is_impossible = is_true(row.get("is_impossible"))  # answers of such a row are only plausible
            found["answers"] = [] if is_impossible else gold_answers(row["answers"], as_text(row["context"]))
        return found


class AnswerPresenter(Presenter):
    """Shows the answer at the scorer's threshold, and scores of questions with and without an answer."""

    def __init__(self, scorer: AnswerScorer) -> None:
        self.scorer = scorer

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return EM and F1 of questions with and without an answer, if the split has both."""
        kinds: dict[str, list[tuple[str, list[str]]]] = {"답이 있는": [], "답이 없는": []}
        for prediction, gold in zip(predictions, answer_texts(rows["answers"]), strict=True):
            kinds["답이 있는" if gold else "답이 없는"].append((self.scorer.answer(prediction), gold))
        if not all(kinds.values()):
            return []
        return [
            f"{kind} 질문 {len(pairs):,}개: "
            f"EM {100 * np.mean([answer_metrics.exact_match(*pair) for pair in pairs]):.2f}, "
            f"F1 {100 * np.mean([answer_metrics.f1(*pair) for pair in pairs]):.2f}"
            for kind, pairs in kinds.items()
        ]

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the question and its answers; see `Presenter.show`."""
        if "answers" not in row:
            return row["question"], ""
        (answers,) = answer_texts([row["answers"]])
        return row["question"], " 또는 ".join(dict.fromkeys(answers)) or _NONE

    def phrase(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        """Return the answer and its probability; see `Presenter.phrase`."""
        made = self.readable(prediction, row, label_names, tokenizer)
        return [made["answer"] or _NONE, made["score"]]

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the answer, its probability in its window, and its start and end in the context, if it has any."""
        if not self.scorer.has_answer(prediction):
            return {"answer": "", "score": math.exp(prediction.null), "start": None, "end": None}
        return {
            "answer": prediction.text,
            "score": math.exp(prediction.score),
            "start": prediction.start,
            "end": prediction.end,
        }

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return the answers' probabilities, and the rows of wrong answers; see `Presenter.evidence`."""
        golds = answer_texts(rows["answers"])
        sure = np.array([math.exp(one.score if self.scorer.has_answer(one) else one.null) for one in predictions])
        right = np.array(
            [
                answer_metrics.exact_match(self.scorer.answer(one), gold) > 0
                for one, gold in zip(predictions, golds, strict=True)
            ],
            dtype=bool,
        )
        groups = {"맞은 답": sure[right], "틀린 답": sure[~right]}
        return Evidence((Distribution("답의 확률", "확률", groups),), ranked_wrong("틀린 답", "확률", sure, ~right))

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the question, both answers, and both in their passage; see `Presenter.case`."""
        question, truth = self.show(row)
        golds = {(one["answer_start"], one["answer_start"] + len(one["text"])) for one in json.loads(row["answers"])}
        marks = [Mark(*place, "정답", "truth") for place in sorted(golds)]
        answer = self.scorer.answer(prediction)
        if answer:
            marks.append(Mark(prediction.start, prediction.end, "예측", "said"))
        return Case(
            (
                Part("질문", question),
                Part("정답", truth),
                Part("예측", answer or _NONE),
                Part("지문", row["context"], tuple(marks)),
            )
        )
