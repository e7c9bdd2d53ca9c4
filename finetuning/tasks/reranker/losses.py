"""Losses of a reranker, a row of the table each: a sum over a batch's items from the scores of its pairs.

Sources: listwise softmax of one relevant passage against the others that are not (as BGE's rerankers are trained, Xiao
et al. 2023), margin MSE of a teacher's scores (Hofstätter et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from finetuning.types import Lists

Loss = Callable[["torch.Tensor", "torch.Tensor", "Lists"], "torch.Tensor"]

OF_LISTS = frozenset({"listwise", "margin_mse"})  # they compare the passages of one query


def _bce(scores: torch.Tensor, labels: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Binary cross-entropy of each pair; a label may lie between 0 and 1."""
    import torch

    return torch.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


def _mse(scores: torch.Tensor, labels: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Squared error of each pair's score."""
    import torch

    return torch.nn.functional.mse_loss(scores, labels, reduction="sum")


def _listwise(scores: torch.Tensor, labels: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Cross-entropy of each relevant passage among itself and the irrelevant ones: a mean over a list's relevant ones.

    Relevant passages do not compete with each other. With one of them it is the softmax over the list.
    """
    import torch

    relevant = (labels > 0).to(scores.dtype)
    count = len(lists.sizes)
    highest = torch.full((count,), -torch.inf, dtype=scores.dtype, device=scores.device)
    highest = highest.scatter_reduce(0, lists.owners, scores.detach(), "amax")
    others = (scores - highest.index_select(0, lists.owners)).exp() * (1 - relevant)
    sums = scores.new_zeros(count).index_add(0, lists.owners, others)
    tiny = torch.finfo(scores.dtype).tiny
    against = sums.clamp(min=tiny).log() + highest  # log of the summed exponentials of the irrelevant ones
    losses = torch.nn.functional.softplus(against.index_select(0, lists.owners) - scores)
    shares = scores.new_zeros(count).index_add(0, lists.owners, relevant).clamp(min=1)
    return (losses * relevant / shares.index_select(0, lists.owners)).sum()


def _margin_mse(scores: torch.Tensor, labels: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Squared error of the lead of a relevant passage over an irrelevant one beside the teacher's lead."""
    import torch

    assert lists.teacher is not None and lists.pairs is not None
    good, bad = lists.pairs.unbind(1)
    teacher = lists.teacher.to(scores)
    return torch.nn.functional.mse_loss(scores[good] - scores[bad], teacher[good] - teacher[bad], reduction="sum")


LOSSES: Mapping[str, Loss] = MappingProxyType({
    "bce": _bce, "mse": _mse, "listwise": _listwise, "margin_mse": _margin_mse,
})  # fmt: skip
