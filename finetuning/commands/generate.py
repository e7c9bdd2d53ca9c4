"""generate: several answers to each prompt, scored by a reward model or a rule; the best become training data."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.commands.chat import check_converses
from finetuning.commands.session import Session, load_saved_model, saved_model
from finetuning.commands.sharing import lines_for_all
from finetuning.commands.what_next import tell
from finetuning.config.ladder import with_changes
from finetuning.files import command_of_this_program, discard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetuning.config.schema import GenerationSettings
    from finetuning.inference.choosing import Candidate, Left
    from finetuning.korean.text_quality import GeneratedText
    from finetuning.tasks.generation.decoding import Decoding

_log = logging.getLogger(__name__)
_MARK = ".partial"  # ends the name of the file that keeps answers until all are made
_TRAINED_BY = {"best": "text-generation", "pairs": "preference"}


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Draw answers to the prompts of a file or of standard input, and write what is kept of them as JSONL.

    The batches that are made are kept beside the output, so the same command goes on after a stop.

    Args:
        session: The session.
        arguments: The command line.

    Raises:
        SettingsError: The model does not converse, or the settings draw no answers.
        DataError: The prompts cannot be read.
    """
    from finetuning.inference.choosing import Left, kept_rows
    from finetuning.reporting.predictions import write_predictions

    session.runtime.on_main(lambda: _check_output(arguments.output))
    check_converses(session)
    session = session.with_settings(with_changes(session.settings, {"text_generation.format": "chat"}), session.task)
    rows, answers = _answers(session, arguments)
    scored, left = _scored(session, rows, answers, arguments), Left()
    if session.runtime.is_main:
        write_predictions(arguments.output, kept_rows(rows, scored, arguments.keep, left))
        discard(_journal_path(arguments.output))
        _tell_counts(scored, left, arguments)
        tell(_steps(session, arguments))


def _answers(session: Session, arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[list[GeneratedText]]]:
    """Return the prompts, clean rows of conversations, and the answers to each; the model is free afterwards."""
    from finetuning.inference.sampling import Sampler
    from finetuning.models.weights import hash_of_weights
    from finetuning.tasks.generation.causal import CausalScorer

    evaluator = saved_model(session, arguments)
    source = session.data.load_unlabelled(arguments.input, lines_for_all(session.runtime))
    rows: list[dict[str, Any]] = [dict(row) for clean, _ in source.chunks() for row in clean.table]
    scorer = session.task.scores
    assert isinstance(scorer, CausalScorer)  # or `check_converses` had refused it
    decoding = _decoding(session.settings.generation, evaluator.model, arguments.num_answers)
    _log.info("%s", decoding.line())
    sampler = Sampler(evaluator, scorer, decoding, arguments.num_answers, hash_of_weights(evaluator.model))
    answers = sampler.sample(rows, _journal_path(arguments.output))
    evaluator.memory.clean_up()
    return rows, answers


def _decoding(options: GenerationSettings, model: PreTrainedModel, count: int) -> Decoding:
    """Return how answers are drawn: several need a temperature, 1 where neither the user nor the model says one."""
    from finetuning.tasks.generation.decoding import decoding_of

    found = decoding_of(options, model, is_measured=False)
    if count == 1 or found.samples:
        return found
    if options.temperature == 0 or (options.num_beams or 1) > 1:
        raise SettingsError(
            f"이 설정으로는 답 {count}개가 모두 같습니다.",
            where=f"generation.temperature: {options.temperature}, generation.num_beams: {options.num_beams}",
            remedy="--set generation.temperature=1 --set generation.num_beams=1을 붙이거나, --num_answers 1로 하나만 "
            "만드세요.",
        )
    options = options.model_copy(update={"num_beams": 1})
    found = decoding_of(options, model, is_measured=False)
    return (
        found
        if found.samples
        else decoding_of(options.model_copy(update={"temperature": 1.0}), model, is_measured=False)
    )


def _scored(
    session: Session, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[GeneratedText]],
    arguments: argparse.Namespace,
) -> list[list[Candidate]]:  # fmt: skip
    """Score the answers by the reward model or the rules of the command line; without either, they have no score."""
    from finetuning.inference.choosing import Candidate
    from finetuning.inference.rules import by_rules

    if arguments.reward:
        scores = _rewards(session, arguments.reward, rows, answers)
    elif arguments.rule:
        rule = by_rules(arguments.rule)
        scores = [rule(one) for own in answers for one in own]
    else:
        scores = [None for own in answers for _ in own]
    following = iter(scores)
    return [[Candidate(one.text, one.ended, next(following)) for one in own] for own in answers]


