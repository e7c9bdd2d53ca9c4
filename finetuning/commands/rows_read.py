"""Which rows a command reads with a saved model: those that it was trained on, or others."""

from __future__ import annotations

import argparse
from pathlib import Path

_LIMITS = ("data.train_rows", "data.validation_rows", "data.test_rows")


def is_one_file(arguments: argparse.Namespace) -> bool:
    """Return whether `evaluate` scores all rows of a file, which is no dataset with splits."""
    given = Path(arguments.dataset or "").expanduser()
    return bool(arguments.dataset) and arguments.split is None and given.is_file()


def limits_of_other_rows(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the settings that limited the rows of the training, where the command reads others.

    Args:
        arguments: The command line of a command that works on a saved model.

    Returns:
        Dotted names: the saved values are not meant for those rows.
    """
    reads_others = arguments.command == "mine" or (arguments.command == "evaluate" and is_one_file(arguments))
    return _LIMITS if reads_others else ()
