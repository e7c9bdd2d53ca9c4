"""evaluate: the metrics of one split under a saved model."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from exceptions import ResourceError
from finetuning.commands.session import Workbench, saved_model

_log = logging.getLogger(__name__)


def run(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Prints and saves the metrics of one split under a saved model."""
    from finetuning.files import write_json, writing
    from finetuning.reporting.log import log_evaluation
    from finetuning.reporting.metric_names import metrics_line

    evaluator = saved_model(bench, arguments)
    given = Path(arguments.dataset or "").expanduser()
    if arguments.dataset and arguments.split is None and given.is_file():  # a file that was given is scored whole
        split, rows = given.stem, bench.data.load_file(given)
    else:
        split, rows = bench.data.load_split(arguments.split)
    if evaluator.label_names:
        bench.data.check_labels(rows, evaluator.label_names)
    examples = bench.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    bench.data.prune_cache()
    evaluation = evaluator.evaluate(examples, bench.settings.training.seed, bench.task.scores.final_texts)
    log_evaluation(split, len(rows), evaluation.metrics, evaluation.details)
    folder = Path(bench.models.name)
    if not folder.is_dir():  # a model of the Hub has no folder of its own
        folder = bench.output_dir
    path = folder / f"metrics-{split}.json"
    print(f"{split} {len(rows):,}행: {metrics_line(evaluation.metrics)}")
    try:
        with writing("폴더를 만들지 못했습니다", folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"split": split, "rows": len(rows), "source": rows.where, **evaluation.metrics})
    except ResourceError as error:
        _log.warning("지표를 파일에 저장하지 않습니다. %s (%s)", error.what, error.where)
        return
    _log.info("지표를 저장했습니다: %s", path)
