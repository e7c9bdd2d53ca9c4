"""The end of every command: what may be done next, with the commands."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.commands.command_line import words_to_resume
from finetuning.files import command_of_this_program, typed
from finetuning.reporting.next_steps import NextStep, SavedModel, lines_of, next_commands, saved_model

if TYPE_CHECKING:
    from finetuning.commands.session import Session

_log = logging.getLogger(__name__)
_OF_PLAN = ("--compare", "--time", "--processes")  # flags that training does not have
_NAMES_THE_MODEL = ("config", "task")  # beside --model_name or --output_dir, where the user gave them


def tell(steps: Sequence[NextStep]) -> None:
    """Log what may be done next, as the last thing that a command says; nothing where there is nothing."""
    if steps:
        _log.info("\n".join(lines_of(steps)))  # one record, so that the commands stand alone on their lines


def tell_after_use(session: Session, arguments: argparse.Namespace, *done: str) -> None:
    """Log what may be done next with the saved model that a command has used; see `steps_after_use`."""
    tell(steps_after_use(session, arguments, *done))


def steps_after_use(session: Session, arguments: argparse.Namespace, *done: str) -> list[NextStep]:
    """Return what may be done next with the saved model that a command has used.

    Args:
        session: The session.
        arguments: The command line.
        *done: Names of the steps that the command has taken.

    Returns:
        The steps.
    """
    return next_commands(_used_model(session, arguments), done)


def _used_model(session: Session, arguments: argparse.Namespace) -> SavedModel:
    """Describe the saved model of --model_name, or else of output_dir."""
    if arguments.model_name is not None:
        place = ["--model_name", str(arguments.model_name)]
    else:
        place = ["--output_dir", str(session.output_dir)]
    for name in _NAMES_THE_MODEL:
        value = getattr(arguments, name)
        if value is not None:
            place[:0] = [f"--{name}", str(value)]
    return saved_model(session.settings, session.task.name, place, session.models.is_adapter())


def step_to_train(arguments: argparse.Namespace) -> NextStep:
    """Return the step that trains under the settings that a command looked at, such as `plan`."""
    kept, is_compared, words = list[str](), False, iter(arguments.words)
    for word in words:
        name, equals, _ = word.partition("=")
        is_compared = word == "--compare" or (is_compared and not word.startswith("--"))
        if name == "--processes" and not equals:
            next(words)
        elif not is_compared and name not in _OF_PLAN:
            kept.append(word)
    places = [place for place, word in enumerate(kept) if word == arguments.command]
    del kept[0 if places[0] == 0 else places[-1]]
    command = command_of_this_program(*kept)
    if arguments.processes is not None:
        command = typed("torchrun", "--nproc_per_node", arguments.processes, sys.argv[0], *kept)
    return NextStep("train", "이 설정으로 학습하기", command)


def exported_model(session: Session, folder: Path) -> SavedModel:
    """Describe a model that was exported, whose folder holds its task and its settings."""
    return saved_model(session.settings, session.task.name, ("--model_name", str(folder)), is_adapter=False)


def words_for_more_epochs(arguments: argparse.Namespace, epochs: int) -> list[str]:
    """Return the words of a command that continues a finished run for as many epochs again.

    Args:
        arguments: The command line that trained it.
        epochs: The epochs of the run.

    Returns:
        The words after the program's name.
    """
    kept, following = list[str](), iter(arguments.words)
    for word in following:
        value = next(following, "") if word in ("--epochs", "--set") else ""
        if word == "--set" and not value.startswith("training.epochs"):
            kept += [word, value]
        elif word not in ("--epochs", "--set") and not word.startswith(("--epochs=", "--set=training.epochs")):
            kept.append(word)
    return [*words_to_resume(kept, arguments.run.path), "--epochs", str(2 * epochs)]
