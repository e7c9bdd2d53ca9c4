"""Loss, likeliest answers and scores of extractive question answering."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.tasks.answering import metrics as answer_metrics
from finetuning.tasks.answering.answers import answer_texts
from finetuning.tasks.answering.encoding import IN_CONTEXT, NO_ANSWER
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SURE = 1e6  # margin of a row without any span, instead of infinity


@dataclass(frozen=True)
class Window:
    """The likeliest span in a window of a context.

    Attributes:
        score: Log-probability of the span.
        null: Log-probability of there being no answer in the window.
        first: First token of the span.
        last: Last token of the span. It is before `first` if the window has no span.
    """

    score: float
    null: float
    first: int
    last: int


@dataclass(frozen=True)
class Found:
    """The likeliest answer to a row's question.

    Attributes:
        text: The answer, context[start:end].
        start: First character of the answer in the context.
        end: Character after its last one.
        score: Log-probability of the answer in its window.
        null: Lowest log-probability of no answer among the row's windows.
        threshold: The scorer's threshold for this row; None for that of all rows.
    """

    text: str
    start: int
    end: int
    score: float
    null: float
    threshold: float | None = None


class AnswerScorer(Scorer):
    """Cross-entropy of an answer's first and last token. The best model is the one of highest character F1.

    Windows of one context compete by log-probability, so a window does not win by the scale of its logits.

    Args:
        settings: Settings of the run.

    Attributes:
        threshold: How much likelier than an answer "no answer" must be to be predicted. None: it never is.
    """

    best_metric = "f1"
    greater_is_better = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threshold: float | None = None

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the number of outputs: one for first and one for last tokens."""
        return {"num_labels": 2}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read the threshold from the model's config."""
        self.threshold = getattr(model.config, "null_threshold", None)

    def calibrate(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the threshold for "no answer" of highest F1, as SQuAD 2.0's script does; see `Scorer.calibrate`.

        It is None if every question has an answer.
        """
        answers = answer_texts(rows["answers"])
        if all(answers):
            return {"null_threshold": None}
        margins = np.minimum([prediction.null - prediction.score for prediction in predictions], _SURE)
        gains = [
            answer_metrics.f1("", gold) - answer_metrics.f1(prediction.text, gold)
            for prediction, gold in zip(predictions, answers, strict=True)
        ]
        order = np.argsort(-margins, kind="stable")
        sums, edges = np.concatenate([[0.0], np.cumsum(np.array(gains)[order])]), margins[order]
        # a threshold between the k-th margin and the next predicts "no answer" for k rows, if these margins differ
        bounds = np.concatenate([[edges[0] + 1], (edges[:-1] + edges[1:]) / 2, [edges[-1] - 1]])
        divides = np.concatenate([[True], edges[:-1] > edges[1:], [True]])
        return {"null_threshold": float(bounds[np.where(divides, sums, -math.inf).argmax()])}

    def cross_calibrated(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Sequence[Any]:
        """Return the answers, those of half of the contexts at the threshold of the other half; see `Scorer`."""
        places = {context: place for place, context in enumerate(dict.fromkeys(rows["context"]))}
        halves = np.array([places[context] % 2 for context in rows["context"]])
        found = list(predictions)
        for half in (0, 1) if len(places) > 1 else ():
            others = np.flatnonzero(halves != half).tolist()
            answers = {"answers": [rows["answers"][place] for place in others]}
            chosen = self.calibrate([predictions[place] for place in others], answers, label_names)["null_threshold"]
            for place in np.flatnonzero(halves == half).tolist():
                found[place] = replace(found[place], threshold=math.inf if chosen is None else chosen)
        return found

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the logits of being an answer's first and last token, (windows, tokens, 2).

        Positions outside the context, and other than the one for no answer, have the lowest number of the dtype.
        """
        import torch

        assert batch.scope is not None
        output = model(**batch.inputs)
        logits = torch.stack([output.start_logits, output.end_logits], -1)
        return logits.masked_fill((batch.scope == 0).unsqueeze(-1), torch.finfo(logits.dtype).min)

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return each window's mean over first and last token, summed over windows, as in transformers' own loss."""
        import torch

        assert batch.labels is not None
        logits = at_least_float32(outputs)
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / 2

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each window's likeliest span of at most max_answer_length tokens."""
        import torch

        assert batch.scope is not None
        logs = at_least_float32(outputs).log_softmax(1)
        null = logs.masked_fill((batch.scope != NO_ANSWER).unsqueeze(-1), -math.inf).amax(1).sum(-1)
        starts, ends = logs.masked_fill((batch.scope != IN_CONTEXT).unsqueeze(-1), -math.inf).unbind(-1)
        width = starts.shape[1]
        best = torch.full_like(null, -math.inf)
        first, extra = torch.zeros_like(null, dtype=torch.long), torch.full_like(null, -1, dtype=torch.long)
        for length in range(min(self.settings.question_answering.max_answer_length, width)):
            scores, places = (starts[:, : width - length] + ends[:, length:]).max(1)
            is_better = scores > best
            best = torch.where(is_better, scores, best)
            first = torch.where(is_better, places, first)
            extra = extra.masked_fill(is_better, length)
        columns = (best.tolist(), null.tolist(), first.tolist(), (first + extra).tolist())
        return [Window(*values) for values in zip(*columns, strict=True)]

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Return the likeliest answer of each row's windows; see `Scorer.gather`."""
        best: dict[int, int] = {}
        nulls: dict[int, float] = {}
        for position, (number, window) in enumerate(zip(examples["row"], predictions, strict=True)):
            nulls[number] = min(window.null, nulls.get(number, math.inf))
            if number not in best or window.score > predictions[best[number]].score:
                best[number] = position
        places = examples.select_columns(["context", "offsets"])
        return [
            replace(_found(predictions[best[number]], places[best[number]], context), null=nulls[number])
            for number, context in zip(rows["row"], rows["context"], strict=True)
        ]

    def has_answer(self, prediction: Found) -> bool:
        """Return whether an answer is predicted, at the threshold."""
        margin = prediction.null - prediction.score
        threshold = self.threshold if prediction.threshold is None else prediction.threshold
        return bool(prediction.text) and (threshold is None or margin <= threshold)

    def answer(self, prediction: Found) -> str:
        """Return the predicted answer, "" if there is none."""
        return prediction.text if self.has_answer(prediction) else ""

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the score of a model that finds no answer; see `Scorer.baseline`."""
        return Naive("답이 하나도 없다고만 예측하면", [Found("", 0, 0, 0.0, 0.0)] * count)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the mean F1 of drawn rows, 0 to 100; see `Scorer.drawn_score`."""
        pairs = zip(predictions, answer_texts(rows["answers"]), strict=True)
        each = np.array([100 * answer_metrics.f1(self.answer(prediction), gold) for prediction, gold in pairs])
        return lambda places: float(each[places].mean())

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute KorQuAD's EM and character F1, and KLUE-MRC's EM and ROUGE-W, 0 to 100 each."""
        pairs = [
            (self.answer(prediction), gold)
            for prediction, gold in zip(predictions, answer_texts(rows["answers"]), strict=True)
        ]
        scores = (
            answer_metrics.exact_match, answer_metrics.f1, answer_metrics.rouge_w, answer_metrics.klue_exact_match,
        )  # fmt: skip
        found = {score.__name__: 100 * float(np.mean([score(*pair) for pair in pairs])) for score in scores}
        return {"loss": loss, **found} | ({} if self.threshold is None else {"null_threshold": self.threshold})


def _found(window: Window, places: Mapping[str, Any], context: str) -> Found:
    """Return a window's span as text, without the space that some tokenizers count to the word after it."""
    if window.first > window.last:
        return Found("", 0, 0, window.score, window.null)
    skipped, offsets = places["context"][0], places["offsets"]
    start, end = offsets[2 * (window.first - skipped)], offsets[2 * (window.last - skipped) + 1]
    raw = context[start:end]
    start += len(raw) - len(raw.lstrip())
    return Found(raw.strip(), start, start + len(raw.strip()), window.score, window.null)
