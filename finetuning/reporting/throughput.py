"""Loss, work and time of a stretch of training, and the rates that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

_WORTH_TELLING = 0.1  # share of the time; less is told in the debug log alone


@dataclass
class Tally:
    """Sums over a stretch of training, such as an epoch.

    A skipped step adds to `skipped` and to the work, but not to the loss.

    Attributes:
        loss_sum: Sum of the loss over all items.
        items: Number of items in that sum, examples or trained tokens, or the sum of their weights.
        examples: Number of examples.
        tokens: Number of real tokens.
        padded_tokens: Number of computed tokens, padding included.
        skipped: Steps skipped because of NaN or Inf.
        seconds: Time of the training steps, without evaluating and saving.
        waited: Part of that time in which the next window was not ready yet.
    """

    loss_sum: float = 0.0
    items: float = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add_loss(self, loss_sum: float, items: float) -> None:
        """Add one window's loss."""
        self.loss_sum += loss_sum
        self.items += items

    def add_work(self, examples: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Add one window's work and time."""
        self.examples += examples
        self.tokens += tokens
        self.padded_tokens += padded_tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        """Mean loss per item, NaN without items."""
        return self.loss_sum / self.items if self.items else math.nan

    @property
    def padding(self) -> float:
        """Share of padding among the computed tokens, from 0 to 1."""
        return 1 - self.tokens / max(self.padded_tokens, 1)

    @property
    def examples_per_s(self) -> float:
        return self.examples / max(self.seconds, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time in which the next window was not ready, from 0 to 1."""
        return self.waited / max(self.seconds, 1e-9)

    def line(self, lr: float, grad_norm: float) -> str:
        """Format the stretch as a line of the log, with the last step's learning rate and gradient norm."""
        skipped = f", 건너뛴 스텝 {self.skipped}" if self.skipped else ""
        waiting = f", 데이터 대기 {100 * self.waiting:.0f}%" if self.waiting >= _WORTH_TELLING else ""
        return (
            f"손실 {self.loss:.4f}, lr {lr:.3g}, grad_norm {grad_norm:.3f}, "
            f"{self.examples_per_s:.0f} 예제/초, 패딩 {100 * self.padding:.0f}%{waiting}{skipped}"
        )
