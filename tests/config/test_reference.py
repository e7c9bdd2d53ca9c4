"""Files made from the schema are up to date, and an editor's schema says the same as the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetuning.config.flags import SETTING_FLAGS
from finetuning.config.metadata import fields_of
from finetuning.config.recipes import settings_files
from finetuning.config.reference import DOCUMENTS, config_yaml, generated_files, write_files
from finetuning.config.schema import Settings, all_keys
from tests.support.paths import ROOT

YAML_FILES = [ROOT / "config.yaml", *settings_files()]
FILES = generated_files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_made_from_the_schema_is_up_to_date(path: Path) -> None:
    stale = "run `python -m finetuning.config.reference` and commit what it writes"
    assert path.read_text(encoding="utf-8") == FILES[path], stale


def test_the_files_are_written_whole(tmp_path: Path) -> None:
    (tmp_path / "finetuning" / "config").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    write_files(tmp_path)
    for path in FILES:
        assert (tmp_path / path.relative_to(ROOT)).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_every_setting_is_in_both_documents_once() -> None:
    for name in DOCUMENTS:
        text, found = (ROOT / name).read_text(encoding="utf-8"), []
        for section, table in re.findall(r"<!-- settings: (\S+) -->\n(.*?)<!-- /settings -->", text, re.S):
            prefix = "" if section == "others" else f"{section}."
            found += [prefix + key for key in re.findall(r"^\| `(\S+)` \|", table, re.M)]
        assert sorted(found) == sorted(all_keys())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_the_first_line_names_the_schema_beside_the_program(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named and (path.parent / named[1]).resolve() == ROOT / "schema.json"
    if path.parent.name == "recipes":
        assert re.match(r"# (1\) )?python ", second)


def accepts(schema: dict[str, Any], root: dict[str, Any], value: Any) -> bool:
    """Whether a value fulfils the parts of JSON schema that schema.json uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], root, value)
    if "anyOf" in schema:
        return any(accepts(choice, root, value) for choice in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] == "object":
        return isinstance(value, dict) and all(
            key in schema["properties"] and accepts(schema["properties"][key], root, inner)
            for key, inner in value.items()
        )
    if schema["type"] == "array":
        return isinstance(value, list) and all(accepts(schema["items"], root, item) for item in value)
    if schema["type"] in ("integer", "number"):
        is_number = isinstance(value, int) or (schema["type"] == "number" and isinstance(value, float))
        return (
            is_number
            and not isinstance(value, bool)
            and value >= schema.get("minimum", value)
            and value <= schema.get("maximum", value)
            and (value > schema["exclusiveMinimum"] if "exclusiveMinimum" in schema else True)
            and (value < schema["exclusiveMaximum"] if "exclusiveMaximum" in schema else True)
        )
    kinds = {"string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[schema["type"]]) and (value or not schema.get("minLength"))


def as_yaml_1_2(value: Any) -> Any:
    """Read `2e-5` as a number, as editors do and YAML 1.1 does not."""
    if isinstance(value, dict):
        return {key: as_yaml_1_2(inner) for key, inner in value.items()}
    is_number = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?e-?\d+", value)
    return float(value) if is_number else value


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_the_editor_schema_accepts_our_files(path: Path) -> None:
    schema = json.loads((ROOT / "schema.json").read_text(encoding="utf-8"))
    assert accepts(schema, schema, as_yaml_1_2(yaml.safe_load(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"training": {"epochs": 0}},
        {"training": {"learning_rate": 0}},
        {"training": {"epoch": 1}},
        {"trainin": {}},
        {"model": {"adapter": {"dropout": 1.0}}},
        {"memory": {"max_gpu_memory_usage": 1.5}},
        {"training": {"lr_scheduler": "exponential"}},
        {"model": {"name": ""}},
    ],
    ids=str,
)
def test_the_editor_schema_refuses_what_the_program_refuses(wrong: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "schema.json").read_text(encoding="utf-8"))
    assert not accepts(schema, schema, wrong)
    with pytest.raises(ValueError, match="validation error"):
        Settings.model_validate(wrong)


def test_descriptions_in_config_yaml_are_those_of_the_schema() -> None:
    text = config_yaml()
    for field in fields_of(Settings):
        assert f"# {field.setting.korean.replace('`', '')}\n" in text


def test_every_flag_has_its_setting() -> None:
    known = {field.setting.flag: field.key for field in fields_of(Settings) if field.setting.flag}
    assert {flag: key for flag, key, _, _ in SETTING_FLAGS} == known


def test_help_does_not_import_the_schema() -> None:
    program = (
        "import sys, finetuning_app\n"
        "try:\n    finetuning_app.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pydantic', 'yaml', 'torch', 'dataclasses'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "[]"
