"""Settings given on the command line."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from exceptions import SettingsError
from finetuning.config.messages import nearest_key
from finetuning.config.schema import all_keys
from finetuning.config.yaml_values import RepeatedKeyError, read_yaml


@dataclass(frozen=True)
class Override:
    """A setting from the command line.

    Attributes:
        value: The value, often still a string.
        source: The flag that gave it, for messages.
    """

    value: object
    source: str


def parse_assignment(text: str) -> tuple[str, object]:
    """Parse the argument of --set.

    Args:
        text: `section.key=value`.

    Returns:
        The dotted key, and the value parsed as YAML.

    Raises:
        SettingsError: The form is wrong or there is no such setting.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or "." not in key:
        raise SettingsError(
            f"--set {text}: 형식이 다릅니다.",
            where="명령줄 플래그 --set",
            remedy="섹션.키=값으로 쓰세요. 예: --set training.lr_scheduler=cosine",
        )
    if key not in all_keys():
        raise SettingsError(f"'{key}' 설정이 없습니다.", where="명령줄 플래그 --set", remedy=nearest_key(key))
    try:
        loaded = read_yaml(value)
    except RepeatedKeyError as error:
        raise SettingsError(
            f"--set {key}의 값에 {error.problem}.", where="명령줄 플래그 --set", remedy="하나만 남기세요."
        ) from None
    except yaml.YAMLError:
        return key, value
    # YAML reads a lone `|` or `>` as the start of an empty text block
    is_mark = loaded == "" and value.strip() not in {'""', "''"}
    return key, value.strip() if is_mark else loaded
