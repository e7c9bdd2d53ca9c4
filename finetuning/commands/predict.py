"""predict: write a saved model's predictions for a file or for lines from standard input."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from exceptions import SettingsError
from finetuning.commands.session import Session, saved_model
from finetuning.commands.sharing import lines_for_all
from finetuning.commands.what_next import tell_after_use

if TYPE_CHECKING:
    from finetuning.data.prepared import Unlabelled
    from finetuning.inference.evaluator import Evaluator
    from finetuning.inference.predictor import Predictor

_log = logging.getLogger(__name__)
_QUERIES_AT_A_TIME = 1000


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
    gives_vectors = session.task.shows.gives_vectors and arguments.corpus is None
    output, runtime = arguments.output, session.runtime
    runtime.on_main(lambda: check_output(output, arguments.input, SUFFIXES if gives_vectors else ()))
    _check_searches(session, arguments)
    evaluator = saved_model(session, arguments)
    source = session.data.load_unlabelled(arguments.input, lines_for_all(runtime))
    evaluator.tell_decoding(is_measured=False)
    cell = as_cell_without_formula if arguments.defuse_formulas else as_cell
    predictor = Predictor(evaluator)
    if arguments.corpus is not None:
        found = _found(session, evaluator, predictor, source, arguments)
    else:
        found = predictor.predict(source)
    if not runtime.is_main:  # which computes its share of the rows, and the main process writes them all
        deque(found, maxlen=0)
    elif output is not None and output.suffix.lower() in SUFFIXES:
        write_vectors(output, found)
    else:
        write_predictions(output, found, cell)
    _log.info("%s", predictor.said.line())
    taken = {"predict-file": output, "search": arguments.corpus}
    tell_after_use(session, arguments, "predict", *(name for name, used in taken.items() if used))


def _check_searches(session: Session, arguments: argparse.Namespace) -> None:
    if arguments.corpus is not None and not session.task.shows.gives_vectors:
        raise SettingsError(
            f"이 모델로는 문서를 검색할 수 없습니다(태스크: {session.task.name}).",
            where="--corpus",
            remedy="임베딩 모델(--task embedding으로 학습)의 폴더를 쓰거나, --corpus를 지우세요.",
        )


def _found(
    session: Session, evaluator: Evaluator, predictor: Predictor, source: Unlabelled, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield each row with the passages of the corpus that are nearest to its question."""
    import numpy as np

    from finetuning.inference.corpus import Passages, Search, check_memory, embed
    from finetuning.reporting.predictions import beside

    passages = Passages.of(session.data.load_passages(arguments.corpus))
    check_memory(evaluator, 문서=len(passages.texts))
    search = Search(passages, embed(evaluator, passages.texts, "context"), arguments.top)
    outcomes = predictor.outcomes(source)
    while block := list(itertools.islice(outcomes, _QUERIES_AT_A_TIME)):
        queries = [outcome.vectors[0][0] for _, _, outcome in block if outcome is not None]
        found = search.found(np.stack(queries)) if queries else iter(())
        for record, row, _ in block:
            if row is not None:
                predictor.said.count(())
            yield record if row is None else beside(record, {"passages": next(found)})
