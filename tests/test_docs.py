"""The README in both languages: the same sections, and only what the program has."""

from __future__ import annotations

import re

import pytest
import yaml

from config_manager import ConfigManager
from finetuning.config.overrides import Override
from finetuning.config.schema import Settings, all_keys
from finetuning.tasks.registry import task_classes
from finetuning_app import build_parser
from tests.support.paths import ROOT

README = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.en.md")}
ANOTHER_PROGRAMS = {"--nproc_per_node"}
in_both = pytest.mark.parametrize("text", README.values(), ids=README)


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row of every table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def test_both_languages_have_the_same_headings_keys_and_commands() -> None:
    def shape(text: str) -> list[list[str]]:
        headings = re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
        keys = [code for row in table_rows(text) for code in code_in(row[0]) if not code.startswith("-")]
        commands = re.findall(r"^(?:python|make|pip|git|  --)[^#\n]*[^#\s]", text, re.M)
        return [headings, keys, commands]

    korean, english = (shape(text) for text in README.values())
    for ours, theirs in zip(korean[:2], english[:2], strict=True):
        assert ours == theirs
    assert len(korean[2]) == len(english[2])


@in_both
def test_flags_and_files_in_the_readmes_exist(text: str) -> None:
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert flags - ANOTHER_PROGRAMS <= set(build_parser()._option_string_actions)
    files = re.findall(r"\b(?:finetuning|recipes|examples|benchmarks|tests)/[a-z][\w/]*(?:\.\w+)?", text, re.ASCII)
    tree = re.findall(r"^[├└]── (\S+) +#", text, re.M)
    assert len(tree) == 12
    assert [name for name in files + tree if not (ROOT / name).exists()] == []


@in_both
def test_every_task_has_a_row_and_every_recipe_is_in_one(text: str) -> None:
    rows = [row for row in table_rows(text) if row[0].strip("`") in task_classes()]
    assert sorted(row[0].strip("`") for row in rows) == sorted(task_classes())
    assert sorted(name for row in rows for name in code_in(row[3])) == sorted(
        path.stem for path in (ROOT / "recipes").glob("*.yaml")
    )


@in_both
def test_the_defaults_are_those_of_the_settings(text: str) -> None:
    parts = re.split(r"^### (model|data|training|memory|그 밖의 섹션|Other sections)$", text, flags=re.M)[1:]
    stated: dict[str, Override] = {}
    for section, content in zip(parts[::2], parts[1::2], strict=True):
        prefix = f"{section}." if section in Settings.model_fields else ""
        for keys, _, defaults in table_rows(content.split("\n#")[0])[2:]:
            for key, default in zip(code_in(keys), code_in(defaults), strict=True):
                stated[prefix + key] = Override(yaml.safe_load(default), "README")
    assert sorted(stated) == sorted(all_keys())
    assert ConfigManager.load(None, stated) == Settings()


def test_paths_and_commands_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:finetuning|recipes|benchmarks|tests)/[\w/.-]*|[\w.-]+\.(?:md|txt|toml))`", text))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and "NAME" not in path] == []
    named = re.findall(r"`(\w+)`\s+(?:in|of)\s+`([\w/]+\.py)`", text)  # a name in a file
    assert len(named) >= 5
    assert [(name, path) for name, path in named if name not in (ROOT / path).read_text(encoding="utf-8")] == []
