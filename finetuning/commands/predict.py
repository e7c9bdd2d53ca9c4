"""predict: a saved model's predictions for a file, or for lines from standard input."""

from __future__ import annotations

import argparse
from typing import Any

from finetuning.commands.console import input_lines
from finetuning.commands.session import Workbench, saved_model


def run(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Predicts the rows of a file, or lines from standard input, as JSONL or CSV in the order they came."""
    from finetuning.reporting.predictions import beside, check_output, write_predictions

    check_output(arguments.output)
    evaluator = saved_model(bench, arguments)
    rows, originals = bench.data.load_unlabelled(arguments.input, input_lines())
    records: list[dict[str, Any]] = [dict(original) for original in originals]
    if len(rows):
        examples = bench.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
        predictions = evaluator.predict(examples)
        for row, prediction in zip(examples.rows, predictions, strict=True):
            found = bench.task.shows.readable(prediction, row, evaluator.label_names, evaluator.tokenizer)
            records[row["row"] - 1] = beside(records[row["row"] - 1], found)
    write_predictions(arguments.output, records)
