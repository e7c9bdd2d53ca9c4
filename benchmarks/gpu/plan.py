"""Which checks are asked, in which order, and what each may take of the budget. Nothing here needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from benchmarks.gpu.bench import Bench

Facts = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One question.

    Attributes:
        name: Its name on the command line and in the lines.
        question: What it answers.
        answer: Yields the facts, each as soon as it is known.
        cost_s: Seconds that it takes on an H100, without the start of a process.
        needs: Packages without which it is not asked.
        by_default: Whether it is asked where `--only` does not name it.
    """

    name: str
    question: str
    answer: Callable[[Bench], Iterator[Facts]]
    cost_s: float
    needs: tuple[str, ...] = ()
    by_default: bool = True


class CheckFailed(Exception):
    """A check ended without its answer; the text says why."""


class Answers(Protocol):
    """Answers checks one at a time."""

    def start_s(self) -> float:
        """Return the seconds until a check can begin: those of a new process, or 0."""

    def answers(self, check: Check, limit_s: float) -> Iterator[Facts]:
        """Yield a check's facts.

        Args:
            check: The check.
            limit_s: Seconds after which it is ended.

        Raises:
            CheckFailed: It failed, or took longer.
        """


class Budget:
    """Seconds that are left.

    Args:
        seconds: All there are, from now on.
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self.seconds, self._began = clock, seconds, clock()

    def spent(self) -> float:
        return self._clock() - self._began

    def left(self) -> float:
        return self.seconds - self.spent()


def chosen(checks: Iterable[Check], only: Iterable[str] | None) -> list[Check]:
    """Return the checks to ask, in their order: those named, or those asked by default."""
    names = set(only or ())
    return [check for check in checks if (check.name in names if names else check.by_default)]


def ask(
    checks: Iterable[Check], answers: Answers, budget: Budget, say: Callable[[str, Facts], None], patience: float
) -> None:
    """Ask the checks in turn. What one of them does stops none of the others.

    A check that the rest of the budget is too small for is left out, and one that comes later and takes less is not.

    Args:
        checks: The checks, those first whose answers decide most.
        answers: Answers them.
        budget: The time for all.
        say: Takes a check's name and facts, each time as soon as they are known.
        patience: How many times its cost a check may take, if the budget allows.
    """
    for check in checks:
        needed, left = check.cost_s + answers.start_s(), budget.left()
        if missing := [name for name in check.needs if find_spec(name) is None]:
            say(check.name, {"skipped": f"needs {', '.join(missing)}"})
            continue
        if left < needed:
            say(check.name, {"skipped": f"takes about {needed:.0f} s, and {max(left, 0):.0f} s are left"})
            continue
        began, outcome = budget.spent(), Facts(answered=True)
        try:
            for facts in answers.answers(check, min(patience * needed, left)):
                say(check.name, facts)
        except CheckFailed as error:
            outcome = {"failed": str(error)}
        say(check.name, {**outcome, "took_s": round(budget.spent() - began, 1), "cost_s": check.cost_s})
