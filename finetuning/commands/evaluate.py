"""evaluate: the metrics of a saved model on one split."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ResourceError, SettingsError
from finetuning.cells import printable
from finetuning.commands.references import compared
from finetuning.commands.results import check_is_own, evaluation_record, metrics_path
from finetuning.commands.rows_read import is_one_file
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import steps_after_use, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetuning.data.examples import Examples
    from finetuning.data.prepared import Unlabelled
    from finetuning.data.rows import Rows
    from finetuning.inference.evaluator import Evaluation, Evaluator
    from finetuning.reporting.next_steps import NextStep
    from finetuning.reporting.quality import Quality

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Evaluate a saved model on one split; print the metrics to stdout and save them beside the model."""
    from finetuning.inference.evaluator import columns_of
    from finetuning.reporting.quality import Scored, lines_of, quality_of_use
    from finetuning.reporting.run_report import evaluation_line

    if arguments.suite is not None or arguments.suite_data is not None:
        from finetuning.commands import suite

        suite.run(session, arguments)
        return
    evaluator = saved_model(session, arguments)
    corpus = _corpus(session, arguments)
    with session.runtime.main_first():  # which caches them
        if is_one_file(arguments):
            given = Path(arguments.dataset).expanduser()
            split, rows = given.stem, session.data.load_file(given)
        else:
            split, rows = session.data.load_split(arguments.split)
        if evaluator.label_names:
            session.data.check_labels(rows, evaluator.label_names)
        examples = session.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    examples = compared(session, evaluator, {split: examples}, starts_here=False)[split]
    session.data.prune_cache()
    evaluator.tell_decoding(is_measured=True)
    evaluation = evaluator.evaluate(examples, session.settings.training.seed, session.task.scores.final_texts)
    if corpus is not None:
        from finetuning.inference.whole_corpus import over_corpus

        evaluation = over_corpus(evaluator, evaluation, examples, corpus)
    for line in evaluation.details:
        _log.info("%s", line)
    names = evaluator.label_names
    labels = session.data.label_counts(rows) if names else {}
    scored = Scored(split, columns_of(examples), evaluation.predictions, evaluation.metrics, names, labels)
    quality = quality_of_use(session.task, scored)
    steps = steps_after_use(session, arguments, "evaluate")
    if session.runtime.is_main:
        _write(session, evaluator, rows, examples, evaluation, split, quality, steps)
    for line in lines_of(quality) if quality is not None else ():
        _log.info("%s", line)
    if session.runtime.is_main:  # what is saved does not depend on who reads this
        print(printable(evaluation_line(split, len(rows), evaluation.metrics)))
    tell(steps)


def _corpus(session: Session, arguments: argparse.Namespace) -> Unlabelled | None:
    """Return the passages of --corpus, or of data that have a corpus; None where the split's own are searched."""
    if session.task.shows.searches:
        return session.data.corpus(arguments.corpus)
    if arguments.corpus is not None:
        raise SettingsError(
            f"이 모델로는 문서를 검색할 수 없습니다(태스크: {session.task.name}).",
            where="--corpus",
            remedy="질문과 정답 문서로 학습한 임베딩 모델에 쓰거나, --corpus를 지우세요.",
        )
    return None


def _write(
    session: Session, evaluator: Evaluator, rows: Rows, examples: Examples, evaluation: Evaluation, split: str,
    quality: Quality | None, steps: Sequence[NextStep],
) -> None:  # fmt: skip
    """Save the metrics beside the model, and the report where the settings ask for it; tell what cannot be saved."""
    from finetuning.data.table import numbers
    from finetuning.files import write_json, writing
    from finetuning.inference.evaluator import columns_of
    from finetuning.reporting.cases import Said, ranked_cases
    from finetuning.reporting.page.files import write_evaluation
    from finetuning.reporting.run_report import Background, EvaluationFacts, SplitFacts

    names, shows = evaluator.label_names, session.task.shows
    said = Said(session.task, rows, examples.rows, evaluation.predictions, names, evaluator.tokenizer)
    evidence = shows.evidence(said.predictions, columns_of(examples), names)
    facts = EvaluationFacts(split, evaluation.metrics, evaluation.details, evidence=evidence)
    folder = Path(session.models.name)
    if not folder.is_dir():  # a model of the Hub
        folder = session.output_dir
    path = metrics_path(folder, split)
    try:
        check_is_own(folder, split)
        with writing("폴더를 만들지 못했습니다", folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(path, evaluation_record(facts, rows))
    except ResourceError as error:
        _log.warning("지표를 파일에 저장하지 않습니다. %s (%s)", error.what, error.where)
        return
    _log.info("지표를 저장했습니다: %s", path)
    if session.settings.logging.report:
        told = tuple(line for own in rows.datasets() for line in own.told)
        data = SplitFacts(split, rows.where, len(rows), int(numbers(examples.table, "truncated").sum()), told)
        shown = replace(facts, cases=ranked_cases(said, evidence))
        write_evaluation(folder, shown, said, quality, Background([data], next_steps=steps), path.name)
