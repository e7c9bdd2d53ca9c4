"""evaluate --suite: a model's scores on public benchmarks, beside those of the model before training."""

from __future__ import annotations

import argparse
import gc
import logging
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from config_manager import ConfigManager
from exceptions import FinetuningError, ResourceError, SettingsError
from finetuning.cells import printable
from finetuning.commands.results import check_is_own, metrics_path
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import tell_after_use
from finetuning.models.adapter_files import base_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetuning.inference.evaluator import Evaluator
    from finetuning.reporting.suite import SuiteReport, TaskScore

    Scoring = Callable[[Evaluator], Sequence[TaskScore]]

_log = logging.getLogger(__name__)
_SPLIT = "suite"  # in the names of files, where evaluations of data have their split


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Score a saved model and the model before training; print the table to stdout and save it beside the model."""
    names = _names_in(arguments)
    _check(session)
    from finetuning.reporting.published import public_name
    from finetuning.reporting.suite import SuiteReport, TaskChange, lines_of

    scored, harness = _scoring(session, names, arguments.suite_data)
    evaluator = saved_model(session, arguments)
    folder = Path(session.models.name)
    _log.info("벤치마크로 평가합니다: %s", folder)
    after = scored(evaluator)
    del evaluator
    gc.collect()  # the base may not fit into memory beside it
    base, before = _scores_before(session, folder, scored)
    earlier = {one.name: one for one in before}
    changes = [TaskChange(one, earlier.get(one.name)) for one in after]
    report = SuiteReport(
        names, folder.name, None if base is None else public_name(base), changes, version(harness), harness
    )
    if session.runtime.is_main:
        for line in lines_of(report):
            print(printable(line))
        _write(session, folder if folder.is_dir() else session.output_dir, report)
    tell_after_use(session, arguments)


def _names_in(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the names of --suite; raise SettingsError where there are none, or other data are named beside it."""
    names = tuple(dict.fromkeys(filter(None, map(str.strip, (arguments.suite or "").split(",")))))
    if not names:
        raise SettingsError("벤치마크의 이름이 없습니다.", where="--suite", remedy="예: --suite kobest,kmmlu,haerae")
    if arguments.dataset or arguments.split or arguments.corpus:
        raise SettingsError(
            "--suite는 --dataset, --split, --corpus와 함께 쓸 수 없습니다.",
            where="명령줄",
            remedy="내 데이터와 벤치마크를 따로 평가하세요. 벤치마크 데이터의 폴더는 --suite_data로 지정합니다.",
        )
    return names


def _check(session: Session) -> None:
    if session.task.name == "embedding":
        if find_spec("mteb") is None:
            raise SettingsError(
                "벤치마크를 실행하는 mteb 패키지가 없습니다.",
                where="--suite",
                remedy="`pip install mteb -c requirements-lock.txt` 명령으로 설치하고 다시 실행하세요.",
            )
        return
    if session.task.auto_class != "AutoModelForCausalLM":
        raise SettingsError(
            f"{session.task.name} 태스크의 모델은 --suite로 평가할 수 없습니다. 생성 모델과 임베딩의 벤치마크입니다.",
            where="--suite",
            remedy="이 모델은 --dataset으로 내 데이터를 지정해 평가하세요.",
        )
    if find_spec("lm_eval") is None:
        raise SettingsError(
            "벤치마크를 실행하는 lm-eval 패키지가 없습니다.",
            where="--suite",
            remedy="`pip install lm-eval -c requirements-lock.txt` 명령으로 설치하고 다시 실행하세요.",
        )


def _scoring(session: Session, names: tuple[str, ...], data: Path | None) -> tuple[Scoring, str]:
    """Load the tasks; return what scores a model on them, and the name of the package whose tasks they are."""
    if session.task.name == "embedding":
        from finetuning.inference.suite import embedding

        tasks = embedding.load_suite(names, data)
        return lambda evaluator: embedding.suite_scores(evaluator, tasks), "mteb"
    from finetuning.inference.suite.scores import suite_scores
    from finetuning.inference.suite.tasks import load_suite

    suite = load_suite(names, data, session.settings.data.dataset_cache_dir)
    return lambda evaluator: suite_scores(evaluator, suite, session.data.cache), "lm_eval"


def _scores_before(session: Session, folder: Path, scored: Scoring) -> tuple[str | None, Sequence[TaskScore]]:
    """Score the model that training began with; nothing where there is none, or it cannot be loaded any more."""
    models = session.with_settings(session.settings, session.task).models
    try:
        base = base_of(folder) if session.models.is_adapter() else ConfigManager.saved_base(folder)
        if base is None:
            return None, ()
        models.name = base
        tokenizer = models.load_trained_tokenizer()
        _log.info("학습 전 모델도 평가합니다: %s", base)
        evaluator = session.evaluator(models.load_base, tokenizer, (), models.usable_length(tokenizer))
    except FinetuningError as error:
        _log.warning("학습 전 모델을 읽지 못해 비교하지 않습니다. %s (%s)", error.what, error.where)
        return None, ()
    return base, scored(evaluator)


def _write(session: Session, folder: Path, report: SuiteReport) -> None:
    """Save the scores beside the model and in the report of its run; tell what cannot be saved."""
    from finetuning.files import write_json, writing
    from finetuning.reporting.page.suite import add_suite
    from finetuning.reporting.suite import record_of

    try:
        check_is_own(folder, _SPLIT)
        with writing("폴더를 만들지 못했습니다", folder):
            folder.mkdir(parents=True, exist_ok=True)
        path = metrics_path(folder, _SPLIT)
        write_json(path, record_of(report))
        _log.info("벤치마크 점수를 저장했습니다: %s", path)
        page = add_suite(folder, report)
        if page is not None:
            _log.info("결과 보고서에 벤치마크 표를 넣었습니다. 브라우저로 열어 보세요: %s", page)
    except ResourceError as error:
        _log.warning("벤치마크 점수를 파일에 저장하지 않습니다. %s (%s)", error.what, error.where)
