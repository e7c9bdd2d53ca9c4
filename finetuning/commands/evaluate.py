"""evaluate: the metrics of a saved model on one split."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from exceptions import ResourceError
from finetuning.cells import printable
from finetuning.commands.output_folder import is_evaluation
from finetuning.commands.references import compared
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import tell_after_use

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Evaluate a saved model on one split; print the metrics to stdout and save them beside the model."""
    from finetuning.files import write_json, writing
    from finetuning.reporting.run_report import evaluation_line

    evaluator = saved_model(session, arguments)
    given = Path(arguments.dataset or "").expanduser()
    if arguments.dataset and arguments.split is None and given.is_file():  # score all rows of a single file
        split, rows = given.stem, session.data.load_file(given)
    else:
        split, rows = session.data.load_split(arguments.split)
    if evaluator.label_names:
        session.data.check_labels(rows, evaluator.label_names)
    examples = session.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    examples = compared(session, evaluator, {split: examples}, starts_here=False)[split]
    session.data.prune_cache()
    evaluation = evaluator.evaluate(examples, session.settings.training.seed, session.task.scores.final_texts)
    for line in evaluation.details:
        _log.info("%s", line)
    folder = Path(session.models.name)
    if not folder.is_dir():  # a model of the Hub
        folder = session.output_dir
    path = folder / f"metrics-{split}.json"
    try:
        _check_is_own(path)
        with writing("폴더를 만들지 못했습니다", folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"split": split, "rows": len(rows), "source": rows.where, **evaluation.metrics})
    except ResourceError as error:
        _log.warning("지표를 파일에 저장하지 않습니다. %s (%s)", error.what, error.where)
    else:
        _log.info("지표를 저장했습니다: %s", path)
    # what is saved does not depend on who reads this
    print(printable(evaluation_line(split, len(rows), evaluation.metrics)))
    tell_after_use(session, arguments, "evaluate")


def _check_is_own(path: Path) -> None:
    """Raise ResourceError for a file that `evaluate` did not write."""
    if path.is_file() and not is_evaluation(path):
        raise ResourceError(
            "이 프로그램이 만들지 않은 파일이 있어 덮어쓰지 않습니다.", where=str(path), remedy="이름을 바꾸세요."
        )
