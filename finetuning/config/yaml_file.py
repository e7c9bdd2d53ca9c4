"""Read a settings file: YAML with sections of keys. Errors name the line and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from exceptions import SettingsError, first_line_of
from finetuning.config.messages import shorten
from finetuning.config.schema import Settings
from finetuning.config.yaml_values import read_yaml
from finetuning.files import similar_name

_LONGEST = 1 << 20  # characters; the longest settings file has some hundred lines
_MISTAKES = (  # how PyYAML's message begins, what it means
    ("found character '\\t'", "들여쓰기에 탭이 있습니다. 탭을 공백으로 바꾸세요."),
    (
        "found unknown escape character",
        "큰따옴표 안에 역슬래시(\\)가 있습니다. 역슬래시를 두 번 쓰거나 작은따옴표로 감싸세요.",
    ),
    ("could not find expected ':'", "바로 윗줄에 콜론(:)이 없습니다."),
    ("sequence entries are not allowed", "목록의 '-'가 키와 같은 줄에 있습니다. 다음 줄에 쓰세요."),
    ("expected '<document start>'", "들여쓰기가 첫 줄과 맞지 않습니다."),
    ("expected the node content", "값이 있어야 할 자리에 쉼표나 닫는 괄호가 있습니다."),
    ("expected alphabetic or numeric character", "특수 문자로 시작하는 값에 따옴표가 없습니다."),
    ("found character", "특수 문자로 시작하는 값에 따옴표가 없습니다."),
    ("found undefined alias", "특수 문자로 시작하는 값에 따옴표가 없습니다."),
    ("mapping values are not allowed", "콜론(:)이 든 값에 따옴표가 없거나, 윗줄에 콜론이 없습니다."),
    ("found unexpected end of stream", "닫는 따옴표가 없습니다."),
    ("expected ',' or", "닫는 괄호나 쉼표가 없습니다."),
    (
        "expected <block end>",
        "들여쓰기가 윗줄과 맞지 않거나, 닫는 괄호가 더 있거나, 따옴표로 감싼 값 뒤에 다른 글자가 있습니다.",
    ),
)
_QUOTED = {  # the mark that ended a value before more text, and what to write instead
    "'": "값 안의 작은따옴표는 두 번('') 쓰거나, 값 전체를 큰따옴표로 감싸세요. 값 뒤에 덧붙인 글자면 지우세요.",
    '"': '값 안의 큰따옴표는 \\"로 쓰거나, 값 전체를 작은따옴표로 감싸세요. 값 뒤에 덧붙인 글자면 지우세요.',
}


def read_sections(path: Path) -> dict[str, Any]:
    """Read a settings file.

    Args:
        path: The file.

    Returns:
        Keys and values by section. The values are not checked yet.

    Raises:
        SettingsError: The file cannot be read, is not YAML, or is not a mapping of sections.
    """
    text = _read_text(path)
    try:
        loaded = read_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path} {mark.line + 1}번째 줄 {mark.column + 1}번째 칸" if mark else str(path)
        said = _mistake(error.problem or error.context or "")
        remedy = "그 줄과 바로 윗줄의 들여쓰기, 콜론(:), 따옴표를 확인하세요."
        before = text[: error.problem_mark.index].rstrip(" ")[-1:] if error.problem_mark else ""
        if before in _QUOTED and (error.problem or "").endswith("'<scalar>'"):
            said, remedy = "따옴표로 감싼 값 뒤에 다른 글자가 있습니다.", _QUOTED[before]
        raise SettingsError(f"YAML 문법 오류입니다: {said}", where=place, remedy=remedy) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise SettingsError(
            f"YAML로 읽을 수 없습니다: {first_line_of(error)}",
            where=str(path),
            remedy="config.yaml을 참고해 다시 쓰세요.",
        ) from None
    return _as_sections(loaded, path)


def _mistake(problem: str) -> str:
    """Return what PyYAML found, in Korean where it is a usual mistake."""
    return next((said for start, said in _MISTAKES if problem.startswith(start)), problem)


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST)
    except FileNotFoundError:
        raise SettingsError(
            "설정 파일이 없습니다.", where=str(path), remedy=f"{similar_name(path)}--config의 경로를 확인하세요."
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(
            "설정 파일이 UTF-8이 아닙니다.", where=str(path), remedy="편집기에서 UTF-8로 다시 저장하세요."
        ) from None
    except OSError as error:
        reason = "폴더입니다" if path.is_dir() else str(error.strerror or error)
        raise SettingsError(
            f"설정 파일을 읽을 수 없습니다: {reason}", where=str(path), remedy="파일 경로와 읽기 권한을 확인하세요."
        ) from None
    if len(text) == _LONGEST:
        raise SettingsError(
            f"설정 파일이 {_LONGEST:,}자를 넘습니다.",
            where=str(path),
            remedy="--config에 데이터나 모델 파일을 쓰지 않았는지 확인하세요.",
        )
    return text


def _as_sections(loaded: object, path: Path) -> dict[str, Any]:
    """Check that the YAML is a mapping of sections. A section without keys counts as empty."""
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(
            "설정 파일이 '섹션: 키: 값' 형식이 아닙니다.", where=str(path), remedy="config.yaml을 참고해 쓰세요."
        )
    sections: dict[str, Any] = {}
    for name, content in loaded.items():
        if content is not None and not isinstance(content, dict) and name in Settings.model_fields:
            raise SettingsError(
                f"'{name}' 섹션 아래에는 '키: 값'이 있어야 합니다. 지금 값: {shorten(content)}",
                where=f"{path}, {name}",
                remedy="값을 다음 줄에 들여 써서 '키: 값'으로 쓰세요.",
            )
        is_section = isinstance(content, dict)
        sections[str(name)] = {str(key): value for key, value in content.items()} if is_section else content
        if content is None:
            sections[str(name)] = {}
    return sections
