"""sweep: train under every combination of listed settings, or under those that optuna chooses in ranges."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from exceptions import SettingsError
from finetuning.commands import recipe_runs
from finetuning.commands.child_process import run_in_child
from finetuning.commands.combinations import OUTPUT_DIR, Axis, Listed, combination, grid, normalized
from finetuning.commands.group_command import Report, begin, train_and_report
from finetuning.commands.group_report import best_lines, table_of
from finetuning.commands.run_group import Launch, Member, RunGroup, tell
from finetuning.commands.trials import Result, check_optuna, suggested
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.reporting.metric_names import lower_is_better

_MOST_DRAWS = 20  # until a suggestion is one that was not tried


def run(arguments: argparse.Namespace, settings: Settings, launch: Launch = run_in_child) -> None:
    """Train a run for each combination, skip those that are finished, and print one table.

    Args:
        arguments: The command line, with what `--set` varies in `axes`.
        settings: The settings that the runs share.
        launch: Runs a command of this program.

    Raises:
        SettingsError: What is varied cannot be swept over.
        FinetuningError: Runs failed. It has the exit code of the first.
    """
    if arguments.listed is not None:
        recipe_runs.run(arguments, settings, arguments.listed, launch)
        return
    report = Report(partial(table_of, heading="조합"), best_lines)
    axes = normalized(settings, arguments.axes)
    _check(axes, arguments.trials)
    group = RunGroup(
        Path(settings.model.output_dir).expanduser(), settings, {axis.key: axis.written() for axis in axes}
    )
    with begin(group, arguments.dry_run):
        if arguments.trials is None:
            members = [group.member(one) for one in grid(settings, [axis for axis in axes if isinstance(axis, Listed)])]
            train_and_report(group, members, len(members), arguments, launch, report)
        else:
            chosen = _chosen(group, settings, axes, arguments)
            train_and_report(group, chosen, arguments.trials, arguments, launch, report)


def _check(axes: Sequence[Axis], trials: int | None) -> None:
    example = "--set training.learning_rate=1e-5,3e-5"
    if not axes:
        raise SettingsError(
            "바꿔 볼 값이 없습니다.",
            where="명령줄 플래그 --set",
            remedy=f"값을 쉼표로 나열하세요: python finetuning_app.py sweep {example} --set training.epochs=2,3",
        )
    if any(axis.key == OUTPUT_DIR for axis in axes):
        raise SettingsError(
            f"{OUTPUT_DIR}에는 값을 하나만 쓰세요. 조합마다의 폴더는 그 아래에 만듭니다.",
            where=f"--set {OUTPUT_DIR}",
            remedy="--output_dir models/sweep처럼 쓰세요.",
        )
    ranges = [axis.key for axis in axes if not isinstance(axis, Listed)]
    if ranges and trials is None:
        raise SettingsError(
            f"범위를 쓰려면 몇 번 시도할지도 정해야 합니다: {', '.join(ranges)}",
            where="명령줄 플래그 --set",
            remedy=f"--trials 10처럼 횟수를 쓰거나, 값을 쉼표로 나열하세요: {example}",
        )
    if trials is not None:
        check_optuna()


def _chosen(
    group: RunGroup, settings: Settings, axes: Sequence[Axis], arguments: argparse.Namespace
) -> Iterator[Member]:
    """Yield the runs of a search: those that were chosen before, then new ones by the results so far."""
    members: list[Member] = []
    recorded = [values for values in group.recorded() if set(values) == {axis.key for axis in axes}]
    for number in range(arguments.trials):
        if number < len(recorded):
            one = combination(settings, {key: bare_value(value) for key, value in recorded[number].items()})
        elif arguments.dry_run:
            return
        else:
            results = [result for member in members if (result := _result(member)) is not None]
            lower = any(lower_is_better(metric) for metric, _ in results)
            scores = [result for _, result in results]
            tried = [member.combination.values for member in members]
            for attempt in range(_MOST_DRAWS):
                seed = settings.training.seed + attempt * 1_000_003
                one = combination(settings, suggested(axes, scores, seed, number, lower))
                if one.values not in tried:
                    break
            else:
                tell("더 시도할 조합이 없어 마칩니다.")
                return
        members.append(group.member(one))
        yield members[-1]


def _result(member: Member) -> tuple[str, Result] | None:
    """Return the metric's name, and the values of a finished run with its validation score."""
    try:
        row = member.row()
    except ValueError:
        return None
    if row is None or row.state != "finished" or row.validation is None:
        return None
    return row.metric, ({key: bare_value(value) for key, value in member.combination.values.items()}, row.validation)
