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
from finetuning.tasks.base import Batch, Column, RandomKey, Task, at_least_float32, pad

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from tokenizers import Encoding
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_QUESTION_SHARE = 4  # a question may take a quarter of a window: the rest is the context's
_CONTEXT, _NULL = 1, 2  # in a batch's scope: where an answer may be, and the position that says there is none
_SURE = 1e6  # the margin of a row that has no span at all, kept finite
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
    """What evaluation keeps of a window: its likeliest span, as first and last token (first > last: it has none).

    score, null: the log-probabilities of that span and of there being no answer in the window.
    """

    score: float
    null: float
    first: int
    last: int


@dataclass(frozen=True)
class Found:
    """The likeliest answer to a row's question, at text[start:end] of its context, and its log-probability.

    null: the log-probability of there being none, in the window that believes in it least.
    """

    text: str
    start: int
    end: int
    score: float
    null: float


class QuestionAnswering(Task):
    """Cross-entropy of an answer's first and last token in each window of a long context.

    A window without the answer has the first token ([CLS]) as its answer; so has a question without one. Windows
    compete by log-probability, so one that holds no answer does not win by the scale of its logits.
    """

    name = "question-answering"
    aliases = ("extractive-qa", "qa", "mrc", "machine-reading-comprehension", "squad", "질의응답", "기계독해")
    auto_class = "AutoModelForQuestionAnswering"
    pipeline = None
    best_metric = "f1"
    greater_is_better = True
    grouped_by = "context"
    counts_characters = True
    usage = _USAGE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threshold: float | None = None

    # --- rows ---

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        data = self.settings.data
        found = [
            Column("question", "question_column", data.question_column, QUESTIONS),
            Column("context", "context_column", data.context_column, CONTEXTS),
            Column("answers", "answers_column", data.answers_column, ANSWERS, target=True),
        ]
        if "is_impossible" in available:
            found.append(Column("is_impossible", "answers_column", "is_impossible", target=True, optional=True))
        identity = next((name for name in ("id", "guid") if name in available), None)
        if identity is not None:  # not for the model: predictions are told apart by it
            found.insert(0, Column("id", "question_column", identity, optional=True))
        return tuple(found)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        found = {"question": row["question"], "context": row["context"]}
        if "answers" in row:
            has_none = is_true(row.get("is_impossible"))  # such a row may have plausible answers, which are none
            found["answers"] = [] if has_none else gold_answers(row["answers"], as_text(row["context"]))
        return found

    # --- the tokenizer and the model ---

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keeps a token from holding the end of an answer and the particle (조사) after it.

        On KorQuAD with a multilingual vocabulary the gold answers' own tokens come to 88 EM without it, 99 with it.
        """
        cut_into_pieces(tokenizer, self.name)

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 2}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.threshold = getattr(model.config, "null_threshold", None)

    def tune(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> dict[str, Any]:
        """How much likelier than an answer "there is none" must be to be said: by the highest F1, as SQuAD 2.0 does.

        None where every question has an answer: then it is never said.
        """
        answers = _texts(rows["answers"])
        if all(answers):
            return {"null_threshold": None}
        margins = np.minimum([outcome.null - outcome.score for outcome in outcomes], _SURE)
        gains = [
            answer_metrics.f1("", gold) - answer_metrics.f1(outcome.text, gold)
            for outcome, gold in zip(outcomes, answers, strict=True)
        ]
        order = np.argsort(-margins, kind="stable")
        sums, edges = np.concatenate([[0.0], np.cumsum(np.array(gains)[order])]), margins[order]
        # k rows say "none" at a threshold between the k-th margin and the next; equal margins cannot be told apart
        bounds = np.concatenate([[edges[0] + 1], (edges[:-1] + edges[1:]) / 2, [edges[-1] - 1]])
        divides = np.concatenate([[True], edges[:-1] > edges[1:], [True]])
        return {"null_threshold": float(bounds[np.where(divides, sums, -math.inf).argmax()])}

    # --- examples ---

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
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
        import torch

        inputs, tokens = pad(examples, tokenizer)
        scope = torch.zeros_like(inputs["input_ids"])
        for position, example in enumerate(examples):
            scope[position, example["context"][0] : example["context"][1]] = _CONTEXT
            scope[position, example["null"]] = _NULL
        labels = torch.tensor([example["answer"] for example in examples]) if "answer" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens, scope=scope)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        first, last = example["answer"]
        is_here = first != example["null"]
        answer = tokenizer.decode(example["input_ids"][first : last + 1]) if is_here else "이 조각에는 없음"
        return f"{super().describe(example, tokenizer)}\n정답: {answer}"

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """(rows, tokens, 2): the logits of being an answer's first and last token, where one may be."""
        import torch

        assert batch.scope is not None
        output = model(**batch.inputs)
        logits = torch.stack([output.start_logits, output.end_logits], -1)
        return logits.masked_fill((batch.scope == 0).unsqueeze(-1), torch.finfo(logits.dtype).min)

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Each window's mean over first and last token, summed over windows, as transformers' own loss has it."""
        import torch

        assert batch.labels is not None
        logits = at_least_float32(logits)
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / 2

    # --- predictions ---

    def outcomes(self, logits: torch.Tensor, batch: Batch) -> list[Any]:
        """Each window's likeliest span of at most max_answer_length tokens."""
        import torch

        assert batch.scope is not None
        logs = at_least_float32(logits).log_softmax(1)
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

    def gather(self, outcomes: Sequence[Any], examples: Dataset, rows: Dataset) -> list[Any]:
        best: dict[int, int] = {}
        nulls: dict[int, float] = {}
        for position, (number, window) in enumerate(zip(examples["row"], outcomes, strict=True)):
            nulls[number] = min(window.null, nulls.get(number, math.inf))
            if number not in best or window.score > outcomes[best[number]].score:
                best[number] = position
        places = examples.select_columns(["context", "offsets"])
        return [
            replace(_found(outcomes[best[number]], places[best[number]], context), null=nulls[number])
            for number, context in zip(rows["row"], rows["context"], strict=True)
        ]

    def _says_none(self, outcome: Found) -> bool:
        return not outcome.text or (self.threshold is not None and outcome.null - outcome.score > self.threshold)

    def _text(self, outcome: Found) -> str:
        return "" if self._says_none(outcome) else outcome.text

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        pairs = [(self._text(outcome), gold) for outcome, gold in zip(outcomes, _texts(rows["answers"]), strict=True)]
        scores = (
            answer_metrics.exact_match, answer_metrics.f1, answer_metrics.rouge_w, answer_metrics.klue_exact_match,
        )  # fmt: skip
        found = {score.__name__: 100 * float(np.mean([score(*pair) for pair in pairs])) for score in scores}
        return {"loss": loss, **found} | ({} if self.threshold is None else {"null_threshold": self.threshold})

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        """EM and F1 of questions with and without an answer apart, where there are both."""
        kinds: dict[str, list[tuple[str, list[str]]]] = {"답이 있는": [], "답이 없는": []}
        for outcome, gold in zip(outcomes, _texts(rows["answers"]), strict=True):
            kinds["답이 있는" if gold else "답이 없는"].append((self._text(outcome), gold))
        if not all(kinds.values()):
            return []
        return [
            f"{kind} 질문 {len(pairs):,}개: "
            f"EM {100 * np.mean([answer_metrics.exact_match(*pair) for pair in pairs]):.2f}, "
            f"F1 {100 * np.mean([answer_metrics.f1(*pair) for pair in pairs]):.2f}"
            for kind, pairs in kinds.items()
        ]

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        if "answers" not in row:
            return row["question"], ""
        (answers,) = _texts([row["answers"]])
        return row["question"], " 또는 ".join(dict.fromkeys(answers)) or _NONE

    def told(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        made = self.readable(outcome, row, label_names, tokenizer)
        return [made["answer"] or _NONE, made["score"]]

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """The answer, its probability in its window, and where it is in the context; no answer has no place."""
        if self._says_none(outcome):
            return {"answer": "", "score": math.exp(outcome.null), "start": None, "end": None}
        return {
            "answer": outcome.text,
            "score": math.exp(outcome.score),
            "start": outcome.start,
            "end": outcome.end,
        }


def _texts(cells: Sequence[str]) -> list[list[str]]:
    """The gold answers of each row."""
    return [[answer["text"] for answer in json.loads(cell)] for cell in cells]


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[list[str], list[bool]]:
    """Questions of at most so many tokens, and which had more."""
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
    """The first of a window's context tokens, and where each of them is in the context."""
    places = [position for position, part in enumerate(encoding.sequence_ids) if part == 1]
    return (places[0], encoding.offsets[places[0] : places[-1] + 1]) if places else (0, [])


def _span(answers: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Where the first answer's text begins and ends in the context, the white space around it left out."""
    if not answers:
        return None
    text, start = answers[0]["text"], answers[0]["answer_start"]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _tokens_of(span: tuple[int, int] | None, first: int, offsets: np.ndarray, null: int) -> list[int]:
    """The first and last token that hold a span; the null position twice where a window does not hold all of it."""
    if span is None or not len(offsets) or offsets.min() > span[0] or offsets.max() < span[1]:
        return [null, null]
    inside = np.flatnonzero((offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1]))
    return [first + int(inside[0]), first + int(inside[-1])] if len(inside) else [null, null]


def _found(window: Window, places: Mapping[str, Any], context: str) -> Found:
    """A window's span as text: some tokenizers count the space before a word as part of it."""
    if window.first > window.last:
        return Found("", 0, 0, window.score, window.null)
    skipped, offsets = places["context"][0], places["offsets"]
    start, end = offsets[2 * (window.first - skipped)], offsets[2 * (window.last - skipped) + 1]
    raw = context[start:end]
    start += len(raw) - len(raw.lstrip())
    return Found(raw.strip(), start, start + len(raw.strip()), window.score, window.null)
