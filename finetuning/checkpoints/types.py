"""The frozen types of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Progress:
    """Position of a run.

    Attributes:
        epoch: The current epoch, from 0.
        window: The next window of that epoch, from 0.
        step: The number of optimizer steps taken so far.
    """

    epoch: int
    window: int
    step: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to continue as if it had never stopped. Nothing in it is ever unpickled.

    Attributes:
        model: Trained weights and buffers by parameter name.
        optimizer: Optimizer state by `<entry>/<parameter name>`, for example `exp_avg/encoder.weight`.
        state: JSON values that the training loop restores.
        progress: Where the run continues.
        fingerprint: JSON facts that a resumed run must share.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]
    progress: Progress
    fingerprint: dict[str, Any]
