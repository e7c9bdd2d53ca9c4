"""predict: write a saved model's predictions for a file or for lines from standard input."""

from __future__ import annotations

import argparse
import logging

from finetuning.commands.console import input_lines
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import tell_after_use

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Predict the rows of a file, or lines from standard input, and write JSONL or CSV in the same order.

    The rows are written to no file other than the one that --output names.
    """
    from finetuning.inference.predictor import Predictor
    from finetuning.reporting.predictions import as_cell, as_cell_without_formula, check_output, write_predictions
    from finetuning.reporting.vectors import SUFFIXES, write_vectors

    if arguments.live:
        from finetuning.commands.live import answer_rows

        answer_rows(session, saved_model(session, arguments))
        return
    check_output(arguments.output, arguments.input, SUFFIXES if session.task.shows.gives_vectors else ())
    evaluator = saved_model(session, arguments)
    source = session.data.load_unlabelled(arguments.input, input_lines())
    evaluator.tell_decoding(is_measured=False)
    cell = as_cell_without_formula if arguments.defuse_formulas else as_cell
    predictor = Predictor(evaluator)
    if arguments.output is not None and arguments.output.suffix.lower() in SUFFIXES:
        write_vectors(arguments.output, predictor.predict(source))
    else:
        write_predictions(arguments.output, predictor.predict(source), cell)
    _log.info("%s", predictor.said.line())
    tell_after_use(session, arguments, "predict", *(["predict-file"] if arguments.output else []))
