"""Extractive question answering: the span of a context that answers a question, or that there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.cells import as_text
from finetuning.config.schema import Settings
from finetuning.korean.column_names import ANSWERS, CONTEXTS, QUESTIONS
from finetuning.korean.word_cuts import cut_into_pieces
from finetuning.tasks.answering import metrics as answer_metrics
from finetuning.tasks.answering.answers import gold_answers, is_true
from finetuning.tasks.base import Task
from finetuning.tasks.parts import Presenter, RowEncoder, RowReader, Scorer
from finetuning.tasks.tensors import at_least_float32, pad
from finetuning.types import Batch, Column, RandomKey

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from tokenizers import Encoding
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_QUESTION_SHARE = 4  # a question may take a quarter of a window, the context has the rest
_CONTEXT, _NULL = 1, 2  # marks in a batch's scope: where an answer may be, and the position for "no answer"
_SURE = 1e6  # margin of a row without any span, instead of infinity
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
    """

    text: str
    start: int
    end: int
    score: float
    null: float


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
        self.settings = settings
        self.reads = QuestionReader(settings)
        self.encodes = QuestionEncoder(settings)
        self.scores = AnswerScorer(settings)
        self.shows = AnswerPresenter(self.scores)


class QuestionReader(RowReader):
    """Reads a question, a context, and the answers in it."""

    grouped_by = "context"
    counts_characters = True

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


