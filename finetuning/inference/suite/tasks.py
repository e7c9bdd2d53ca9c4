"""Loads tasks of lm-evaluation-harness with their data, from the Hub or from a folder of the user."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from exceptions import DataError, SettingsError
from finetuning.data.hub import load_hub
from finetuning.inference.suite.files import read_local
from finetuning.korean.particles import with_particle

ReadSplits = Callable[[str, str | None, Sequence[str]], Mapping[str, Any]]
"""(id of a data set, its configuration, splits, the one to be scored first) → tables by split."""

_FEW_SHOT_SPLITS = ("fewshot_split", "training_split", "validation_split")


@dataclass(frozen=True)
class Suite:
    """Tasks with their data.

    Attributes:
        loaded: What lm-evaluation-harness loaded: its tasks and groups by name.
    """

    loaded: Mapping[str, Any]

    def outline(self) -> Iterator[tuple[str, int, bool]]:
        """Yield each task and group, a group before its own: name, level and whether it is a group."""
        members: Mapping[str, Sequence[str]] = self.loaded.get("group_map") or {}
        inside = {name for names in members.values() for name in names}

        def below(name: str, level: int) -> Iterator[tuple[str, int, bool]]:
            yield name, level, name in members
            for member in members.get(name, ()):
                yield from below(member, level + 1)

        for name in (*members, *self.loaded["tasks"]):
            if name not in inside:
                yield from below(name, 0)

    def key(self) -> str:
        """Return a hash of all tasks and rows, so that scores of other data are not taken for theirs."""
        digest = hashlib.sha256(version("lm_eval").encode())
        for name, task in self.loaded["tasks"].items():
            digest.update(f"{name} {task.VERSION}".encode())
            for row in task.eval_docs:
                digest.update(json.dumps(row, ensure_ascii=False, default=str).encode())
        return digest.hexdigest()


def load_suite(names: Sequence[str], folder: Path | None, cache_dir: str) -> Suite:
    """Load tasks, groups and tags of lm-evaluation-harness.

    Args:
        names: Their names, such as `kobest`.
        folder: The folder with their data; None for the Hub.
        cache_dir: Where data of the Hub are kept.

    Returns:
        The tasks.

    Raises:
        SettingsError: There is no task of that name.
        DataError: The data of a task are not there.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = partial(lm_eval.api.task.tqdm, disable=True)  # a bar for each task
    manager = _manager_of(names)
    read = partial(_from_hub, cache_dir) if folder is None else partial(_from_folder, folder, cache_dir)
    manager._factory = _WithData(read)
    return Suite(manager.load(list(names)))


class _WithData(TaskFactory):
    """Builds tasks whose data and metrics are read here, so that nothing asks the Hub on its own."""

    def __init__(self, read: ReadSplits) -> None:
        super().__init__()
        self._read = read

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if "dataset_path" not in config:  # a group
            return config
        scored = config.get("test_split") or config.get("validation_split") or config["training_split"]
        wanted = [scored, *(config[key] for key in _FEW_SHOT_SPLITS if config.get(key))]
        tables = self._read(config["dataset_path"], config.get("dataset_name"), list(dict.fromkeys(wanted)))
        missing = [key for key in _FEW_SHOT_SPLITS if config.get(key) not in tables]
        measures = [_own(metric) for metric in config.get("metric_list") or []]
        kept = {key: value for key, value in config.items() if key not in (*missing, "metric_list")}
        return {**kept, "custom_dataset": lambda **_: tables, **({"metric_list": measures} if measures else {})}


def _own(metric: dict[str, Any]) -> dict[str, Any]:
    """Return a metric without the order to fetch its code from the Hub, where lm-evaluation-harness has it itself."""
    return {**metric, "hf_evaluate": False} if metric.get("metric") in METRIC_REGISTRY else metric


def _manager_of(names: Sequence[str]) -> Any:
    """Index the folders of the tasks by the first words of their names, or all, which takes ten seconds."""
    root = Path(lm_eval.api.task.__file__).parents[1] / "tasks"
    folders = {root / name.partition("_")[0] for name in names}
    if all(folder.is_dir() for folder in folders):
        manager = TaskManager(include_defaults=False, include_path=sorted(folders))
        if all(name in manager.task_index for name in names):
            return manager
    manager = TaskManager()
    for name in names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            guess = f"혹시 {near[0]}입니까? " if near else ""
            raise SettingsError(
                f"lm-eval에 '{name}' {with_particle('벤치마크', '이/가')} 없습니다.",
                where="--suite",
                remedy=f"{guess}예: --suite kobest,kmmlu,haerae. 전체 이름은 `lm-eval ls tasks`로 볼 수 있습니다.",
            )
    return manager


def _from_folder(
    folder: Path, cache_dir: str, dataset: str, config: str | None, splits: Sequence[str]
) -> Mapping[str, Any]:
    return read_local(folder, dataset, config, splits, cache_dir)


def _from_hub(cache_dir: str, dataset: str, config: str | None, splits: Sequence[str]) -> Mapping[str, Any]:
    try:
        found = {split: one.table for split, one in load_hub(dataset, config, cache_dir).items()}
    except DataError as error:
        named = dataset if config is None else f"{dataset}({config})"
        raise DataError(
            f"벤치마크 데이터 {with_particle(named, '을/를')} Hugging Face Hub에서 읽지 못했습니다.",
            where="--suite",
            remedy="인터넷에 연결하거나, 내려받아 둔 데이터의 폴더를 --suite_data로 지정하세요.",
        ) from error
    return found
