"""Queries, passages and hard negatives as sequences of tokens: an example is one query with what belongs to it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.config.schema import Settings
from finetuning.tasks.parts import RowColumns, RowEncoder, Rows
from finetuning.tasks.tensors import pad
from finetuning.tasks.text_encoding import encode_text
from finetuning.types import Batch, RandomKey, Texts

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


class EmbeddingEncoder(RowEncoder):
    """Encodes each text by itself, behind the prefix of its kind.

    An example holds the sequences of its texts one behind the other: the query, its passage, hard negatives (see
    `finetuning/data/examples.py`). A row with several passages makes an example of each.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.neighbours = settings.embedding.neighbours or 0

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode texts; see `RowEncoder.encode`. To predict there may be a query or a passage alone."""
        owners, texts = list[int](), list[list[str]]()
        for place, number in enumerate(rows["row"]):
            for made in self._examples({name: cells[place] for name, cells in rows.items()}):
                owners.append(number)
                texts.append(made)
        encoded = encode_text(tokenizer, list(itertools.chain.from_iterable(texts)), None, max_length)
        columns: dict[str, list[Any]] = {"row": owners, "parts": [], "contents": []}
        for name in encoded:
            columns[name] = []
        start = 0
        for made in texts:
            own = {name: values[start : start + len(made)] for name, values in encoded.items()}
            start += len(made)
            columns["truncated"].append(any(own.pop("truncated")))
            columns["parts"].append([len(ids) for ids in own["input_ids"]])
            columns["contents"].append(list(itertools.chain.from_iterable(map(_content, own["input_ids"]))))
            for name, values in own.items():
                columns[name].append(list(itertools.chain.from_iterable(values)))
        if "label" in rows:
            scores = dict(zip(rows["row"], rows["label"], strict=True))
            columns["score"] = [float(scores[number]) / self.settings.embedding.highest_score for number in owners]
        return columns

    def _examples(self, row: Mapping[str, Any]) -> Iterator[list[str]]:
        """Yield the texts of each example of a row, with their prefixes."""
        asks, answers = self.settings.embedding.query_prefix, self.settings.embedding.passage_prefix
        if self.settings.embedding.loss != "infonce":
            answers = asks  # the two texts of a scored pair are of one kind
        queries = [f"{asks}{row['question']}"] if "question" in row else []
        passages = [row["context"], *json.loads(row.get("positives") or "[]")] if "context" in row else []
        negatives = [f"{answers}{text}" for text in json.loads(row.get("negatives") or "[]")]
        for passage in passages:
            yield [*queries, f"{answers}{passage}", *negatives]
        if not passages:
            yield queries

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad sequences, one a row; see `RowEncoder.collate`."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        lengths = torch.tensor([len(one["input_ids"]) for one in examples])
        starts = torch.arange(len(examples)) * inputs["input_ids"].shape[1]
        return self._with_texts(Batch(inputs, None, 0, tokens), examples, starts, lengths)

    def packs(self) -> bool:
        """Return whether windows are packed: those of decoders, which are read at each sequence's last token."""
        return self.settings.embedding.pooling == "last" and self.settings.data.packing is not False

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Put sequences into rows, one behind the other; see `RowEncoder.collate_rows`."""
        import torch

        joined = [
            {"input_ids": list(itertools.chain.from_iterable(one["input_ids"] for one in row))} for row in rows
        ]  # fmt: skip
        inputs, tokens = pad(joined, tokenizer)
        del inputs["attention_mask"]  # a causal model's sequences are told apart by positions that restart
        width, lengths, starts = inputs["input_ids"].shape[1], list[int](), list[int]()
        positions = torch.zeros_like(inputs["input_ids"])
        for number, row in enumerate(rows):
            start = 0
            for one in row:
                length = len(one["input_ids"])
                positions[number, start : start + length] = torch.arange(length)
                starts.append(number * width + start)
                lengths.append(length)
                start += length
        inputs["position_ids"] = positions
        sequences = [one for row in rows for one in row]
        batch = Batch(inputs, None, 0, tokens, sequences=len(sequences))
        return self._with_texts(batch, sequences, torch.tensor(starts), torch.tensor(lengths))

    def _with_texts(self, batch: Batch, sequences: Sequence[Mapping[str, Any]], starts: Any, lengths: Any) -> Batch:
        """Tell which text each sequence is, and which of its tokens is its vector, unless that is their mean."""
        import numpy as np

        scores = np.array([one.get("score", math.nan) for one in sequences], dtype=np.float64)
        examples, parts, contents = (_column(sequences, name) for name in ("example", "place", "content"))
        texts = Texts(examples, parts, contents, scores)
        pooling = self.settings.embedding.pooling
        places = {"mean": None, "cls": starts, "last": starts + lengths - 1}[pooling]
        return dataclasses.replace(batch, items=int((texts.places == 0).sum()), texts=texts, places=places)

    def why_several(self) -> str:
        """Return why a row makes several examples; see `RowEncoder.why_several`."""
        return "정답 문서가 여럿인 행은 문서마다 예제가 됩니다."

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the example's texts as the model reads them, a line each."""
        ends = list(itertools.accumulate(example["parts"]))
        ids = [example["input_ids"][start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return "\n".join(str(tokenizer.decode(one)) for one in ids)


def _column(sequences: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    import numpy as np

    return np.array([one[name] for one in sequences], dtype=np.int64)


def _content(ids: Sequence[int]) -> list[int]:
    """Return a hash of a sequence's tokens as two int32."""
    import numpy as np

    digest = hashlib.blake2b(np.asarray(ids, dtype="<i4").tobytes(), digest_size=8).digest()
    halves: list[int] = np.frombuffer(digest, dtype="<i4").tolist()
    return halves