def _rewards(
    session: Session, reward: str, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[GeneratedText]]
) -> list[float | None]:
    """Return the reward of each answer; None for an empty one."""
    from finetuning.data.sources import Raw
    from finetuning.inference.choosing import answered, conversation_of
    from finetuning.inference.predictor import Predictor

    judge = _reward_session(session, reward)
    texts = [
        {"messages": [], "tools": None} | answered(conversation_of(row), one.text)
        for row, own in zip(rows, answers, strict=True)
        for one in own
    ]
    _log.info("보상 모델로 답 %s개에 점수를 매깁니다: %s", f"{len(texts):,}", judge.models.name)
    source = judge.data.unlabelled(Raw("만든 답", ("messages", "tools"), texts, key=""))
    return [row.get("reward") for row in Predictor(load_saved_model(judge)).predict(source)]


def _reward_session(session: Session, reward: str) -> Session:
    """Return a session with a reward model: a run of the task `reward`, or a model of the Hub."""
    from config_manager import SAVED_SETTINGS, ConfigManager
    from finetuning.commands.run_folder import newest_run
    from finetuning.tasks.preference.reward import RewardScorer
    from finetuning.tasks.registry import find_task

    folder = newest_run(Path(reward).expanduser()).path
    if (folder / SAVED_SETTINGS).is_file():
        settings = ConfigManager.load_saved(folder, session.settings, {})
    else:
        name = str(folder) if folder.is_dir() else reward
        settings = with_changes(session.settings, {"model.name": name, "model.task": "reward"})
    task = find_task(settings)
    if not isinstance(task.scores, RewardScorer):
        raise ModelError(
            f"{task.name} 태스크의 모델이며 보상 모델이 아닙니다.",
            where=f"--reward {reward}",
            remedy="--task reward로 학습한 모델의 폴더를 지정하세요. 예: recipes/reward.yaml",
        )
    return replace(session.with_settings(settings, task), output_dir=folder)


def _check_output(path: Path) -> None:
    """Check that the answers can be written, and over no file: they may have taken days to make."""
    from finetuning.reporting.predictions import check_output

    check_output(path)
    if path.exists():
        raise SettingsError(
            "이미 있는 파일입니다. 만들어 둔 답을 덮어쓰지 않습니다.",
            where=f"--output {path}",
            remedy="다른 이름을 쓰거나, 필요 없는 파일이면 지우고 다시 실행하세요.",
        )


def _journal_path(output: Path) -> Path:
    return output.with_name(output.name + _MARK)


def _tell_counts(scored: Sequence[Sequence[Candidate]], left: Left, arguments: argparse.Namespace) -> None:
    """Log how many answers were made and scored, and how many prompts gave nothing."""
    scores = [one.score for own in scored for one in own if one.score is not None]
    parts = [f"프롬프트 {len(scored):,}개에 답을 {arguments.num_answers:,}개씩 만들었습니다"]
    if scores:
        best = [max(one.score for one in own if one.score is not None) for own in scored if _any_score(own)]
        parts.append(f"점수 평균: 모든 답 {math.fsum(scores) / len(scores):.4f}, 가장 좋은 답 "
                     f"{math.fsum(best) / len(best):.4f}")  # fmt: skip
    unended = sum(not one.ended for own in scored for one in own)
    if unended:
        parts.append(f"최대 길이까지 끝나지 않은 답 {unended:,}개(generation.max_new_tokens)")
    parts += [f"저장하지 않음: {reason} {count:,}개" for reason, count in left.prompts.items()]
    _log.info("%s", ". ".join(parts))


def _any_score(own: Sequence[Candidate]) -> bool:
    return any(one.score is not None for one in own)


def _steps(session: Session, arguments: argparse.Namespace) -> list[Any]:
    """Return the training that the file is for."""
    from finetuning.reporting.next_steps import NextStep

    task = _TRAINED_BY.get(arguments.keep)
    if task is None:
        return []
    name = session.models.name
    words = ("--task", task, "--model_name", name, "--dataset", arguments.output, "--output_dir", f"{name}-{task}")
    return [NextStep("train", "이 데이터로 이어서 학습하기", command_of_this_program("train", *words))]
