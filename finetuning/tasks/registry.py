"""Tasks by name: a row for each, and the task that `model.task` names."""

from __future__ import annotations

import difflib
import importlib

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.base import Task

# One row a task: its module in this room, and its class.
_ROWS = (
    ("classification.single", "TextClassification"),
    ("classification.multi_label", "MultiLabelClassification"),
    ("classification.regression", "TextRegression"),
    ("tagging.task", "TokenClassification"),
    ("answering.task", "QuestionAnswering"),
    ("masked_lm", "FillMask"),
    ("generation.causal", "TextGeneration"),
    ("generation.seq2seq", "Text2TextGeneration"),
)


def task_classes() -> dict[str, type[Task]]:
    """Every task class by its name, in the order of their names."""
    modules = ((importlib.import_module(f"finetuning.tasks.{module}"), name) for module, name in _ROWS)
    found: dict[str, type[Task]] = {cls.name: cls for cls in (getattr(module, name) for module, name in modules)}
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
