"""Questions with windows of their contexts as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.korean.word_cuts import cut_words
from finetuning.tasks.parts import RowColumns, RowEncoder
from finetuning.tasks.tensors import pad
from finetuning.tasks.text_encoding import check_is_fast, read_beginning
from finetuning.types import Batch, RandomKey

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

IN_CONTEXT, NO_ANSWER = 1, 2  # marks in a batch's scope: where an answer may be, and the position for "no answer"
_QUESTION_SHARE = 4  # a question may take a quarter of a window, the context has the rest


class QuestionEncoder(RowEncoder):
    """Encodes a question with each window of its context."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Make the tokenizer divide the end of an answer from the particle (조사) after it, unless settings say not to.

        On KorQuAD with a multilingual vocabulary the tokens of the gold answers reach 88 EM without it, 99 with it.
        A trained model gains EM and loses some F1 (docs/tasks.en.md).
        """
        check_is_fast(tokenizer, "question-answering")
        if self.settings.question_answering.cut_particles:
            cut_words(tokenizer)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
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
            scope[position, example["context"][0] : example["context"][1]] = IN_CONTEXT
            scope[position, example["null"]] = NO_ANSWER
        labels = torch.tensor([example["answer"] for example in examples]) if "answer" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens, scope=scope)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the window's text and, on a line of its own, the answer."""
        first, last = example["answer"]
        is_here = first != example["null"]
        answer = tokenizer.decode(example["input_ids"][first : last + 1]) if is_here else "이 구간에는 없음"
        return f"{super().describe(example, tokenizer)}\n정답: {answer}"


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[list[str], list[bool]]:
    """Return questions cut to `most` tokens, and which of them were cut."""
    questions = [read_beginning(tokenizer, question, most) for question in questions]
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
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
