"""Interface of objectives: how to compute the loss of a window from its micro-batches.

A sum over items (`summed`) does not depend on the cut into micro-batches. An objective that is not a sum, such as
in-batch negatives over the whole window, makes two passes over the micro-batches so that it does not depend on the cut
either. A new objective is a class with these methods and a row in registry.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from finetuning.types import Batch

_T = TypeVar("_T")


class Passes(Protocol):
    """Runs a model on a micro-batch for an objective: moves it, removes padding, and scales the loss."""

    def on_device(self, batch: Batch) -> AbstractContextManager[Batch]:
        """Return a context around forward and backward of a batch; it yields the batch on the model's device."""

    def phase(self, name: Literal["forward", "backward"]) -> AbstractContextManager[None]:
        """Return a context that counts its time as this phase of a step."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss, scaled as the precision needs."""

    def without_gradients(self) -> AbstractContextManager[None]:
        """Return a context of a pass without gradients, after which one with gradients may follow."""

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of the processes' values."""

    def gathered(self, tensor: torch.Tensor, facts: _T) -> tuple[list[tuple[torch.Tensor, _T]], int]:
        """Return the tensor and the facts of every process, in the order of their ranks, and this process's rank.

        The tensors of several processes are copied to the CPU; that of one stays where it is.
        """


class Objective(Protocol):
    """The loss of a window.

    Attributes:
        measures: Names of what is measured beside the loss, as metrics are named; each is a mean over the items.
    """

    measures: tuple[str, ...]

    def counts(self, batches: Sequence[Batch]) -> tuple[float, ...]:
        """Return what these micro-batches add to the window's counts: first the loss's denominator."""

    def accumulate(
        self, model: PreTrainedModel, batches: Sequence[Batch], counts: Sequence[float], passes: Passes
    ) -> torch.Tensor:
        """Add these micro-batches' share of the gradient of the window's loss.

        Args:
            model: The model in training mode.
            batches: This process's micro-batches of the window.
            counts: The window's counts, over all processes.
            passes: Runs the model.

        Returns:
            Sums over these micro-batches, float32 (or float64) of shape (1 + measures,) on the device: the numerator of
            the loss, and that of each measure.
        """
