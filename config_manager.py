"""How settings are read and checked: built-in defaults, then a YAML file, then flags; mistakes are told in Korean."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exceptions import SettingsError
from finetuning.config.schema import Settings


@dataclass(frozen=True)
class Override:
    """A setting that was given on the command line; source: the flag, for messages."""

    value: object
    source: str


class ConfigManager:
    """Reads settings: built-in defaults < YAML file < overrides."""

    @staticmethod
    def load(config_path: Path | None, overrides: Mapping[str, Override]) -> Settings:
        """The settings in force; overrides: dotted keys such as `training.learning_rate`.

        Raises SettingsError that names every wrong key at once: its file or flag, its value, and what to write.
        """
        values = _read_yaml(config_path) if config_path is not None else {}
        sources: dict[str, str] = {}
        for key, override in overrides.items():
            *sections, name = key.split(".")
            place = values
            for section in sections:
                if not isinstance(place.get(section), dict):
                    place[section] = {}
                place = place[section]
            place[name] = override.value
            sources[key] = override.source
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            raise _explain(error, config_path, sources) from None


def parse_assignment(text: str) -> tuple[str, object]:
    """`section.key=value` of --set as its dotted key and the value that YAML reads; SettingsError where malformed."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or "." not in key:
        raise SettingsError(
            f"--set {text}: 형식이 다릅니다.",
            where="명령줄 플래그 --set",
            remedy="섹션.키=값으로 쓰세요. 예: --set training.lr_scheduler=cosine",
        )
    if key not in all_keys():
        raise SettingsError(f"'{key}' 설정이 없습니다.", where="명령줄 플래그 --set", remedy=_nearest(key))
    try:
        loaded = yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value
    is_mark = loaded == "" and value.strip() not in {'""', "''"}  # `|` and `>` begin a text block in YAML
    return key, value.strip() if is_mark else loaded


def all_keys() -> list[str]:
    """Every setting as `section.key`, in the order of config.yaml."""
    return list(_keys_of(Settings))


def _keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


