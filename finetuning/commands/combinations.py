"""What a sweep varies: lists and ranges on the command line, and the combinations of their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from exceptions import SettingsError
from finetuning.config.metadata import value_at
from finetuning.config.overrides import Override, parse_assignment
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.files import content_key

OUTPUT_DIR = "model.output_dir"
_RANGE = re.compile(r"\s*([-+.\deE]+?)\.\.([-+.\deE]+)\s*")
_NOT_IN_NAMES = re.compile(r"[^\w.=+-]+")
_LONGEST_NAME = 80
_SMALL = 1e-3  # numbers below are written as 1e-4
_MOST = 1000
_LOG_RATIO = 3  # a range of positive numbers whose ends differ at least so much is searched by magnitude


@dataclass(frozen=True)
class Listed:
    """Values to try of one setting.

    Attributes:
        key: The setting.
        values: The values, as they were written.
    """

    key: str
    values: tuple[str, ...]

    def written(self) -> str:
        """Return the values as on the command line."""
        return ",".join(self.values)


@dataclass(frozen=True)
class Range:
    """A range to search for one setting.

    Attributes:
        key: The setting.
        low: The lowest value.
        high: The highest value.
        is_whole: Whether the values are integers.
    """

    key: str
    low: float
    high: float
    is_whole: bool

    def written(self) -> str:
        """Return the range as on the command line."""
        return f"{self.low:g}..{self.high:g}"

    @property
    def is_log(self) -> bool:
        """Whether values are drawn by their magnitude."""
        return not self.is_whole and self.low > 0 and self.high >= _LOG_RATIO * self.low


Axis = Listed | Range


@dataclass(frozen=True)
class Combination:
    """One run of a group.

    Attributes:
        values: The varied settings, checked, by dotted key.
        settings: All settings of the run.
    """

    values: Mapping[str, Any]
    settings: Settings

    def words(self) -> list[str]:
        """Return the flags that give the varied settings."""
        return [word for key, value in self.values.items() for word in ("--set", f"{key}={bare_value(value)}")]

    def name(self) -> str:
        """Return the name of its folder, such as `learning_rate=3e-5,epochs=2`."""
        lasts = [key.rpartition(".")[2] for key in self.values]
        names = [last if lasts.count(last) == 1 else key for key, last in zip(self.values, lasts, strict=True)]
        parts = [f"{name}={_in_name(value)}" for name, value in zip(names, self.values.values(), strict=True)]
        text = ",".join(parts)
        return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}-{content_key(text)[:6]}"


def _in_name(value: object) -> str:
    """Write a value as a part of a name that needs no quotes: 1e-4, and only the last part of a path or an id."""
    if isinstance(value, float) and 0 < abs(value) < _SMALL:
        digits, exponent = f"{value:e}".split("e")
        return f"{digits.rstrip('0.')}e{int(exponent)}"
    last = bare_value(value).rstrip("/").rpartition("/")[2]
    return _NOT_IN_NAMES.sub("-", last).strip("-")


def axes_in(assignments: Sequence[str]) -> tuple[list[Axis], list[str]]:
    """Split the arguments of --set into those that vary a setting and those that give it one value.

    Args:
        assignments: `section.key=value`, where the value may be a list (`1e-5,3e-5`) or a range (`1e-5..5e-5`).

    Returns:
        What is varied, and the other assignments.

    Raises:
        SettingsError: A range is upside down, or a setting is varied twice.
    """
    axes: dict[str, Axis] = {}
    fixed: list[str] = []
    for text in assignments:
        key, _, value = text.partition("=")
        axis = _axis(key.strip(), value)
        if axis is None:
            fixed.append(text)
            continue
        if axis.key in axes:
            raise SettingsError(
                f"--set {axis.key}: 값의 목록이 두 번 있습니다.", where="명령줄", remedy="하나로 합쳐 쓰세요."
            )
        axes[axis.key] = axis
    return list(axes.values()), fixed


def grid(settings: Settings, axes: Sequence[Listed]) -> list[Combination]:
    """Build every combination of listed values, the last setting varying fastest.

    Args:
        settings: The settings that all runs share.
        axes: What is varied.

    Returns:
        The combinations.

    Raises:
        SettingsError: A value is wrong, or there are too many combinations.
    """
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > _MOST:
        raise SettingsError(
            f"조합이 {count:,}개입니다. {_MOST:,}개까지 학습합니다.",
            where="명령줄 플래그 --set",
            remedy="값을 줄이세요.",
        )
    keys = [axis.key for axis in axes]
    choices = product(*(axis.values for axis in axes))
    return [combination(settings, dict(zip(keys, values, strict=True))) for values in choices]


def normalized(settings: Settings, axes: Sequence[Axis]) -> list[Axis]:
    """Write listed values as the settings hold them, so that 1e-5 and 0.00001 are one.

    Args:
        settings: The settings that all runs share.
        axes: What is varied.

    Returns:
        The same, with each value once.

    Raises:
        SettingsError: A value is wrong.
    """
    return [_normalized(settings, axis) if isinstance(axis, Listed) else axis for axis in axes]


def combination(settings: Settings, written: Mapping[str, str]) -> Combination:
    """Check the values of one combination.

    Args:
        settings: The settings that all runs share.
        written: Values by dotted key, as they are written on the command line.

    Returns:
        The combination, with the values as the settings hold them.

    Raises:
        SettingsError: A value is wrong.
    """
    from config_manager import ConfigManager

    parsed = dict(parse_assignment(f"{key}={text}") for key, text in written.items())
    one = ConfigManager.changed(settings, {key: Override(value, "--set") for key, value in parsed.items()})
    return Combination({key: value_at(one, key) for key in parsed}, one)


def _normalized(settings: Settings, axis: Listed) -> Listed:
    values = (combination(settings, {axis.key: text}).values[axis.key] for text in axis.values)
    return Listed(axis.key, tuple(dict.fromkeys(map(bare_value, values))))


def _axis(key: str, value: str) -> Axis | None:
    ends = _RANGE.fullmatch(value)
    if ends:
        low, high = (_number(end, key) for end in ends.groups())
        if low >= high:
            raise SettingsError(
                f"--set {key}={value}: 범위의 앞이 뒤보다 작아야 합니다.",
                where="명령줄 플래그 --set",
                remedy=f"작은 값을 앞에 쓰세요. 예: --set {key}={ends[2]}..{ends[1]}",
            )
        return Range(key, low, high, all(re.fullmatch(r"[-+]?\d+", end) for end in ends.groups()))
    values = tuple(dict.fromkeys(_parts(value)))
    return Listed(key, values) if len(values) > 1 else None


def _number(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"--set {key}: 범위의 끝이 숫자가 아닙니다: {text}",
            where="명령줄 플래그 --set",
            remedy="숫자 두 개를 ..으로 이으세요. 예: --set training.learning_rate=1e-5..5e-5",
        ) from None


def _parts(value: str) -> Iterator[str]:
    """Split at commas, but not inside brackets, braces and quotes; empty parts are left out."""
    depth, quote, part = 0, "", ""
    for letter in value:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        if letter == "," and depth <= 0 and not quote:
            yield from filter(None, [part.strip()])
            part = ""
        else:
            part += letter
    yield from filter(None, [part.strip()])
