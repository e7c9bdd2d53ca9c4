"""ConfigManager: built-in defaults < a YAML file < flags → checked settings; and writing them down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetuning.config.messages import explain
from finetuning.config.overrides import Override
from finetuning.config.schema import Settings
from finetuning.config.yaml_file import read_sections
from finetuning.files import write_atomically


class ConfigManager:
    """Reads, merges, checks and writes the settings of a run."""

    @staticmethod
    def load(config_path: Path | None, overrides: Mapping[str, Override]) -> Settings:
        """Read, merge and check the settings.

        Args:
            config_path: A YAML file, whose values win over the built-in defaults; None reads no file.
            overrides: Values of flags by dotted key, such as `training.learning_rate`, which win over the file.

        Returns:
            The settings in force.

        Raises:
            SettingsError: Some are wrong. It names every wrong key, its file or flag, and what to write instead.
        """
        values = read_sections(config_path) if config_path is not None else {}
        for key, override in overrides.items():
            _put(values, key, override.value)
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            raise explain(error, config_path, {key: given.source for key, given in overrides.items()}) from None

    @staticmethod
    def save(settings: Settings, path: Path) -> None:
        """Write the complete settings as YAML that `load` reads back as the same settings."""
        write_atomically(path, settings.to_yaml())


def _put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a value by its dotted key, replacing what stands in place of a section."""
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value
