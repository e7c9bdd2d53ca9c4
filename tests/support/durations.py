"""Which tests `make fast` leaves out: those that took more than a second, listed in tests/slow.txt.

`make test` with `--junitxml=report.xml`, then `python -m tests.support.durations report.xml`, measures them anew.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.support.paths import ROOT

LIST = ROOT / "tests" / "slow.txt"
LIMIT_S = 1.0
KEPT = ("tests/e2e/test_train.py::test_a_run_writes_every_documented_file",)  # however long it takes: one whole run

LONGEST = (  # files of a minute or more, the longest first: begun last, one of them would keep a single worker busy
    "tests/device/test_rehearsal.py", "tests/e2e/test_many_processes.py", "tests/commands/test_resume.py",
    "tests/test_gpu_benchmark.py", "tests/tasks/preference/test_trl_reference.py", "tests/e2e/test_train.py",
    "tests/e2e/test_streams.py", "tests/e2e/test_two_processes.py", "tests/e2e/test_adapter_folders.py",
    "tests/golden/test_golden_losses.py", "tests/web/test_page.py", "tests/test_notebook.py",
)  # fmt: skip


def slow_tests() -> frozenset[str]:
    """The listed tests, as file::function."""
    return frozenset(LIST.read_text(encoding="utf-8").split())


def is_slow(node_id: str, listed: frozenset[str]) -> bool:
    """Whether `make fast` leaves a test out.

    Args:
        node_id: The test with its parameters, as pytest names it.
        listed: What `slow_tests` returned.

    Returns:
        True where its function is listed and the test is not always kept.
    """
    return node_id.split("[")[0] in listed and node_id not in KEPT


def place_of(node_id: str) -> int:
    """Return where a test's file comes in the order of the suite: the longest ones first, then the others."""
    file = node_id.split("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def measured(report: Path, limit_s: float = LIMIT_S) -> list[str]:
    """The functions of a JUnit report of which a test, or its fixtures, took longer than the limit, sorted."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    slow = {(case.get("classname", ""), case.get("name", "")) for case in cases if float(case.get("time", 0)) > limit_s}
    return sorted({f"{module.replace('.', '/')}.py::{name.split('[')[0]}" for module, name in slow})


if __name__ == "__main__":
    LIST.write_text("\n".join(measured(Path(sys.argv[1]))) + "\n", encoding="utf-8")
