"""This program's training in a benchmark's own process: by its command line, for a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

UNCOUNTED = 2


class Finished(Exception):
    """The last step was taken: what a run does after it is not compared."""


class Clock:
    """When each step ended. A GPU is waited for only where the stretch that counts begins and ends.

    Args:
        steps: Steps of the run.
        uncounted: Steps at the start that do not count.
    """

    def __init__(self, steps: int, uncounted: int = UNCOUNTED) -> None:
        self.steps, self.uncounted, self.ends = steps, uncounted, list[float]()
        self.began = 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def tick(self) -> None:
        if len(self.ends) + 1 in (1, self.uncounted, self.steps):
            wait_for_device()
        self.ends.append(time.perf_counter())

    def tick_and_stop(self) -> None:
        """Called by this program's manager after each step, where it looks whether a stop is asked for."""
        self.tick()
        if len(self.ends) == self.steps:
            raise Finished

    def seconds(self) -> float:
        """Seconds of the steps that count."""
        return self.ends[-1] - self.ends[self.uncounted - 1]

    def first_step(self) -> float:
        """Seconds from the start to the end of the first step, with what a run makes ready before it."""
        return self.ends[0] - self.began


def wait_for_device() -> None:
    """Wait until a GPU has done what it was given; without one there is nothing to wait for."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


class NeverStops:
    patient = False

    def pending(self) -> int | None:
        return None

    def check(self) -> None:
        return None


def session_by(words: Sequence[str]) -> Any:
    """This program's session of a command line. An earlier one of the process, of another precision say, is over."""
    from accelerate.state import AcceleratorState

    from finetuning.commands.command_line import overrides_in
    from finetuning_app import build_parser, build_session, read_settings

    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = build_parser().parse_args(words)
    given = frozenset(overrides_in(arguments))
    return build_session(read_settings(arguments), NeverStops(), given, settings_file=arguments.config)


def prepared_in(session: Any) -> tuple[Any, Any]:
    """The session's data and its tokenizer."""
    from finetuning.commands.session import prepare

    tokenizer = session.models.load_tokenizer()
    return prepare(session, tokenizer, session.models.usable_length(tokenizer)), tokenizer


def evaluator_of(prepared: Any, tokenizer: Any) -> Any:
    """The run's model on its device, as it begins to be trained, in this program's evaluator."""
    session = prepared.session
    return session.evaluator_to_train(tokenizer, prepared.label_names, session.models.usable_length(tokenizer))


def manager_of(prepared: Any, evaluator: Any, each_step: Callable[[], None], folder: Path) -> Any:
    """This program's training of a run, into a new folder; `each_step` is called after each step."""
    from finetuning.checkpoints.store import CheckpointStore
    from training_manager import TrainingManager

    folder.mkdir(parents=True)
    return TrainingManager(
        prepared.session.settings, evaluator, prepared.examples["train"], prepared.examples["validation"],
        CheckpointStore(folder, 1), lambda model, weights: None, each_step, {}, folder,
    )  # fmt: skip


def run_until_finished(manager: Any) -> None:
    """Train until `each_step` raises Finished, or to the end."""
    with suppress(Finished):
        manager.run()
