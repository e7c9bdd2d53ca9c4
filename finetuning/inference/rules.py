"""Rules that score an answer without a model, from 0 to 1: the more, the better. A new rule is one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetuning.korean.text_quality import GeneratedText

# Name → the rule, given the module `korean.text_quality`, which `--help` does without, and what it asks for in Korean.
RULES: Mapping[str, tuple[Callable[[ModuleType, GeneratedText], float], str]] = MappingProxyType({
    "polite": (lambda quality, answer: float(quality.is_polite(answer.text)), "존댓말로만 쓴 답"),
    "hangul": (lambda quality, answer: float(quality.hangul_share(answer.text)), "글자 가운데 한글의 비율"),
    "no-repetition": (lambda quality, answer: 1 - float(quality.repetition(answer.text)), "반복하지 않는 정도"),
    "ended": (lambda quality, answer: float(answer.ended), "최대 길이 안에서 스스로 끝난 답"),
    "unbroken": (lambda quality, answer: float(not quality.is_broken(answer.text)), "깨진 글자가 없는 답"),
})  # fmt: skip


def by_rules(names: Sequence[str]) -> Callable[[GeneratedText], float]:
    """Return the mean of some rules.

    Args:
        names: Names in `RULES`.

    Returns:
        What scores an answer.
    """
    from finetuning.korean import text_quality

    rules = [RULES[name][0] for name in names]
    return lambda answer: sum(rule(text_quality, answer) for rule in rules) / len(rules)
