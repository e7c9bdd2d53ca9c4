"""Tasks by name: every module of this package but `base` is one task, found by looking."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.base import Task


def task_classes() -> dict[str, type[Task]]:
    """Every task class by its name, in the order of their names."""
    found: dict[str, type[Task]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name == "base":
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            is_task = isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
            if is_task and not inspect.isabstract(value):
                found[value.name] = value
    return dict(sorted(found.items()))


def find_task(settings: Settings) -> Task:
    """The task that `model.task` names, in any spelling, spacing and case; SettingsError where there is none."""
    classes = task_classes()
    spellings = {_squeeze(name): cls for cls in classes.values() for name in (cls.name, *cls.aliases)}
    wanted = _squeeze(settings.model.task)
    if wanted in spellings:
        return spellings[wanted].for_settings(settings)
    near = difflib.get_close_matches(wanted, spellings, n=1)
    guess = f"혹시 {spellings[near[0]].name}입니까? " if near else ""
    raise SettingsError(
        f"'{settings.model.task}' 태스크가 없습니다.",
        where="model.task",
        remedy=f"{guess}쓸 수 있는 태스크: {', '.join(classes)}",
    )


def _squeeze(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
