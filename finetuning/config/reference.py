"""Files made from the settings: config.yaml, the tables of docs/settings.md, the flag table, and the editor's schema.

`python -m finetuning.config.reference` writes them all. A test fails if one of them is stale.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetuning.config.metadata import Section, SettingField, fields_of, setting_of, subsection
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value, yaml_value

ROOT = Path(__file__).resolve().parents[2]
_COMMENT_COLUMN = 46
_CONFIG_HEADER = """\
# yaml-language-server: $schema=./schema.json
# 기본 설정입니다. 우선순위: 기본값 < 이 파일 < training.preset < --config로 지정한 파일 < 명령줄 플래그.
# 여기 없는 키를 쓰거나 값이 잘못되면, 학습을 시작하기 전에 위치와 고치는 방법을 출력하고 멈춥니다.
"""
_FLAGS_HEADER = '''\
"""Command line flags of settings, as (flag, key, help, whether it is an on/off switch).

Made by `python -m finetuning.config.reference`, so that --help need not import the schema. Do not edit.
"""

from __future__ import annotations

SETTING_FLAGS: tuple[tuple[str, str, str, bool], ...] = (
'''
_TABLE = re.compile(r"(<!-- settings: (\S+) -->\n).*?(<!-- /settings -->)", re.S)
_OTHERS = "others"  # the table of all sections without one of their own
_JSON_SCHEMA_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


@dataclass(frozen=True)
class _Language:
    """The language of a document's tables."""

    name: Literal["korean", "english"]
    header: str


DOCUMENTS = {
    "docs/settings.md": _Language("korean", "| 키 | 설명 | 기본값 |"),
    "docs/settings.en.md": _Language("english", "| Key | Meaning | Default |"),
}


def generated_files(root: Path = ROOT) -> dict[Path, str]:
    """Generate every file that is made from the settings.

    Args:
        root: Folder of the project. The documents are read there, since only their tables are replaced.

    Returns:
        The content that each file must have, by its path.
    """
    documents = {name: (root / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    return {
        root / "config.yaml": config_yaml(),
        root / "schema.json": json_schema(),
        root / "finetuning" / "config" / "flags.py": flags_module(),
        **{root / name: with_tables(text, DOCUMENTS[name]) for name, text in documents.items()},
    }


# --- config.yaml ---


def config_yaml() -> str:
    """Write every setting at its default, with its description as a comment."""
    return _CONFIG_HEADER + "".join(_yaml_lines(Settings, depth=0))


def _yaml_lines(section: type[Section], depth: int) -> Iterator[str]:
    for name, field in section.model_fields.items():
        below, comment = subsection(field), setting_of(field).korean.replace("`", "")
        if depth == 0:
            yield "\n"
        value = "" if below else f" {yaml_value(field.get_default())}"
        line = f"{'  ' * depth}{name}:{value}"
        yield f"{line.ljust(_COMMENT_COLUMN - 2)}  # {comment}\n" if comment else f"{line}\n"
        if below is not None:
            yield from _yaml_lines(below, depth + 1)


# --- tables of the settings ---


def with_tables(text: str, language: _Language) -> str:
    """Regenerate the tables of a document between `<!-- settings: SECTION -->` and `<!-- /settings -->`."""
    own = {match[2] for match in _TABLE.finditer(text)}

    def table(match: re.Match[str]) -> str:
        others = [field for field in fields_of(Settings) if field.key.partition(".")[0] not in own]
        rows = others if match[2] == _OTHERS else _of_section(match[2])
        lines = [language.header, "|---|---|---|", *(_row(field, language) for field in rows)]
        return match[1] + "\n".join(lines) + "\n" + match[3]

    return _TABLE.sub(table, text)


def _of_section(name: str) -> tuple[SettingField, ...]:
    section = subsection(Settings.model_fields[name])
    assert section is not None
    return fields_of(section)


def _row(field: SettingField, language: _Language) -> str:
    text = field.setting.in_full(language.name).replace("|", "\\|")
    return f"| `{field.key}` | {text} | `{bare_value(field.default)}` |"


# --- flags.py ---


def flags_module() -> str:
    """Generate the source of finetuning/config/flags.py."""
    rows = ((field, field.setting.flag) for field in fields_of(Settings) if field.setting.flag is not None)
    return _FLAGS_HEADER + "".join(_flag_row(field, flag) for field, flag in rows) + ")\n"


def _flag_row(field: SettingField, flag: str) -> str:
    cells = (flag, field.key, field.setting.korean.replace("`", ""), isinstance(field.default, bool))
    written = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, str) else repr(cell) for cell in cells]
    one_line = f"    ({', '.join(written)}),\n"
    if _width(one_line.rstrip()) <= 120:
        return one_line
    return "    (\n" + "".join(f"        {cell},\n" for cell in written) + "    ),\n"


def _width(text: str) -> int:
    """Return the width of a line as the formatter counts it: two columns for a Hangul syllable."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


# --- schema.json ---


def json_schema() -> str:
    """Generate the JSON schema that editors use to complete keys and mark wrong values."""
    schema = Settings.model_json_schema()
    for definition in schema["$defs"].values():
        definition.pop("description", None)  # the class's docstring; its field in Settings has a description
    cleaned = _clean(schema)
    cleaned = {"$schema": "https://json-schema.org/draft/2020-12/schema", **cleaned, "description": "학습 설정"}
    return json.dumps(cleaned, ensure_ascii=False, indent=2) + "\n"


def _clean(node: Any) -> Any:
    """Rename pydantic's bounds to JSON schema's, and drop titles and the defaults of whole sections."""
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {key: value for key, value in node.items() if key in ("$ref", "description")}
    is_title = isinstance(node.get("title"), str)  # else `title` is the name of a property
    return {
        _JSON_SCHEMA_BOUNDS.get(key, key): _clean(value)
        for key, value in node.items()
        if not (key == "title" and is_title)
    }


def write_files(root: Path = ROOT) -> None:
    """Write every file that the schema makes; root: folder of the project."""
    for path, content in generated_files(root).items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write_files()