class QuestionEncoder(RowEncoder):
    """Encodes a question with each window of its context."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Make the tokenizer divide the end of an answer from the particle (조사) after it.

        On KorQuAD with a multilingual vocabulary the tokens of the gold answers reach 88 EM without it, 99 with it.
        """
        cut_into_pieces(tokenizer, QuestionAnswering.name)

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        """Encode questions and contexts; see `RowEncoder.encode`.

        Columns besides the usual ones: `null`, the position that stands for no answer; `context`, its first token and
        the one after its last; `offsets`, start and end of each of these tokens in characters of the context, flat;
        `answer`, first and last token of the answer.
        """
        room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        for_question = max(1, room // _QUESTION_SHARE)
        questions, is_cut = _cut(rows["question"], tokenizer, for_question)
        encoded = tokenizer(
            questions, list(rows["context"]), truncation="only_second", max_length=max_length,
            stride=min(self.settings.question_answering.doc_stride, (room - for_question) // 2),
            return_overflowing_tokens=True,
        )  # fmt: skip
        owners = encoded["overflow_to_sample_mapping"]
        columns: dict[str, list[Any]] = {
            "row": [rows["row"][owner] for owner in owners],
            "input_ids": encoded["input_ids"],
            "truncated": [is_cut[owner] for owner in owners],
        }
        if "token_type_ids" in encoded:
            columns["token_type_ids"] = encoded["token_type_ids"]
        nulls = [_null_position(ids, tokenizer) for ids in encoded["input_ids"]]
        columns |= {"null": nulls, "context": [], "offsets": []}
        for encoding in encoded.encodings:
            first, offsets = _context_of(encoding)
            columns["context"].append([first, first + len(offsets)])
            columns["offsets"].append([place for offset in offsets for place in offset])
        if "answers" in rows:
            spans = [_span(json.loads(cell)) for cell in rows["answers"]]
            columns["answer"] = [
                _tokens_of(spans[owner], first, np.array(offsets).reshape(-1, 2), null)
                for owner, (first, _), offsets, null in zip(
                    owners, columns["context"], columns["offsets"], nulls, strict=True
                )
            ]
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples; see `RowEncoder.collate`. labels: (windows, 2) int64, the answer's first and last token."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        scope = torch.zeros_like(inputs["input_ids"])
        for position, example in enumerate(examples):
            scope[position, example["context"][0] : example["context"][1]] = _CONTEXT
            scope[position, example["null"]] = _NULL
        labels = torch.tensor([example["answer"] for example in examples]) if "answer" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens, scope=scope)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the window's text and, on a line of its own, the answer."""
        first, last = example["answer"]
        is_here = first != example["null"]
        answer = tokenizer.decode(example["input_ids"][first : last + 1]) if is_here else "이 조각에는 없음"
        return f"{super().describe(example, tokenizer)}\n정답: {answer}"


class AnswerScorer(Scorer):
    """Cross-entropy of an answer's first and last token. The best model is the one of highest character F1.

    Windows of one context compete by log-probability, so a window does not win by the scale of its logits.

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

    def calibrate(
        self, predictions: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> dict[str, Any]:
        """Return the threshold for "no answer" of highest F1, as SQuAD 2.0's script does; see `Scorer.calibrate`.

        It is None if every question has an answer.
        """
        answers = _texts(rows["answers"])
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
        null = logs.masked_fill((batch.scope != _NULL).unsqueeze(-1), -math.inf).amax(1).sum(-1)
        starts, ends = logs.masked_fill((batch.scope != _CONTEXT).unsqueeze(-1), -math.inf).unbind(-1)
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

    def gather(self, predictions: Sequence[Any], examples: Dataset, rows: Dataset) -> list[Any]:
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
        return bool(prediction.text) and (self.threshold is None or margin <= self.threshold)

    def answer(self, prediction: Found) -> str:
        """Return the predicted answer, "" if there is none."""
        return prediction.text if self.has_answer(prediction) else ""

    def metrics(
        self, predictions: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute KorQuAD's EM and character F1, and KLUE-MRC's EM and ROUGE-W, 0 to 100 each."""
        pairs = [
            (self.answer(prediction), gold)
            for prediction, gold in zip(predictions, _texts(rows["answers"]), strict=True)
        ]
        scores = (
            answer_metrics.exact_match, answer_metrics.f1, answer_metrics.rouge_w, answer_metrics.klue_exact_match,
        )  # fmt: skip
        found = {score.__name__: 100 * float(np.mean([score(*pair) for pair in pairs])) for score in scores}
        return {"loss": loss, **found} | ({} if self.threshold is None else {"null_threshold": self.threshold})


class AnswerPresenter(Presenter):
    """Shows the answer at the scorer's threshold, and scores of questions with and without an answer."""

    def __init__(self, scorer: AnswerScorer) -> None:
        self.scorer = scorer

    def details(
        self, predictions: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        """Return EM and F1 of questions with and without an answer, if the split has both."""
        kinds: dict[str, list[tuple[str, list[str]]]] = {"답이 있는": [], "답이 없는": []}
        for prediction, gold in zip(predictions, _texts(rows["answers"]), strict=True):
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
        (answers,) = _texts([row["answers"]])
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


def _texts(cells: Sequence[str]) -> list[list[str]]:
    """Return the texts of each row's gold answers."""
    return [[answer["text"] for answer in json.loads(cell)] for cell in cells]


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[list[str], list[bool]]:
    """Return questions cut to `most` tokens, and which of them were cut."""
    encoded = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)
    is_cut = [len(offsets) > most for offsets in encoded["offset_mapping"]]
    kept = [
        question[: offsets[most - 1][1]] if longer else question
        for question, offsets, longer in zip(questions, encoded["offset_mapping"], is_cut, strict=True)
    ]
    return kept, is_cut


def _null_position(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    return ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0


def _context_of(encoding: Encoding) -> tuple[int, list[tuple[int, int]]]:
    """Return the first context token of a window, and (start, end) of each of these tokens in the context."""
    places = [position for position, part in enumerate(encoding.sequence_ids) if part == 1]
    return (places[0], encoding.offsets[places[0] : places[-1] + 1]) if places else (0, [])


def _span(answers: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Return (start, end) of the first answer in the context, without surrounding white space."""
    if not answers:
        return None
    text, start = answers[0]["text"], answers[0]["answer_start"]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _tokens_of(span: tuple[int, int] | None, first: int, offsets: np.ndarray, null: int) -> list[int]:
    """Return the first and last token of a span, or the null position twice if the window lacks a part of it."""
    if span is None or not len(offsets) or offsets.min() > span[0] or offsets.max() < span[1]:
        return [null, null]
    inside = np.flatnonzero((offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1]))
    return [first + int(inside[0]), first + int(inside[-1])] if len(inside) else [null, null]


def _found(window: Window, places: Mapping[str, Any], context: str) -> Found:
    """Return a window's span as text, without the space that some tokenizers count to the word after it."""
    if window.first > window.last:
        return Found("", 0, 0, window.score, window.null)
    skipped, offsets = places["context"][0], places["offsets"]
    start, end = offsets[2 * (window.first - skipped)], offsets[2 * (window.last - skipped) + 1]
    raw = context[start:end]
    start += len(raw) - len(raw.lstrip())
    return Found(raw.strip(), start, start + len(raw.strip()), window.score, window.null)
