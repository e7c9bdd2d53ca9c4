"""Losses of embeddings over the texts of a whole window.

Sources: InfoNCE (van den Oord et al. 2018) over the passages of the window, with hard negatives as in DPR (Karpukhin et
al. 2020); CoSENT (Su 2022); mean squared error of cosines (Reimers and Gurevych 2019); Matryoshka dimensions (Kusupati
et al. 2022). Where an implementation has to choose, it is that of sentence-transformers 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from finetuning.config.schema import EmbeddingSettings
    from finetuning.types import Texts


@dataclass(frozen=True)
class Pool:
    """Where the texts of a window stand among its vectors, in an order that no cut changes.

    Attributes:
        queries: Places of the queries, one an example, (examples,) int64.
        candidates: Places of their passages, in the same order, and then of all hard negatives, (candidates,) int64.
        hidden: Candidates that are no negatives of a query, since they are a passage of it in another example,
            (examples, candidates) bool. A query's own passage is not among them.
        scores: How similar the two texts of each example are, (examples,) float64.
    """

    queries: torch.Tensor
    candidates: torch.Tensor
    hidden: torch.Tensor
    scores: torch.Tensor

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Pool:
        """Return a copy with `convert` applied to each tensor, such as a move to another device."""
        return Pool(convert(self.queries), convert(self.candidates), convert(self.hidden), convert(self.scores))


def pool_of(texts: Texts) -> Pool:
    """Arrange the texts of a window.

    Args:
        texts: All sequences of the window, in any order.

    Returns:
        The pool, on the CPU. Examples are in the order of their positions.
    """
    import torch

    places, contents = texts.places, texts.contents
    order = np.lexsort((places, texts.examples))
    queries, passages = order[places[order] == 0], order[places[order] == 1]
    candidates = np.concatenate([passages, order[places[order] > 1]])
    asked = np.unique(contents[queries], return_inverse=True)[1]
    found = np.unique(contents[candidates], return_inverse=True)[1]
    answers = np.zeros((int(asked.max(initial=-1)) + 1, int(found.max(initial=-1)) + 1), dtype=bool)
    answers[asked, found[: len(queries)]] = True
    hidden = answers[asked][:, found]
    np.fill_diagonal(hidden, False)
    return Pool(*map(torch.from_numpy, (queries, candidates, hidden, texts.scores[queries])))


@dataclass(frozen=True)
class EmbeddingLoss:
    """A loss.

    Attributes:
        of: (queries, candidates, pool, settings) → the loss summed over the examples, a scalar; queries: (examples,
            dimensions), candidates: (candidates, dimensions), both of length 1 if the settings ask for that.
        takes_scores: Whether its examples are pairs of texts with a score; else a query and its passage.
        measures: Names of what it measures beside the loss.
        temperature: What similarities are divided by where the settings name nothing: of infonce that of bge-m3 (Chen
            et al. 2024), of cosent that of sentence-transformers' CoSENTLoss.
    """

    of: Callable[[torch.Tensor, torch.Tensor, Pool, EmbeddingSettings], torch.Tensor]
    takes_scores: bool
    measures: tuple[str, ...] = ()
    temperature: float = 0.05


def window_loss(
    vectors: torch.Tensor, pool: Pool, settings: EmbeddingSettings
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Compute the loss of a window, summed over its examples and over the Matryoshka dimensions.

    Args:
        vectors: Vectors of all texts of the window, (sequences, width), not normalised.
        pool: Where the texts stand among them, on the vectors' device.
        settings: The loss and its settings.

    Returns:
        The loss, a scalar, and what it measures, summed over the examples.
    """
    loss, total = LOSSES[settings.loss], vectors.new_zeros(())
    measured: list[torch.Tensor] = []
    for width in widths(vectors.shape[1], settings.matryoshka_dimensions):
        parts = (vectors.index_select(0, places)[:, :width] for places in (pool.queries, pool.candidates))
        queries, candidates = (_of_length_1(part) if settings.normalize else part for part in parts)
        total = total + loss.of(queries, candidates, pool, settings)
        if loss.measures:  # the last width is that of the whole vectors
            measured = [_right(queries.detach(), candidates.detach(), pool)]
    return total, measured


def widths(whole: int, wanted: Sequence[int] | None) -> list[int]:
    """Return the numbers of dimensions that a loss is computed with, the whole width last."""
    return [*sorted({width for width in wanted or () if width < whole}), whole]


def _info_nce(queries: torch.Tensor, candidates: torch.Tensor, pool: Pool, settings: EmbeddingSettings) -> torch.Tensor:
    import torch

    scores = _scores(queries, candidates, pool) / _temperature(settings)
    own = torch.arange(len(queries), device=queries.device)
    loss = torch.nn.functional.cross_entropy(scores, own, reduction="sum")
    if not settings.both_directions:
        return loss
    from_passages = torch.nn.functional.cross_entropy(scores[:, : len(queries)].T, own, reduction="sum")
    return (loss + from_passages) / 2


def _temperature(settings: EmbeddingSettings) -> float:
    return settings.temperature or LOSSES[settings.loss].temperature


def _cosent(queries: torch.Tensor, candidates: torch.Tensor, pool: Pool, settings: EmbeddingSettings) -> torch.Tensor:
    """Let the cosine of every pair exceed that of each pair with a lower score, (Su 2022)."""
    import torch

    cosines = _cosines(queries, candidates) / _temperature(settings)
    excess = cosines[:, None] - cosines[None, :]
    excess = excess.masked_fill(pool.scores[:, None] >= pool.scores[None, :], -torch.inf).flatten()
    return torch.logsumexp(torch.cat([excess.new_zeros(1), excess]), 0) * len(queries)


def _cosine_mse(
    queries: torch.Tensor, candidates: torch.Tensor, pool: Pool, settings: EmbeddingSettings
) -> torch.Tensor:
    return (_cosines(queries, candidates) - pool.scores.to(queries.dtype)).square().sum()


def _scores(queries: torch.Tensor, candidates: torch.Tensor, pool: Pool) -> torch.Tensor:
    import torch

    return (queries @ candidates.T).masked_fill(pool.hidden, -torch.inf)


def _right(queries: torch.Tensor, candidates: torch.Tensor, pool: Pool) -> torch.Tensor:
    """Return the number of queries whose own passage is the nearest candidate."""
    import torch

    nearest = _scores(queries, candidates, pool).argmax(1)
    return (nearest == torch.arange(len(queries), device=queries.device)).sum().to(queries.dtype)


def _cosines(queries: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.cosine_similarity(queries, candidates[: len(queries)], dim=1)


def _of_length_1(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)


LOSSES: Mapping[str, EmbeddingLoss] = MappingProxyType({
    "infonce": EmbeddingLoss(_info_nce, takes_scores=False, measures=("window_accuracy",), temperature=0.02),
    "cosent": EmbeddingLoss(_cosent, takes_scores=True),
    "cosine_mse": EmbeddingLoss(_cosine_mse, takes_scores=True),
})  # fmt: skip
