"""What the end of a run, or an evaluation, leaves beside the model, and what the report says of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ResourceError
from finetuning.commands.output_folder import is_evaluation
from finetuning.commands.session import Prepared
from finetuning.files import write_atomically, write_bytes_atomically, write_json
from finetuning.reporting.page.names import ERRORS, FILES, PAGE, of_split

if TYPE_CHECKING:
    from finetuning.data.rows import Rows
    from finetuning.reporting.cases import Said
    from finetuning.reporting.run_report import EvaluationFacts, RunReport, SplitFacts

_log = logging.getLogger(__name__)
CARD, SUMMARY = "README.md", "summary.json"


def result_files(output_dir: Path) -> list[Path]:
    """Return the files about the model in a run's folder, which a new best model makes outdated."""
    evaluations = [path.name for path in output_dir.glob("metrics-*.json") if is_evaluation(path)]
    splits = [name.removeprefix("metrics-").removesuffix(".json") for name in evaluations]
    of_splits = [of_split(name, split) for split in splits for name in (PAGE, ERRORS)]
    return [path for name in (CARD, SUMMARY, *FILES, *evaluations, *of_splits) if (path := output_dir / name).is_file()]


def results_in(output_dir: Path) -> dict[str, bytes]:
    """Read the files that the end of a run writes; {} where it did not come to its end."""
    found = {path.name: path.read_bytes() for path in result_files(output_dir)}
    return found if {CARD, SUMMARY} <= found.keys() else {}


def write_results(report: RunReport, said: Said, ended: Mapping[str, bytes]) -> None:
    """Write the files of a finished run.

    Args:
        report: The run.
        said: The split of its final evaluation and the predictions.
        ended: Files of a run that had ended before, which stay as they were.
    """
    from finetuning.reporting.model_card import model_card
    from finetuning.reporting.page.files import write_report
    from finetuning.reporting.run_report import summary

    folder, metrics_file = report.output_dir, metrics_path(report.output_dir, report.evaluation.split)
    if ended:
        _log.info("이미 끝난 학습이어서 더 학습하지 않았습니다. %s 파일은 그대로 둡니다.", ", ".join(ended))
        for name, content in ended.items():
            write_bytes_atomically(folder / name, content)
    else:
        write_atomically(folder / CARD, model_card(report))
        if not metrics_file.exists() or is_evaluation(metrics_file):
            write_json(metrics_file, evaluation_record(report.evaluation, said.split))
    if report.settings.logging.report and PAGE not in ended:
        write_report(report, said, metrics_file.name)
    if not ended:
        write_json(folder / SUMMARY, summary(report))  # last: with it the run is finished


def check_is_own(folder: Path, split: str) -> None:
    """Check that `evaluate` may write the files of a split.

    Args:
        folder: The folder of the model.
        split: The split.

    Raises:
        ResourceError: One of them is there, and no evaluation wrote it.
    """
    metrics = metrics_path(folder, split)
    if metrics.is_file() and is_evaluation(metrics):
        return
    for path in (metrics, *(folder / of_split(name, split) for name in (PAGE, ERRORS))):
        if path.is_file():
            raise ResourceError(
                "이 프로그램이 만들지 않은 파일이 있어 덮어쓰지 않습니다.", where=str(path), remedy="이름을 바꾸세요."
            )


def metrics_path(folder: Path, split: str) -> Path:
    """Return the file of the metrics of a split."""
    return folder / f"metrics-{split}.json"


def evaluation_record(evaluation: EvaluationFacts, rows: Rows) -> dict[str, object]:
    """Return the content of a file of metrics, with the scores by label and the confusion matrix of such a task."""
    about = {"split": evaluation.split, "rows": len(rows), "source": rows.where}
    return {**about, **evaluation.metrics, **evaluation.evidence.facts()}


def split_facts(prepared: Prepared) -> list[SplitFacts]:
    """Return what the report says of each split."""
    from finetuning.data.table import numbers
    from finetuning.reporting.run_report import SplitFacts

    task, found = prepared.session.task, list[SplitFacts]()
    for name, rows in prepared.splits.items():
        counts = prepared.session.data.label_counts(rows) if prepared.label_names else {}
        labels = sorted(task.reads.written_labels(counts).items(), key=lambda pair: -pair[1])
        told = tuple(line for own in rows.datasets() for line in own.told)
        cut = int(numbers(prepared.examples[name].table, "truncated").sum())
        found.append(SplitFacts(name, rows.where, len(rows), cut, told, dict(labels)))
    return found


def data_notes(prepared: Prepared) -> list[str]:
    """Return sentences about the data as a whole."""
    from finetuning.data.repeats import repeats_in

    line, _ = repeats_in(prepared.splits, prepared.session.task.reads.has_labels)
    return [line] if line else []
