"""The interface of the memory manager that the rooms use."""

from __future__ import annotations

from typing import Any, Protocol

from exceptions import OutOfMemory


class TokenBudget(Protocol):
    """Watches the memory of a run's device, and limits the tokens of a micro-batch.

    Attributes:
        token_budget: The most tokens in a micro-batch, as its layout counts them. It only goes down during a run.
        trains: Whether the model is being trained, and not only used.
        chosen: The settings that `memory.optimize_memory_usage` chose, by dotted name. A resumed run keeps them.
    """

    token_budget: int
    trains: bool
    chosen: dict[str, Any]

    def limit(self) -> int:
        """Return the bytes that this run may use."""

    def used(self) -> int:
        """Return the bytes in use now."""

    def peak(self) -> int:
        """Return the most bytes that were in use at once."""

    def describe(self) -> str:
        """Return the memory in use, the limit and the peak as one Korean phrase for the log."""

    def keep_freed_blocks(self) -> None:
        """Keep what a CPU's steps free for the next one where memory is not short; else give it back to the system."""

    def after_step(self, step: int) -> None:
        """Do the clean-up that is due after optimizer step number `step`."""

    def clean_up(self) -> None:
        """Collect garbage, and return unused blocks to the device."""

    def trim_heap(self) -> None:
        """Return free blocks of a CPU's heap to the system; does nothing on a GPU."""

    def start_at(self, budget: int) -> None:
        """Lower the token budget to one that is known to fit on this machine."""

    def shrink(self, largest: int, examples: int) -> None:
        """Halve the token budget after memory ran out on a micro-batch.

        Args:
            largest: Tokens of that micro-batch, as the budget counts them.
            examples: Examples in it.

        Raises:
            OutOfMemory: The micro-batch was a single example, so it cannot be split.
        """

    def ran_out(self, what: str) -> OutOfMemory:
        """Build the error for memory that ran out after every automatic remedy; what: the message, in Korean."""
