"""Runs beside each other as one page without network: their table, and their curves in the same charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuning.files import seen_from
from finetuning.reporting.metrics_file import records_in
from finetuning.reporting.page.curves import MOST_OVERLAID, overlays_of
from finetuning.reporting.page.drawing import overlay_svg
from finetuning.reporting.page.html import environment_of, style_and_script
from finetuning.reporting.page.names import PAGE
from finetuning.reporting.run_rows import NUMBERS, RunRow, tables_of


@dataclass(frozen=True)
class _Line:
    """A row of the table.

    Attributes:
        cells: Its cells.
        report: Where the run's own report lies, seen from the page; "" without one.
        place: Number of its colour; None for a run that is not drawn.
    """

    cells: Sequence[str]
    report: str
    place: int | None


def render_runs(folder: Path, rows: Sequence[RunRow], notes: Sequence[str]) -> str:
    """Render the page of the runs below a folder.

    Args:
        folder: The folder, into which the page is written.
        rows: The runs.
        notes: What else is to say about the folder, a sentence each.

    Returns:
        The HTML.
    """
    groups = []
    for table in tables_of(rows):
        drawn = [(row.name, records_in(row.folder)) for row in table.rows[:MOST_OVERLAID]]
        pictures = [(chart.title, overlay_svg(chart)) for chart in overlays_of(drawn, table.rows[0].metric)]
        pairs = enumerate(zip(table.rows, table.cells, strict=True))
        groups.append((table, [_line(folder, row, cells, place) for place, (row, cells) in pairs], pictures))
    style, _ = style_and_script()
    return (
        environment_of()
        .get_template("runs.html.j2")
        .render(
            style=style, folder=folder.resolve().name, numbers=NUMBERS, groups=groups, notes=notes, drawn=MOST_OVERLAID
        )
    )


def _line(folder: Path, row: RunRow, cells: Sequence[str], place: int) -> _Line:
    report = row.folder / PAGE
    link = seen_from(folder, report) if report.is_file() else ""
    return _Line(cells, link, place if place < MOST_OVERLAID else None)
