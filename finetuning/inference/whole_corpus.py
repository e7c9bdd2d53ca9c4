"""Evaluation over a whole corpus: a split's questions, searched for in all passages instead of the split's own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from finetuning.data.examples import Examples
from finetuning.data.prepared import Unlabelled
from finetuning.inference.corpus import check_memory, embed
from finetuning.inference.evaluator import Evaluation, Evaluator, columns_of
from finetuning.tasks.embedding.retrieval import search_in_blocks
from finetuning.tasks.embedding.scoring import NEAREST, asked_in, with_hits

_log = logging.getLogger(__name__)
_PASSAGES_AT_A_TIME = 10_000  # as many as `Unlabelled.chunks` reads


def over_corpus(evaluator: Evaluator, evaluation: Evaluation, examples: Examples, source: Unlabelled) -> Evaluation:
    """Search for the questions of a split in a corpus and in the split's own passages, and measure what is found.

    The corpus is read and embedded a block at a time: of its vectors one block is kept, of its texts none.

    Args:
        evaluator: Holds the model; its task searches.
        evaluation: The evaluation of the split, with the vectors of its texts.
        examples: The split.
        source: The passages.

    Returns:
        The evaluation over the corpus.

    Raises:
        StopRequested: A stop was asked for.
    """
    rows = {name: list(cells) for name, cells in columns_of(examples).items()}
    asked = asked_in(evaluation.predictions, rows)
    check_memory(evaluator, **{"질문": len(asked.questions), "한 번에 찾는 문서": _PASSAGES_AT_A_TIME})
    counted = len(asked.passages)

    def blocks() -> Iterator[np.ndarray]:
        nonlocal counted
        yield asked.corpus
        for texts in _new_texts(source, asked.passages):
            counted += len(texts)
            yield embed(evaluator, texts, "context")
            _log.info("문서 %s개에서 찾는 중입니다.", f"{counted:,}")

    hits = search_in_blocks(asked.queries, blocks(), asked.relevant)
    shown = {place for one in hits for place in one.places[:NEAREST]}
    names = dict(enumerate(asked.passages)) | _texts_at(shown, source, asked.passages)
    _log.info("질문 %s개를 문서 %s개에서 찾았습니다.", f"{len(asked.questions):,}", f"{counted:,}")
    predictions = with_hits(evaluation.predictions, rows["question"], asked, hits, names)
    return evaluator.measure(predictions, examples, evaluation.metrics["loss"])


def _new_texts(source: Unlabelled, known: Iterable[str]) -> Iterator[list[str]]:
    """Yield the distinct passages of a source that are not known, a block at a time."""
    seen = set(map(hash, known))  # hashes: the texts of a large corpus would not fit
    for rows, _ in source.chunks():
        texts = [text for text in dict.fromkeys(rows.table["context"]) if hash(text) not in seen]
        seen.update(map(hash, texts))
        if texts:
            yield texts


def _texts_at(places: set[int], source: Unlabelled, known: Sequence[str]) -> dict[int, str]:
    """Return the texts at places behind the known passages; the source is read once more."""
    found, start = dict[int, str](), len(known)
    for texts in _new_texts(source, known):
        found |= {place: texts[place - start] for place in places if start <= place < start + len(texts)}
        start += len(texts)
    return found
