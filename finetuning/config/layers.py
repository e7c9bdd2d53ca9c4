"""The program's own config.yaml under a settings file that the user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetuning.config.metadata import fields_of, value_at
from finetuning.config.overrides import Override
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.config.yaml_file import read_sections

_DATA_SOURCES = ("data.dataset_name", "data.train_file", "data.mix")
# settings of `data` that do not describe one dataset; all others, and the score expected of it, belong to its source
_OF_ANY_DATA = frozenset(
    {
        "data.dataset_cache_dir", "data.cache_max_days", "data.cache_max_gb", "data.max_length", "data.batch_size",
        "data.validation_split", "data.test_split", "data.max_bad_rows", "data.normalize", "data.packing",
    }
)  # fmt: skip
# a setting that wins over another → that other; a file that states only the other means the other
_WINS_OVER = {"training.warmup_steps": "training.warmup_ratio"}


def states(sections: Mapping[str, Any], key: str) -> bool:
    """Return whether sections, as read from a file, state a setting by its dotted key."""
    return _value(sections, key) is not _ABSENT


def values_below(base: Path, path: Path | None) -> dict[str, Override]:
    """Return what the program's config.yaml adds to a settings file of the user.

    config.yaml states every setting, so only values that differ from the defaults count. A file that names its data
    has columns, labels and splits of its own: what config.yaml says of another dataset is left out.

    Args:
        base: The program's config.yaml, which may be missing.
        path: The user's file; None if they named none.

    Returns:
        Values that the file does not state, by dotted key.

    Raises:
        SettingsError: One of the files cannot be read.
    """
    if path is None or not base.is_file():
        return {}
    file, below = read_sections(path), read_sections(base)
    names_data = any(states(file, key) for key in _DATA_SOURCES)
    found: dict[str, Override] = {}
    for field in fields_of(Settings):
        value = _value(below, field.key)
        if value is _ABSENT or value == field.default or states(file, field.key):
            continue
        if names_data and _describes_data(field.key):
            continue
        if (loser := _WINS_OVER.get(field.key)) is not None and states(file, loser):
            continue
        found[field.key] = Override(value, str(base))
    return found


def note_below(base: Path, added: Mapping[str, Override], settings: Settings) -> Iterator[str]:
    """Yield a sentence on what config.yaml added, if anything of it differs from the defaults.

    Args:
        base: The program's config.yaml.
        added: What `values_below` returned.
        settings: The settings in force.

    Yields:
        The sentence.
    """
    defaults = Settings()
    changed = [key for key in added if value_at(settings, key) != value_at(defaults, key)]
    if changed:
        shown = ", ".join(f"{key}={bare_value(value_at(settings, key))}" for key in changed)
        yield f"지정한 설정 파일에 없는 키에는 {base.name}에서 바꾼 값을 적용합니다: {shown}"


_ABSENT = object()


def _value(sections: Mapping[str, Any], key: str) -> Any:
    value: Any = sections
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _describes_data(key: str) -> bool:
    section = key.partition(".")[0]
    return section == "expectation" or (section == "data" and key not in _OF_ANY_DATA)