# --- the file ---


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys: of two values for one key, one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key_node.value}' 키가 두 번 있습니다", key_node.start_mark
                )
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The file's sections; SettingsError where it cannot be read as a mapping of sections."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError("설정 파일이 없습니다.", where=str(path), remedy="--config의 경로를 확인하세요.") from None
    except UnicodeDecodeError:
        raise SettingsError(
            "설정 파일이 UTF-8이 아닙니다.", where=str(path), remedy="편집기에서 UTF-8로 다시 저장하세요."
        ) from None
    except OSError as error:
        reason = "폴더입니다" if path.is_dir() else str(error.strerror or error)
        raise SettingsError(
            f"설정 파일을 읽을 수 없습니다: {reason}", where=str(path), remedy="파일 경로와 읽기 권한을 확인하세요."
        ) from None
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path} {mark.line + 1}번째 줄 {mark.column + 1}번째 칸" if mark else str(path)
        raise SettingsError(
            f"YAML 문법이 틀렸습니다: {error.problem or error.context}",
            where=place,
            remedy="그 줄과 바로 윗줄의 들여쓰기, 콜론(:), 따옴표를 확인하세요.",
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise SettingsError(
            f"YAML로 읽을 수 없습니다: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=str(path),
            remedy="config.yaml을 본보기로 다시 쓰세요.",
        ) from None
    return _sections(loaded, path)


def _sections(loaded: object, path: Path) -> dict[str, Any]:
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(
            "설정 파일이 '섹션: 키: 값' 모양이 아닙니다.", where=str(path), remedy="config.yaml을 본보기로 쓰세요."
        )
    sections: dict[str, Any] = {}
    for name, content in loaded.items():
        if content is not None and not isinstance(content, dict) and name in Settings.model_fields:
            raise SettingsError(
                f"'{name}' 섹션 아래에는 '키: 값'이 있어야 합니다. 지금 값: {_shown(content)}",
                where=f"{path}, {name}",
                remedy="값을 다음 줄에 들여 써서 '키: 값'으로 쓰세요.",
            )
        sections[str(name)] = (
            {str(key): value for key, value in content.items()} if isinstance(content, dict) else content
        )
        if content is None:
            sections[str(name)] = {}
    return sections


# --- messages ---


def _explain(error: ValidationError, path: Path | None, sources: Mapping[str, str]) -> SettingsError:
    """Every wrong key in one error, a line each: where it was written, its value, and what to write instead."""
    file = str(path) if path is not None else "기본값"
    problems = list(_problems(error))
    places = [f"{sources.get(key, file)}, {key}" for key, _, _ in problems]
    if len(problems) == 1:
        return SettingsError(problems[0][1], where=places[0], remedy=problems[0][2])
    lines = [f"\n  - {place}: {what} {fix}" for place, (_, what, fix) in zip(places, problems, strict=True)]
    return SettingsError(f"설정 {len(problems)}개가 틀렸습니다.{''.join(lines)}", where=file)


def _problems(error: ValidationError) -> Iterator[tuple[str, str, str]]:
    """(key, what is wrong, what to write) of each wrong setting, once a key."""
    seen: set[str] = set()
    for detail in error.errors():
        key = _key_at(detail["loc"])
        if key in seen:
            continue
        seen.add(key)
        if detail["type"] == "extra_forbidden":
            yield key, f"'{key}' 설정이 없습니다.", _nearest(key)
        else:
            yield key, f"값 {_shown(detail['input'])}: {_wanted(detail)}.", f"예: {_default(key)}"


def _key_at(place: Sequence[int | str]) -> str:
    """The setting that pydantic's place of an error is in: below a key it names a list's items, or a union's types."""
    parts = [str(part) for part in place]
    known = all_keys()
    return next((key for end in range(len(parts)) if (key := ".".join(parts[: end + 1])) in known), ".".join(parts))


def _shown(value: object) -> str:
    """A value as Python spells it, its beginning where it is long: YAML's references can make one without end."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxlevel = 2
    text = short.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wanted(detail: ErrorDetails) -> str:
    """What a value should have been, in one phrase."""
    context, kind = detail.get("ctx", {}), detail["type"]
    bounds = {
        "greater_than": "{gt}보다 커야 합니다",
        "greater_than_equal": "{ge} 이상이어야 합니다",
        "less_than": "{lt}보다 작아야 합니다",
        "less_than_equal": "{le} 이하여야 합니다",
    }
    if kind in bounds:
        return bounds[kind].format(**context)
    if kind == "literal_error":
        return f"다음 가운데 하나를 쓰세요: {context['expected'].replace(' or ', ', ')}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_too_short":
        return "비워 둘 수 없습니다"
    if kind.startswith("string"):
        is_word = isinstance(detail["input"], bool)
        return "글자를 써야 합니다" + (" (on, off, yes, no는 따옴표로 감싸세요)" if is_word else "")
    if kind.startswith("bool"):
        return "true 또는 false를 써야 합니다"
    if kind.startswith("int"):
        return "정수를 써야 합니다"
    if kind.startswith("float"):
        return "숫자를 써야 합니다"
    return "쓸 수 없는 값입니다"


def _default(key: str) -> str:
    """A setting at its default, as YAML has it; a section by its name alone."""
    *sections, name = key.split(".")
    place: Any = Settings()
    for section in sections:
        place = getattr(place, section)
    default = getattr(place, name)
    if isinstance(default, BaseModel):
        return f"{name}:"
    return f"{name}: {'null' if default is None else str(default).lower() if isinstance(default, bool) else default}"


def _nearest(key: str) -> str:
    """The setting that was probably meant: the same name in another section, or else the most alike."""
    keys, (section, _, name) = all_keys(), key.rpartition(".")
    elsewhere = [known for known in keys if known.endswith(f".{name}")]
    if elsewhere:
        return f"{elsewhere[0]} 자리에 쓰세요."
    if not section:
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        sections = ", ".join(Settings.model_fields)
        return f"혹시 {near[0]}입니까? 섹션: {sections}" if near else f"쓸 수 있는 섹션: {sections}"
    siblings = [known for known in keys if known.startswith(f"{section}.")]
    near = difflib.get_close_matches(key, siblings, n=1) or difflib.get_close_matches(key, keys, n=1)
    if near:
        return f"혹시 {near[0]}입니까?"
    return f"쓸 수 있는 키: {', '.join(siblings or keys)}"
