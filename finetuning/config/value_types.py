"""Types of setting values: what YAML and flags spell as a checked Python value, and how a value is spelled."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from finetuning.cells import as_label
from finetuning.config.yaml_values import read_yaml
from finetuning.files import user_path


def _parse_number(value: object) -> object:
    """Parse a string that spells a number, such as YAML 1.1's `2e-5` or a flag's value; reject booleans."""
    if isinstance(value, bool):
        raise ValueError("숫자를 써야 합니다")
    if isinstance(value, str):
        try:
            return float(value) if any(letter in value.casefold() for letter in ".enf") else int(value)
        except ValueError:
            raise ValueError("숫자를 써야 합니다") from None
    return value


def _parse_prefix(value: object) -> object:
    """Read `query: `, which is a key without a value to YAML, as the text that it is."""
    return f"{next(iter(value))}: " if isinstance(value, dict) and list(value.values()) == [None] else value


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("유한한 숫자를 써야 합니다")
    return value


def _parse_boolean(value: object) -> object:
    """Parse the strings `true` and `false`, as a flag spells them."""
    if isinstance(value, str) and value.casefold() in {"true", "false"}:
        return value.casefold() == "true"
    return value


def _check_log_format(value: str) -> str:
    try:
        logging.Formatter(value).format(logging.makeLogRecord({"msg": "", "levelname": "INFO"}))
    except (ValueError, KeyError, TypeError):
        raise ValueError("logging 모듈의 형식이 아닙니다. 예: %(asctime)s - %(levelname)s - %(message)s") from None
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _check_record_path(value: str) -> str:
    if not re.fullmatch(r"(?:[^.\[\]]+|\[\*\])(?:\[\*\]|\.[^.\[\]]+)*", value):
        raise ValueError("키는 점으로 잇고 목록에는 [*]를 붙입니다. 예: data[*].paragraphs[*]")
    return value


def _as_label(value: object) -> object:
    """Read a number or a boolean as the label that such a cell of the data is."""
    return value if value is None or isinstance(value, list | dict) else as_label(value)


Text = Annotated[str, Field(min_length=1, strict=True)]
Prefix = Annotated[str, BeforeValidator(_parse_prefix), Field(strict=True)]
PathText = Annotated[Text, AfterValidator(user_path)]  # or a Hub id; a saved settings.yaml has no `~`
Label = Annotated[str, BeforeValidator(_as_label), Field(min_length=1)]
Integer = Annotated[int, BeforeValidator(_parse_number), Field(strict=True)]
Number = Annotated[float, BeforeValidator(_parse_number), AfterValidator(_check_finite)]
Boolean = Annotated[bool, BeforeValidator(_parse_boolean), Field(strict=True)]

PositiveInteger = Annotated[Integer, Field(ge=1)]
NonNegativeInteger = Annotated[Integer, Field(ge=0)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NonNegativeNumber = Annotated[Number, Field(ge=0)]

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
LogFormat = Annotated[Text, AfterValidator(_check_log_format)]
RecordPath = Annotated[Text, AfterValidator(_check_record_path)]


# --- how values are written ---


def yaml_value(value: object) -> str:
    """Format a value as config.yaml spells it: text in quotes, and 2e-5 rather than 2e-05."""
    if isinstance(value, float):
        return re.sub(r"e([+-])0+", r"e\1", repr(value)).replace("e+", "e")
    return json.dumps(value, ensure_ascii=False)


def bare_value(value: object) -> str:
    """Format a value like `yaml_value`, but text without quotes if YAML reads it as the same text."""
    try:
        is_plain = isinstance(value, str) and read_yaml(value) == value
    except yaml.YAMLError:
        is_plain = False
    return str(value) if is_plain else yaml_value(value)
