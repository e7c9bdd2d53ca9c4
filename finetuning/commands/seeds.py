"""train --seeds N: the same training under several seeds, and how far their scores lie apart."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from finetuning.commands.child_process import run_in_child
from finetuning.commands.combinations import combination
from finetuning.commands.group_command import Report, begin, train_and_report
from finetuning.commands.group_report import spread_lines, table_of
from finetuning.commands.run_group import Launch, RunGroup
from finetuning.config.schema import Settings

_SEED = "training.seed"


def run(arguments: argparse.Namespace, settings: Settings, launch: Launch = run_in_child) -> None:
    """Train a run for each seed, skip those that are finished, and print one table with mean and deviation.

    Args:
        arguments: The command line, with the number of seeds in `seeds`.
        settings: The settings of the first seed.
        launch: Runs a command of this program.

    Raises:
        FinetuningError: Runs failed. It has the exit code of the first.
    """
    first = settings.training.seed
    group = RunGroup(
        Path(settings.model.output_dir).expanduser(), settings, {_SEED: f"{first}..{first + arguments.seeds - 1}"}
    )
    with begin(group, arguments.dry_run):
        seeds = range(first, first + arguments.seeds)
        members = [group.member(combination(settings, {_SEED: str(seed)})) for seed in seeds]
        report = Report(partial(table_of, heading="시드"), spread_lines)
        train_and_report(group, members, len(members), arguments, launch, report)
