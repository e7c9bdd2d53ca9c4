"""The flags of `generate`: how many answers, what scores them, and what is kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from exceptions import SettingsError
from finetuning.inference.rules import RULES
from finetuning.korean.particles import with_particle

KEPT = ("best", "pairs", "all")
_USUAL_ANSWERS = 4
GENERATE_FLAGS = ("--num_answers", "--reward", "--rule", "--keep")


def add_generate_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the command line."""
    parser.add_argument(
        "--num_answers", metavar="개수", help=f"generate: 프롬프트마다 만들 답의 개수 (기본값: {_USUAL_ANSWERS})"
    )
    parser.add_argument("--reward", metavar="폴더", help="generate: 답에 점수를 매길 보상 모델(--task reward로 학습)")
    rules = ", ".join(f"{name}({text})" for name, (_, text) in RULES.items())
    parser.add_argument(
        "--rule", metavar="이름", help=f"generate: 답에 점수를 매길 규칙. 쉼표로 여러 개를 쓰면 평균입니다: {rules}"
    )
    parser.add_argument(
        "--keep", metavar="무엇",
        help="generate: best(가장 좋은 답을 대화 데이터로), pairs(가장 좋은 답과 가장 나쁜 답을 선호 데이터로), "
        "all(모든 답) (기본값: best)",
    )  # fmt: skip


def check_generate_flags(arguments: argparse.Namespace) -> None:
    """Check the flags of `generate`, and put the default in place of what was not given.

    Args:
        arguments: The command line.

    Raises:
        SettingsError: A value is unknown, or values do not go together.
    """
    if arguments.output is None or arguments.output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise SettingsError(
            "generate의 결과를 쓸 JSONL 파일을 --output으로 지정하세요.",
            where=f"--output: {arguments.output}",
            remedy="예: --output answers.jsonl",
        )
    count = arguments.num_answers or str(_USUAL_ANSWERS)
    if not count.isdecimal() or int(count) < 1:
        raise _wrong(f"1 이상의 정수를 써야 합니다: {count}", "--num_answers", "예: --num_answers 4")
    arguments.num_answers, arguments.keep = int(count), arguments.keep or KEPT[0]
    arguments.rule = _names(arguments.rule)
    _check_known("--keep", [arguments.keep], KEPT)
    _check_known("--rule", arguments.rule, tuple(RULES))
    if arguments.reward and arguments.rule:
        raise _wrong("점수를 매기는 방법을 두 가지 썼습니다.", "--reward, --rule", "둘 가운데 하나만 쓰세요.")
    if arguments.keep != "all" and not (arguments.reward or arguments.rule):
        raise _wrong(
            "무엇으로 답을 고를지 정하지 않았습니다.", f"--keep {arguments.keep}",
            "보상 모델은 --reward 폴더, 규칙은 --rule polite처럼 지정하세요. 고르지 않고 모두 저장하려면 --keep all을 "
            "쓰세요.",
        )  # fmt: skip
    if arguments.keep == "pairs" and arguments.num_answers == 1:
        raise _wrong("답 하나로는 쌍을 만들 수 없습니다.", "--num_answers 1, --keep pairs", "--num_answers를 늘리세요.")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _check_known(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            particle = with_particle(f"'{name}'", "은/는")
            raise _wrong(f"{particle} {flag}에 쓸 수 없습니다.", flag, f"쓸 수 있는 값: {', '.join(known)}")


def _wrong(what: str, where: str, remedy: str) -> SettingsError:
    return SettingsError(what, where=where, remedy=remedy)
