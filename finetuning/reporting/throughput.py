"""Loss, work and time of a stretch of training, and the rates that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from finetuning.korean.durations import duration
from finetuning.reporting.metric_names import metrics_line

_WORTH_TELLING = 0.1  # share of the time; less is told in the debug log alone
_WHOLE_FROM = 10  # examples a second; a slower speed has a decimal place
_GIB = 2**30


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
        measured: Sums over all items of what the objective measures, by name.
        uncompiled: How often one of the compiled layers ran its Python code.
    """

    loss_sum: float = 0.0
    items: float = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)
    uncompiled: int = 0

    def add_loss(self, loss_sum: float, items: float, measured: Mapping[str, float] = MappingProxyType({})) -> None:
        """Add one window's loss, and what was measured beside it."""
        self.loss_sum += loss_sum
        self.items += items
        for name, value in measured.items():
            self.measured[name] = self.measured.get(name, 0.0) + value

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
    def means(self) -> dict[str, float]:
        """Means per item of what the objective measures, by name."""
        return {name: value / max(self.items, 1) for name, value in self.measured.items()}

    @property
    def padding(self) -> float:
        """Share of padding among the computed tokens, from 0 to 1; 0 where shared tokens were computed once."""
        return max(0.0, 1 - self.tokens / max(self.padded_tokens, 1))

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

    def line(self, lr: float, left_s: float, memory_bytes: int) -> str:
        """Format the stretch as the line of the log that a person follows.

        Args:
            lr: Learning rate of the last step.
            left_s: Seconds that the rest of the run takes at the speed so far.
            memory_bytes: Bytes in use now.

        Returns:
            The line, in Korean.
        """
        speed = f"{self.examples_per_s:,.0f}" if self.examples_per_s >= _WHOLE_FROM else f"{self.examples_per_s:.1f}"
        measured = metrics_line(self.means)
        parts = [f"손실 {self.loss:.4f}", *([measured] if measured else []), f"학습률 {lr:.3g}", f"초당 {speed}개"]
        if left_s > 0:
            parts.append(f"남은 시간 {duration(left_s)}")
        parts.append(f"메모리 {memory_bytes / _GIB:.2f} GiB")
        if self.waiting >= _WORTH_TELLING:
            parts.append(f"데이터 대기 {100 * self.waiting:.0f}%")
        if self.uncompiled:
            parts.append(f"컴파일 없이 계산한 층 {self.uncompiled}번")
        if self.skipped:
            parts.append(f"건너뛴 스텝 {self.skipped}")
        return ", ".join(parts)

    def details(self, grad_norm: float) -> str:
        """Format what only the debug log says; grad_norm: the last step's gradient norm."""
        return (
            f"grad_norm {grad_norm:.3f}, 초당 토큰 {self.tokens_per_s:,.0f}개, 패딩 {100 * self.padding:.0f}%, "
            f"데이터를 기다린 시간 {self.seconds:.3f}초 중 {self.waited:.3f}초"
        )
