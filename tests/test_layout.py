"""The layout of the code and of its tests."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.support.durations import KEPT, slow_tests
from tests.support.paths import ROOT

TESTS = ROOT / "tests"
MANAGERS = ("config_manager", "model_manager", "data_manager", "training_manager", "memory_utils")
ROOMS = (
    "korean", "config", "ops", "device", "tasks", "models", "data", "windows", "checkpoints", "reporting", "inference",
    "training", "planning", "exports", "web", "commands",
)  # fmt: skip


def imports_in(path: Path) -> list[str]:
    """The modules that a file imports anywhere, relative imports as ''."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return imported + [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]


def test_no_test_file_imports_from_another() -> None:
    for path in TESTS.rglob("*.py"):
        of_tests = [name for name in imports_in(path) if name.split(".")[0] in {"tests", "conftest", ""}]
        assert all(name.startswith("tests.support.") for name in of_tests), path


@pytest.mark.parametrize("name", MANAGERS)
def test_managers_do_not_import_each_other(name: str) -> None:
    others = {*MANAGERS, "finetuning_app"} - {name}
    assert others.isdisjoint(module.split(".")[0] for module in imports_in(ROOT / f"{name}.py"))


def test_exceptions_imports_nothing_of_this_program() -> None:
    modules = {module.split(".")[0] for module in imports_in(ROOT / "exceptions.py")}
    assert modules <= sys.stdlib_module_names


def test_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "support", "e2e", "faults", "golden", "platforms"}


def test_the_listed_tests_are_there() -> None:
    for test in [*slow_tests(), *(kept.split("[")[0] for kept in KEPT)]:
        path, name = test.split("::")
        assert (ROOT / path).is_file(), test
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test
