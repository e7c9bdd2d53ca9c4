"""How wrong settings are reported: which key, where it was written, its value, and what to write instead."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exceptions import SettingsError
from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings, all_keys
from finetuning.config.value_types import bare_value

# what helps where the Hub cannot be reached
WITHOUT_INTERNET = "인터넷 없이 해 보려면: python finetuning_app.py --config recipes/quickstart.yaml"
_LONGEST_SHOWN = 60
_BOUNDS = {
    "greater_than": "{gt}보다 커야 합니다",
    "greater_than_equal": "{ge} 이상이어야 합니다",
    "less_than": "{lt}보다 작아야 합니다",
    "less_than_equal": "{le} 이하여야 합니다",
}


@dataclass(frozen=True)
class _Problem:
    """One wrong setting: its dotted key, the error, and the remedy."""

    key: str
    what: str
    remedy: str


def explain(error: ValidationError, path: Path | None, sources: Mapping[str, str]) -> SettingsError:
    """Turn pydantic's error into one error that names every wrong key.

    Args:
        error: The error that `Settings.model_validate` raised.
        path: The settings file, or None if only defaults and flags were read.
        sources: The flag that gave a setting, by dotted key.

    Returns:
        The error, with a Korean message.
    """
    file = str(path) if path is not None else "기본값"
    problems = list(_problems(error, sources))
    places = [f"{sources.get(problem.key, file)}, {problem.key}" for problem in problems]
    if len(problems) == 1:
        return SettingsError(problems[0].what, where=places[0], remedy=problems[0].remedy)
    lines = [f"\n  - {place}: {problem.what} {problem.remedy}" for place, problem in zip(places, problems, strict=True)]
    return SettingsError(f"설정 {len(problems)}개가 잘못되었습니다.{''.join(lines)}", where=file)


def nearest_key(key: str) -> str:
    """Suggest the setting that was probably meant: the same name in another section, or the most similar one."""
    keys, (section, _, name) = all_keys(), key.rpartition(".")
    elsewhere = [known for known in keys if known.endswith(f".{name}")]
    if elsewhere:
        return f"혹시 {elsewhere[0]}입니까?"
    if not section:
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        sections = ", ".join(Settings.model_fields)
        return f"혹시 {near[0]}입니까? 섹션: {sections}" if near else f"쓸 수 있는 섹션: {sections}"
    siblings = [known for known in keys if known.startswith(f"{section}.")]
    near = difflib.get_close_matches(key, siblings, n=1) or difflib.get_close_matches(key, keys, n=1)
    if near:
        return f"혹시 {near[0]}입니까?"
    return f"쓸 수 있는 키: {', '.join(siblings or keys)}"


def shorten(value: object) -> str:
    """Show a value as Python spells it, cut to 60 characters; YAML references can build an endless one."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _LONGEST_SHOWN
    short.maxlevel = 2
    text = short.repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def _problems(error: ValidationError, sources: Mapping[str, str]) -> Iterator[_Problem]:
    """Yield each wrong setting once, although pydantic may list several errors for it."""
    seen: set[str] = set()
    for detail in error.errors():
        key = _key_at(detail["loc"])
        if key in seen:
            continue
        seen.add(key)
        if detail["type"] == "extra_forbidden":
            yield _Problem(key, f"'{key}' 설정이 없습니다.", nearest_key(key))
        else:
            yield _Problem(
                key, f"값 {shorten(detail['input'])}: {_requirement(detail)}.", f"예: {_example(key, sources.get(key))}"
            )


def _key_at(location: Sequence[int | str]) -> str:
    """Return the key of the setting at pydantic's error location, which may end in list items or union members."""
    parts = [str(part) for part in location]
    known = all_keys()
    return next((key for end in range(len(parts)) if (key := ".".join(parts[: end + 1])) in known), ".".join(parts))


def _requirement(detail: ErrorDetails) -> str:
    """Describe in one phrase what the value must be."""
    context, kind = detail.get("ctx", {}), detail["type"]
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    if kind == "literal_error":
        return f"다음 가운데 하나를 쓰세요: {context['expected'].replace(' or ', ', ')}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_too_short":
        return "비워 둘 수 없습니다"
    if kind.startswith("string"):
        is_word = isinstance(detail["input"], bool)
        return "문자열을 써야 합니다" + (" (on, off, yes, no는 따옴표로 감싸세요)" if is_word else "")
    if kind.startswith("bool"):
        return "true 또는 false를 써야 합니다"
    if kind.startswith("int"):
        return "정수를 써야 합니다"
    if kind.startswith("float"):
        return "숫자를 써야 합니다"
    return "쓸 수 없는 값입니다"


def _example(key: str, source: str | None) -> str:
    """Write a setting at its default as its source would: as a flag or as a line of YAML; a section by its name."""
    name, default = key.rpartition(".")[2], value_at(Settings(), key)
    if isinstance(default, BaseModel):
        return f"{name}:"
    if source is None:
        return f"{name}: {bare_value(default)}"
    return f"--set {key}={bare_value(default)}" if source == "--set" else f"{source} {bare_value(default)}"
