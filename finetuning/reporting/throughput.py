"""Loss, work and time of a stretch of training, and the rates that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Tally:
    """Sums over a stretch of training; a skipped window adds to `skipped` and to the work, never to the loss.

    seconds: of the training steps alone, without evaluating and saving.
    """

    loss_sum: float = 0.0
    items: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add_loss(self, loss_sum: float, items: int) -> None:
        """Counts one window's loss."""
        self.loss_sum += loss_sum
        self.items += items

    def add_work(self, examples: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Counts what one window took."""
        self.examples += examples
        self.tokens += tokens
        self.padded_tokens += padded_tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        return self.loss_sum / self.items if self.items else math.nan

    @property
    def padding(self) -> float:
        return 1 - self.tokens / max(self.padded_tokens, 1)

    @property
    def examples_per_s(self) -> float:
        return self.examples / max(self.seconds, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def line(self, lr: float, grad_norm: float) -> str:
        """The stretch as a line of the log."""
        skipped = f", 건너뛴 스텝 {self.skipped}" if self.skipped else ""
        return (
            f"손실 {self.loss:.4f}, lr {lr:.3g}, grad_norm {grad_norm:.3f}, "
            f"{self.examples_per_s:.0f} 예제/초, 패딩 {100 * self.padding:.0f}%{skipped}"
        )
