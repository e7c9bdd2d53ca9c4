"""The state of a run: the typed contents of a checkpoint besides the weights and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from finetuning.reporting.throughput import Tally


@dataclass
class TrainingState:
    """The progress of a run and its records.

    Attributes:
        epoch: Epoch, from 0.
        window: Windows of this epoch that are done.
        step: Optimizer steps that are done.
        evaluated_step, saved_step: The step of the last evaluation, and of the last checkpoint.
        bad_steps: Consecutive steps that were skipped because a value was not finite.
        best_metric, best_step: The best validation metric so far and its step; None and 0 before the first.
        evaluations_since_best: Evaluations since the best one, for early stopping.
        last_metrics: Metrics of the last evaluation.
        untrained_loss: Loss of the first validation rows before training, for a task whose score is its loss.
        uncompiled: How often one of the compiled layers ran its Python code.
        since_log, this_epoch: Sums since the last log line, and since the epoch began.
    """

    epoch: int = 0
    window: int = 0
    step: int = 0
    evaluated_step: int = 0
    saved_step: int = 0
    bad_steps: int = 0
    best_metric: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)
    untrained_loss: float | None = None
    uncompiled: int = 0
    since_log: Tally = field(default_factory=Tally)
    this_epoch: Tally = field(default_factory=Tally)

    def begin_epoch(self, epoch: int) -> None:
        """Start an epoch from its first window."""
        self.epoch, self.window, self.this_epoch = epoch, 0, Tally()

    def forget_best(self) -> None:
        """Make the next evaluation the best one, since the best model so far is in another folder."""
        self.best_metric, self.best_step, self.evaluated_step, self.evaluations_since_best = None, 0, 0, 0

    def is_better(self, metric: float, greater_is_better: bool) -> bool:
        """Return whether a validation metric is better than the best one so far."""
        if self.best_metric is None:  # the first model is kept whatever its metric: a run must leave one
            return math.isfinite(metric) or self.best_step == 0
        return metric > self.best_metric if greater_is_better else metric < self.best_metric

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> TrainingState:
        """Make the state out of the JSON values of `asdict`."""
        values = dict(kept)
        since_log, this_epoch = Tally(**values.pop("since_log")), Tally(**values.pop("this_epoch"))
        return cls(**values, since_log=since_log, this_epoch=this_epoch)


@dataclass(frozen=True)
class KeptState:
    """The JSON part of a checkpoint.

    Attributes:
        training: The TrainingState.
        optimizer: Scalars of the optimizer's state.
        scaler: State of fp16's loss scale; empty in other precisions.
        shrunk_token_budget: The token budget after memory ran out; None if it never did.
        chosen: Settings, by dotted name, that `memory.optimize_memory_usage` chose.
        metrics_bytes: Size of metrics.jsonl when the checkpoint was made.
    """

    training: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    shrunk_token_budget: int | None
    chosen: dict[str, Any]
    metrics_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `KeptState(**values)` reads back."""
        return asdict(self)
