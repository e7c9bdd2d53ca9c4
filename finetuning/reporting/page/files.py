"""Writes what a run leaves for people beside its model: the page, pictures for slides, and the wrong rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exceptions import ResourceError, first_line_of
from finetuning.files import write_atomically, write_bytes_atomically
from finetuning.reporting.cases import Said, write_errors
from finetuning.reporting.page.curves import charts_of
from finetuning.reporting.page.names import CONFUSION, CURVES, ERRORS, PAGE, of_split
from finetuning.reporting.quality import Quality
from finetuning.reporting.run_report import Background, EvaluationFacts, RunReport

_log = logging.getLogger(__name__)


def write_report(report: RunReport, said: Said, metrics_file: str) -> None:
    """Write report.html, curves.png, confusion.png and errors.csv into the folder of a run.

    What cannot be written or drawn is told in a warning: it is no reason to lose a run.

    Args:
        report: The run.
        said: The split that was evaluated and what the model said about it.
        metrics_file: Name of the file with the whole matrix.
    """
    folder = report.output_dir
    errors_file = _errors(folder / ERRORS, said, report.evaluation)
    with _told(folder / PAGE):
        _write_page(report, errors_file, metrics_file)
        _log.info("결과 보고서를 저장했습니다. 브라우저로 열어 보세요: %s", folder / PAGE)
        _write_pictures(report)


def write_evaluation(
    folder: Path, evaluation: EvaluationFacts, said: Said, quality: Quality | None, background: Background,
    metrics_file: str,
) -> None:  # fmt: skip
    """Write report-SPLIT.html and errors-SPLIT.csv of an evaluation by itself, and tell what cannot be written.

    Args:
        folder: The folder of the model.
        evaluation: The evaluation.
        said: The split that was evaluated and what the model said about it.
        quality: What the score is worth, or None where that is not known.
        background: The split and what may be done next.
        metrics_file: Name of the file with the whole matrix.
    """
    path = folder / of_split(PAGE, evaluation.split)
    errors_file = _errors(folder / of_split(ERRORS, evaluation.split), said, evaluation)
    with _told(path):
        from finetuning.reporting.page.html import render
        from finetuning.reporting.page.view import page_of_evaluation

        page = page_of_evaluation(folder.name, said.task, evaluation, quality, background, errors_file, metrics_file)
        write_atomically(path, render(page, (), best_step=0))
        _log.info("결과 보고서를 저장했습니다. 브라우저로 열어 보세요: %s", path)


def _errors(path: Path, said: Said, evaluation: EvaluationFacts) -> str:
    """Write the wrong rows; return the file's name, "" where there is none."""
    errors = 0
    with _told(path):
        errors = write_errors(path, said, evaluation.evidence)
    if not errors:
        return ""
    _log.info("예측이 틀린 %s행을 저장했습니다: %s", f"{errors:,}", path)
    return path.name


def _write_page(report: RunReport, errors_file: str, metrics_file: str) -> None:
    """Draw and write the page."""
    from finetuning.reporting.page.html import render
    from finetuning.reporting.page.view import page_of_run

    page = page_of_run(report, errors_file, metrics_file)
    charts = charts_of(report.background.records, report.best_metric_name)
    write_atomically(report.output_dir / PAGE, render(page, charts, report.training.best_step))


def _write_pictures(report: RunReport) -> None:
    """Draw and write the pictures for slides."""
    from finetuning.reporting.page.blocks import smaller
    from finetuning.reporting.page.drawing import confusion_png, curves_png
    from finetuning.tasks.evidence import Confusion

    folder = report.output_dir
    charts = charts_of(report.background.records, report.best_metric_name)
    with _told(folder / CURVES):
        if charts:
            write_bytes_atomically(folder / CURVES, curves_png(charts, report.training.best_step, folder.name))
    for block in report.evaluation.evidence.blocks:
        if isinstance(block, Confusion):
            title = f"{folder.name} ({report.evaluation.split})"
            with _told(folder / CONFUSION):
                write_bytes_atomically(folder / CONFUSION, confusion_png(smaller(block), title))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell in a warning why a file was not made, and what to do, instead of ending the run."""
    try:
        yield
    except ModuleNotFoundError as error:
        _log.warning(
            "%s 파일을 만들지 못했습니다. 설치되지 않은 패키지가 있습니다: %s. pip install -r requirements.txt -c "
            "requirements-lock.txt로 설치하고 같은 명령을 다시 실행하면(학습이면 --resume을 붙여서) 만듭니다.",
            path.name, error.name,
        )  # fmt: skip
    except ResourceError as error:
        _log.warning("%s 파일을 쓰지 못했습니다. %s (%s) %s", path.name, error.what, error.where, error.remedy)
    except Exception as error:  # whatever a drawing library makes of odd data: the model and its metrics are there
        _log.warning("%s 파일을 만들지 못했습니다: %s", path.name, first_line_of(error))
        _log.debug("", exc_info=True)
