"""Rules that score an answer without a model, from 0 to 1: the more, the better. A new rule is one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from finetuning.korean.text_quality import GeneratedText, hangul_share, is_broken, is_polite, repetition

Rule = Callable[[GeneratedText], float]

# Name → the rule, and what it asks for in Korean.
RULES: Mapping[str, tuple[Rule, str]] = MappingProxyType({
    "polite": (lambda answer: float(is_polite(answer.text)), "존댓말로만 쓴 답"),
    "hangul": (lambda answer: hangul_share(answer.text), "글자 가운데 한글의 비율"),
    "no-repetition": (lambda answer: 1 - repetition(answer.text), "반복하지 않는 정도"),
    "ended": (lambda answer: float(answer.ended), "최대 길이 안에서 스스로 끝난 답"),
    "unbroken": (lambda answer: float(not is_broken(answer.text)), "깨진 글자가 없는 답"),
})  # fmt: skip


def by_rules(names: Sequence[str]) -> Rule:
    """Return the mean of some rules.

    Args:
        names: Names in `RULES`.

    Returns:
        A rule.
    """
    rules = [RULES[name][0] for name in names]
    return lambda answer: sum(rule(answer) for rule in rules) / len(rules)
