"""runs: all runs below a folder beside each other, sorted by their scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from exceptions import SettingsError
from finetuning.cells import printable
from finetuning.commands.found_runs import FoundRuns, runs_below
from finetuning.config.schema import Settings
from finetuning.files import similar_name, write_atomically
from finetuning.reporting.run_rows import lines_of_runs

_PAGE, _SHOWN = "runs.html", 10


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Print the table of the runs and which folders were skipped; write the same as a page where that is asked for.

    Args:
        arguments: The command line: `folder`, `output_dir` and `html`.
        settings: The settings in force; the runs lie beside `model.output_dir` where no folder is named.

    Raises:
        SettingsError: There is no such folder, or no run in it.
        ResourceError: The page cannot be written.
    """
    folder = arguments.folder or Path(arguments.output_dir or Path(settings.model.output_dir).parent).expanduser()
    if not folder.is_dir():
        raise SettingsError(
            "폴더가 없습니다.",
            where=f"runs {folder}",
            remedy=f"{similar_name(folder)}학습 결과가 들어 있는 폴더를 쓰세요: python finetuning_app.py runs 폴더",
        )
    found = runs_below(folder)
    if not found.rows and not found.damaged:
        raise SettingsError(
            "이 폴더에는 학습이 없습니다.",
            where=f"runs {folder}",
            remedy="학습 결과가 들어 있는 폴더를 쓰세요: python finetuning_app.py runs 폴더",
        )
    notes = _closing_lines(found)
    print("\n".join(printable(line) for line in [*lines_of_runs(found.rows), "", *notes]))
    if arguments.html:
        from finetuning.reporting.page.runs import render_runs

        write_atomically(folder / _PAGE, render_runs(folder, found.rows, notes))
        print(f"브라우저로 열어 보세요: {folder / _PAGE}")


def _closing_lines(found: FoundRuns) -> list[str]:
    ended = sum(row.state == "finished" for row in found.rows)
    rest = len(found.rows) - ended
    lines = [f"학습 {len(found.rows):,}개: 끝남 {ended:,}개" + (f", 끝나지 않음 {rest:,}개" if rest else "")]
    lines += [f"읽지 못해 건너뛴 학습: {folder} ({reason})" for folder, reason in found.damaged]
    if found.foreign:
        more = f" 외 {len(found.foreign) - _SHOWN:,}개" if len(found.foreign) > _SHOWN else ""
        names = ", ".join(folder.name for folder in found.foreign[:_SHOWN])
        lines.append(f"학습이 없어 건너뛴 폴더: {names}{more}")
    return lines
