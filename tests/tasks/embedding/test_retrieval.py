"""Search in vectors: a corpus that comes in blocks is searched as one."""

from __future__ import annotations

import numpy as np
import pytest

from finetuning.tasks.embedding.retrieval import search, search_in_blocks


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_a_corpus_in_blocks_is_searched_as_a_whole(size: int) -> None:
    draw = np.random.default_rng(0)
    corpus, queries = (draw.standard_normal((count, 8)).astype(np.float32) for count in (40, 9))
    relevant = [{int(place)} for place in draw.integers(40, size=9)]
    blocks = (corpus[start : start + size] for start in range(0, 40, size))
    for whole, found in zip(
        search(queries, corpus, relevant), search_in_blocks(queries, blocks, relevant), strict=True
    ):
        assert (found.places, found.relevant) == (whole.places, whole.relevant)
        assert found.scores == pytest.approx(whole.scores, abs=1e-5)
