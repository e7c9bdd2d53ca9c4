"""Puts the table of a suite into the report of a run, which was written before."""

from __future__ import annotations

from pathlib import Path

from finetuning.files import write_atomically
from finetuning.reporting.page.html import environment_of
from finetuning.reporting.page.names import PAGE
from finetuning.reporting.suite import SuiteReport

_BEGINS, _ENDS = "<!-- suite -->", "<!-- /suite -->"  # in page.html.j2; text from outside is escaped


def add_suite(folder: Path, report: SuiteReport) -> Path | None:
    """Put a suite's table into a run's report, in place of an earlier one.

    Args:
        folder: The folder of the run.
        report: The scores.

    Returns:
        The page; None where the run has none, or one of an earlier version without a place for the table.
    """
    path = folder / PAGE
    if not path.is_file():
        return None
    before, begins, rest = path.read_text(encoding="utf-8").partition(_BEGINS)
    _, ends, after = rest.partition(_ENDS)
    if not ends:
        return None
    blocks = environment_of().get_template("blocks.html.j2").module
    table = str(blocks.suite(report))  # type: ignore[attr-defined]
    write_atomically(path, f"{before}{begins}\n{table}{ends}{after}")
    return path
