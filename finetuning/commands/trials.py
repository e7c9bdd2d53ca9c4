"""The next settings to try in ranges, which optuna chooses by the results so far.

A suggestion is a function of the seed, its number and the earlier results, so that a sweep that was stopped goes on as
if it never was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from exceptions import SettingsError
from finetuning.commands.combinations import Axis, Listed, Range

_DIGITS = 3  # of a number that is drawn: enough to search by, and short enough for a folder's name

Result = tuple[Mapping[str, str], float]
"""Values as they were written, by dotted key, and the score."""


def check_optuna() -> None:
    """Raise SettingsError where optuna is not installed."""
    if find_spec("optuna") is None:
        raise SettingsError(
            "optuna 패키지가 설치되어 있지 않습니다.",
            where="--trials",
            remedy="`pip install optuna` 명령으로 설치하거나, --trials 없이 --set 키=값,값으로 값을 나열하세요.",
        )


def suggested(
    axes: Sequence[Axis], results: Sequence[Result], seed: int, number: int, lower_is_better: bool
) -> dict[str, str]:
    """Choose the values of the next run with a tree-structured Parzen estimator.

    Args:
        axes: What is varied.
        results: The runs so far that have a score.
        seed: The seed of the sweep.
        number: The number of the run, from 0.
        lower_is_better: Whether the search is for the lowest score.

    Returns:
        A value of each setting, as it is written on the command line.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {axis.key: _distribution(axis) for axis in axes}
    sampler = optuna.samplers.TPESampler(seed=seed + number)
    study = optuna.create_study(direction="minimize" if lower_is_better else "maximize", sampler=sampler)
    for written, score in results:
        values = {axis.key: _read(axis, written[axis.key]) for axis in axes}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=score))
    drawn = study.ask(space).params
    return {axis.key: _written(axis, drawn[axis.key]) for axis in axes}


def _distribution(axis: Axis) -> Any:
    import optuna

    if isinstance(axis, Listed):
        return optuna.distributions.CategoricalDistribution(axis.values)
    if axis.is_whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high))
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.is_log)


def _read(axis: Axis, written: str) -> Any:
    if isinstance(axis, Listed):
        return written
    return int(written) if axis.is_whole else float(written)


def _written(axis: Axis, value: Any) -> str:
    if not isinstance(axis, Range):
        return str(value)
    if axis.is_whole:
        return str(int(value))
    return repr(min(max(float(f"{value:.{_DIGITS}g}"), axis.low), axis.high))
