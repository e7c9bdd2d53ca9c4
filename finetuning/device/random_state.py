"""The state of torch's random numbers, so that a pass can be run again with the dropout that it had."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """The generators' states at one moment.

    Attributes:
        cpu: State of the CPU's generator, uint8.
        device: The device that a model computes on.
        card: State of the generator of a CUDA device, uint8; None on other devices.
    """

    cpu: torch.Tensor
    device: torch.device
    card: torch.Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Return the state as it is, for a model on this device."""
        card = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), device, card)

    def restore(self) -> None:
        """Let what is drawn next be what was drawn after this state."""
        torch.set_rng_state(self.cpu)
        if self.card is not None:
            torch.cuda.set_rng_state(self.card, self.device)
