"""The layout of the code and of its tests."""

from __future__ import annotations

import ast

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
ROOMS = (
    "korean", "config", "ops", "device", "tasks", "models", "data", "windows", "checkpoints", "reporting", "inference",
    "training", "planning", "exports", "web", "commands",
)  # fmt: skip


def test_no_test_file_imports_from_another() -> None:
    for path in TESTS.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        of_tests = [name for name in imported if name.split(".")[0] in {"tests", "conftest"} or name == ""]
        assert all(name.startswith("tests.support.") for name in of_tests), path


def test_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "support", "e2e", "faults", "golden"}
