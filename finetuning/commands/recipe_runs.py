"""sweep --recipe NAME, for a list of recipes: each is trained, and its scores stand beside the published ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exceptions import SettingsError
from finetuning.commands.combinations import OUTPUT_DIR, Combination
from finetuning.commands.command_line import overrides_in
from finetuning.commands.group_command import Report, begin, train_and_report
from finetuning.commands.run_group import Launch, Outcome, RunGroup
from finetuning.config.recipes import Listed, RecipeList, recipe_path
from finetuning.config.schema import Settings
from finetuning.korean.durations import duration
from finetuning.reporting.metric_names import display_name
from finetuning.reporting.text_table import table_lines

_MODEL, _DATA, _CONFIG = "model.name", "data.dataset_name", "data.dataset_config"
_NOTHING = "-"


@dataclass(frozen=True)
class RecipeRun(Combination):
    """The run of one recipe of a list.

    Attributes:
        recipe: Its name.
        flags: Flags of its own.
    """

    recipe: str
    flags: tuple[str, ...]

    def words(self) -> list[str]:
        """Return the recipe's flags."""
        return ["--recipe", self.recipe, *self.flags]

    def name(self) -> str:
        """Return the name of its folder."""
        return self.recipe


def run(arguments: argparse.Namespace, settings: Settings, listing: RecipeList, launch: Launch) -> None:
    """Train the recipes of a list, skip those that are finished, and print one table.

    Args:
        arguments: The command line.
        settings: The settings of config.yaml and the flags, which the runs share.
        listing: The list.
        launch: Runs a command of this program.

    Raises:
        SettingsError: Settings are varied, or a configuration is named, which each recipe has of its own.
        FinetuningError: Runs failed. It has the exit code of the first.
    """
    if arguments.axes or arguments.trials is not None:
        raise SettingsError(
            "레시피의 목록을 학습할 때는 다른 설정의 값을 나열할 수 없습니다.",
            where=f"--recipe {listing.name}",
            remedy="값을 하나만 쓰거나, 레시피 하나를 골라 sweep을 실행하세요. "
            f"레시피: {', '.join(one.name for one in listing.recipes)}",
        )
    given = overrides_in(arguments)
    if _CONFIG in given and given[_CONFIG].value is not None:
        raise SettingsError(
            "레시피의 목록을 학습할 때는 데이터셋의 설정(config)을 고를 수 없습니다. 레시피마다 정해져 있습니다.",
            where=f"{given[_CONFIG].source}, --recipe {listing.name}",
            remedy="이 값을 빼거나, 레시피 하나를 골라 train을 실행하세요.",
        )
    folder = Path(settings.model.output_dir if OUTPUT_DIR in given else f"models/{listing.name}").expanduser()
    names = ",".join(one.name for one in listing.recipes)
    group = RunGroup(folder, settings, {"recipe": names, _MODEL: "", _DATA: "", _CONFIG: ""})
    with begin(group, arguments.dry_run):
        members = [group.member(_run_of(one, arguments, listing.hub)) for one in listing.recipes]
        report = Report(lambda outcomes: _table(outcomes, listing), lambda outcomes: _lines(listing), lambda _: [])
        train_and_report(group, members, len(members), arguments, launch, report)


def _run_of(listed: Listed, arguments: argparse.Namespace, hub: str) -> RecipeRun:
    """Return the run of a recipe, with the model and the data (a folder, or the list's on the Hub) that flags name."""
    from config_manager import ConfigManager

    given = overrides_in(arguments)
    model, data = (str(given[key].value) if key in given else None for key in (_MODEL, _DATA))
    model, config = None if listed.own_model else model, None
    if data in (hub, f"{hub}/{hub}") and not Path(data).is_dir():  # short and whole id
        config = listed.config
    elif data is not None:
        data = str(Path(data).expanduser() / listed.folder)
    named = {_MODEL: ("--model_name", model), _DATA: ("--dataset", data), _CONFIG: ("--dataset_config", config)}
    flags = tuple(word for flag, value in named.values() if value is not None for word in (flag, value))
    others = {key: value for key, value in given.items() if key not in (OUTPUT_DIR, *named)}
    settings = ConfigManager.load(recipe_path(listed.name), others)
    own = {key: value for key, (_, value) in named.items() if value is not None}
    return RecipeRun({"recipe": listed.name, **own}, settings, listed.name, flags)


def _table(outcomes: Sequence[Outcome], listing: RecipeList) -> list[str]:
    """Render a row for each published score, in the order of the list."""
    published = {one.name: one.published for one in listing.recipes}
    header = ["레시피", "데이터", "지표", "점수", "공개된 점수", "차이", "시간", "상태"]
    cells = []
    for outcome in outcomes:
        row, name = outcome.row, outcome.member.combination.name()
        metrics = _metrics(outcome)
        state = f"실패: {outcome.failure}" if outcome.failure else "끝남" if metrics else "안 끝남"
        time = _NOTHING if row is None or row.seconds is None else duration(row.seconds)
        for metric, expected in published[name].items():
            score = metrics.get(metric)
            shown = [_NOTHING] * 2 if score is None else [f"{score:.4f}", f"{score - expected:+.4f}"]
            split = row.split if row is not None and row.split else _NOTHING
            cells.append([name, split, display_name(metric), shown[0], f"{expected:.4f}", shown[1], time, state])
    return table_lines(header, cells, right=frozenset({3, 4, 5, 6}))


def _metrics(outcome: Outcome) -> dict[str, float]:
    """Return the metrics of a finished run's last evaluation."""
    if outcome.row is None or outcome.row.state != "finished":
        return {}
    summary = json.loads((outcome.row.folder / "summary.json").read_text(encoding="utf-8"))
    return dict(summary.get(outcome.row.split) or {})


def _lines(listing: RecipeList) -> list[str]:
    return [
        f"공개된 점수: {listing.source}. 공개되지 않은 test로 잰 것이어서, dev의 점수와 조금 다를 수 있습니다.",
        "모델이나 데이터의 크기가 그와 다르면 재현했는지 알 수 없으므로 참고로만 보세요.",
    ]
