"""The packages that are needed, the versions that work, and those that were tested."""

from __future__ import annotations

import ast
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

IMPORTED_AS = {
    "charset-normalizer": "charset_normalizer",
    "lm-eval": "lm_eval",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def requirements_of(name: str) -> dict[str, Requirement]:
    """The packages of a requirements file, by their canonical names."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


RANGES, LOCK, EXTRA = (requirements_of(f"requirements{part}.txt") for part in ("", "-lock", "-extra"))


@pytest.mark.parametrize("name", sorted(RANGES))
def test_a_range_has_an_oldest_version_and_admits_the_tested_one(name: str) -> None:
    oldest, *more = list(RANGES[name].specifier)
    tested = list(LOCK[name].specifier)
    assert oldest.operator == ">=" and not more
    assert [pin.operator for pin in tested] == ["=="]
    assert oldest.contains(tested[0].version)


def test_the_lock_pins_torch_exactly() -> None:
    assert str(LOCK["torch"].specifier) == "==2.13.0"  # a range would bring gigabytes of CUDA


def test_every_pin_is_exact() -> None:
    assert all([pin.operator for pin in requirement.specifier] == ["=="] for requirement in LOCK.values())


def test_every_extra_that_is_pinned_is_admitted() -> None:
    for name in EXTRA.keys() & LOCK.keys():
        assert all(EXTRA[name].specifier.contains(pin.version) for pin in LOCK[name].specifier), name


def test_every_package_that_is_imported_is_named() -> None:
    named = {IMPORTED_AS.get(name, name) for name in RANGES.keys() | EXTRA.keys()} | {
        "pydantic_core",
        "huggingface_hub",
        "triton",  # comes with torch for CUDA
    }
    own = {path.stem for path in ROOT.glob("*.py")} | {"finetuning"}
    for path in [*ROOT.glob("*.py"), *(ROOT / "finetuning").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            else:
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {module.split(".")[0] for module in modules}
            assert roots <= named | own | sys.stdlib_module_names, path
