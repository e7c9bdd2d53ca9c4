"""What processes agree on where memory runs out in one of them: all drop their gradients and take the window again."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.device.runtime import Runtime
from finetuning.types import Batch


@dataclass(frozen=True)
class Verdict:
    """Micro-batches that did not fit into memory, over all processes.

    Attributes:
        tokens: Padded tokens of the largest of them; 0 where all fitted.
        single: Padded tokens of the largest that was one example, which no cut makes smaller; 0 where there is none.
    """

    tokens: int
    single: int


class PeerRanOut(Exception):
    """Memory ran out in another process, which does not come to what this one was about to exchange with it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__()
        self.verdict = verdict


def vote(runtime: Runtime, failed: Batch | None) -> Verdict:
    """Agree on what did not fit. Each process has to call it once a window, before it exchanges anything else.

    Args:
        runtime: The group of processes.
        failed: This process's micro-batch that did not fit; None where all did.

    Returns:
        The verdict, the same in every process.
    """
    tokens = 0 if failed is None else failed.budgeted_tokens()
    single = tokens if failed is not None and failed.examples() <= 1 else 0
    most, most_single = runtime.maxima([tokens, single])
    return Verdict(int(most), int(most_single))


def check_peers(runtime: Runtime) -> None:
    """Vote in the middle of a window that all is well here; raise PeerRanOut where another process says otherwise."""
    if runtime.processes > 1 and (verdict := vote(runtime, None)).tokens:
        raise PeerRanOut(verdict)
