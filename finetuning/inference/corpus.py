"""Texts as vectors in memory, and a search for the passages of a corpus that are nearest to queries."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exceptions import DataError, ResourceError
from finetuning.data.prepared import Unlabelled
from finetuning.data.tokenizing import Encoder, examples_in_memory, usable_examples
from finetuning.device.usage import available_bytes
from finetuning.inference.evaluator import Evaluator
from finetuning.tasks.embedding.retrieval import nearest

_log = logging.getLogger(__name__)
_TEXTS_AT_A_TIME = 10_000
_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Passages:
    """The distinct passages of a source, in its order.

    Attributes:
        texts: The clean texts, as the model reads them but for a prefix.
        rows: The first row of each, as the source has it.
    """

    texts: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, source: Unlabelled) -> Passages:
        """Read the passages of a source.

        Args:
            source: Rows with the column of passages alone.

        Returns:
            The passages.

        Raises:
            DataError: There is none.
        """
        found: dict[str, Mapping[str, Any]] = {}
        first = 1
        for rows, records in source.chunks():
            for number, text in zip(rows.table["row"], rows.table["context"], strict=True):
                found.setdefault(text, records[number - first])
            first += len(records)
        if not found:
            raise DataError("문서가 하나도 없습니다.", where=source.raw.where, remedy="문서가 있는 파일을 쓰세요.")
        return cls(list(found), list(found.values()))


def check_memory(evaluator: Evaluator, **counts: int) -> None:
    """Tell how much memory vectors take, before they are made.

    Args:
        evaluator: Holds the model.
        **counts: Number of texts by their Korean name.

    Raises:
        ResourceError: There is less than that.
    """
    width = evaluator.model.config.get_text_config().hidden_size
    needed, left = sum(counts.values()) * width * _FLOAT32, available_bytes()
    listed = ", ".join(f"{name} {count:,}개" for name, count in counts.items())
    _log.info("벡터에 필요한 메모리: %s (%s차원, %s)", _shown(needed), f"{width:,}", listed)
    if needed > left:
        raise ResourceError(
            f"벡터를 담을 메모리가 부족합니다. 필요한 메모리 {_shown(needed)}, 남은 메모리 {_shown(left)}",
            where=listed,
            remedy="문서를 여러 파일로 나누거나 메모리가 더 많은 기기에서 실행하세요.",
        )


def _shown(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20)):,} MiB"


def embed(evaluator: Evaluator, texts: Sequence[str], role: str) -> np.ndarray:
    """Embed clean texts, each behind the prefix of its kind.

    Args:
        evaluator: Holds the model.
        texts: The texts, one or more.
        role: `question` or `context`.

    Returns:
        Their vectors, (texts, dimensions) float32.

    Raises:
        StopRequested: A stop was asked for.
    """
    from datasets import Dataset

    encoder = Encoder(evaluator.task, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    width = evaluator.model.config.get_text_config().hidden_size
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        own = list(texts[start : start + _TEXTS_AT_A_TIME])
        rows = Dataset.from_dict({"row": list(range(start, start + len(own))), role: own})
        examples = usable_examples(examples_in_memory(rows, encoder), rows)
        made = evaluator.predict(examples) if len(examples) else []
        for number, one in zip(examples.rows["row"], made, strict=True):
            vectors[number] = one.vectors[0][0]
        if start + len(own) < len(texts):
            _log.info("벡터를 만드는 중: %s/%s개", f"{start + len(own):,}", f"{len(texts):,}")
    return vectors


@dataclass(frozen=True)
class Search:
    """Searches a corpus.

    Attributes:
        passages: The corpus.
        vectors: Its vectors, (passages, dimensions) float32.
        count: How many passages are found for a query.
    """

    passages: Passages
    vectors: np.ndarray
    count: int

    def found(self, queries: np.ndarray) -> Iterator[list[dict[str, Any]]]:
        """Yield the nearest passages of each query, nearest first: the rows of the source, with their similarity.

        Args:
            queries: (queries, dimensions) float32.

        Yields:
            At most `count` rows.
        """
        for places, scores in nearest(queries, self.vectors, self.count):
            yield [
                {"similarity": round(score, 6), **self.passages.rows[place]}
                for place, score in zip(places, scores, strict=True)
            ]
