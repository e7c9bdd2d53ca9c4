"""Pairs of a query and a passage as sequences: an example owns its list, one sequence behind the other."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.tasks.parts import RowColumns, RowEncoder
from finetuning.tasks.reranker.losses import OF_LISTS
from finetuning.tasks.tensors import lists_of, pad, sequences_of
from finetuning.tasks.text_encoding import encode_text
from finetuning.types import OF_TOKENS, Batch, RandomKey

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PairEncoder(RowEncoder):
    """Encodes each passage with its query as the two texts of a cross-encoder.

    `sizes` has the length of each of an example's sequences, `labels` and `teacher` a number for each.
    """

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode pairs and lists; see `RowEncoder.encode`."""
        passages = passages_of(rows)
        queries = [query for query, own in zip(rows["question"], passages, strict=True) for _ in own]
        encoded = self.tokenized(queries, list(itertools.chain.from_iterable(passages)), tokenizer, max_length)
        columns: dict[str, list[Any]] = {name: [] for name in (*encoded, "sizes")}
        start = 0
        for own in passages:
            end = start + len(own)
            sizes = [len(ids) for ids in encoded["input_ids"][start:end]]
            is_whole = all(sizes)  # a passage of which the cut leaves nothing would be missing in its list
            columns["sizes"].append(sizes if is_whole else [])
            columns["truncated"].append(any(encoded["truncated"][start:end]))
            for name in OF_TOKENS:
                if name in encoded:
                    tokens = list(itertools.chain.from_iterable(encoded[name][start:end]))
                    columns[name].append(tokens if is_whole else [])
            start = end
        if "label" in rows:
            columns["labels"] = [[float(label)] for label in rows["label"]]
        for name in ("labels", "teacher"):
            if name in rows:
                columns[name] = [json.loads(cell) for cell in rows[name]]
        return columns

    def tokenized(
        self, queries: Sequence[str], passages: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize pairs.

        Args:
            queries: The query of each pair.
            passages: The passage of each pair.
            tokenizer: Tokenizer after `fit_tokenizer`.
            max_length: Most tokens of a pair.

        Returns:
            `input_ids`, `truncated` (bool), and what else the model takes of each token.
        """
        return encode_text(tokenizer, queries, passages, max_length)

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad the pairs of examples, one a row; see `RowEncoder.collate`."""
        inputs, tokens = pad(list(sequences_of(examples)), tokenizer)
        return self.listed(Batch(inputs, None, 0, tokens), examples)

    def listed(self, batch: Batch, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """Tell which pairs are of one list, their labels, and how many items the loss has."""
        import torch

        lists = lists_of(examples)
        if "labels" not in examples[0]:
            return dataclasses.replace(batch, items=len(examples), sequences=len(examples), lists=lists)
        labels = torch.tensor([label for example in examples for label in example["labels"]])
        items, loss = len(lists.owners), self.settings.reranker.loss
        if "teacher" in examples[0]:
            teacher = torch.tensor([score for example in examples for score in example["teacher"]])
            pairs = torch.tensor(list(_leads(examples))).view(-1, 2)
            lists = dataclasses.replace(lists, teacher=teacher, pairs=pairs)
        if loss in OF_LISTS:
            items = len(lists.sizes) if loss == "listwise" else 0 if lists.pairs is None else len(lists.pairs)
        return dataclasses.replace(batch, labels=labels, items=items, sequences=len(examples), lists=lists)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return an example's pairs as the model reads them, a line each, with their labels."""
        texts = [str(tokenizer.decode(pair["input_ids"])) for pair in sequences_of([example])]
        labels = example.get("labels") or [None] * len(texts)
        return "\n".join(
            text if label is None else f"({label:g}) {text}" for text, label in zip(texts, labels, strict=True)
        )


def passages_of(rows: RowColumns) -> list[list[str]]:
    """Return the passages of each row: one of a pair, several of a list."""
    if "passages" in rows:
        return [json.loads(cell) for cell in rows["passages"]]
    return [[cell] for cell in rows["context"]]


def _leads(examples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield a relevant and an irrelevant passage of one list, as places among all pairs of the examples."""
    start = 0
    for example in examples:
        labels = example["labels"]
        good = [start + place for place, label in enumerate(labels) if label > 0]
        bad = [start + place for place, label in enumerate(labels) if label <= 0]
        yield from itertools.product(good, bad)
        start += len(labels)
