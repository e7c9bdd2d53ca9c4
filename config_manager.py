"""ConfigManager: built-in defaults < a YAML file < flags → checked settings; and writing them down."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetuning.config.layers import states
from finetuning.config.messages import explain
from finetuning.config.metadata import fields_of, value_at
from finetuning.config.overrides import Override
from finetuning.config.schema import Settings
from finetuning.config.yaml_file import read_sections
from finetuning.files import write_atomically

SAVED_SETTINGS = "settings.yaml"  # beside a fine-tuned model


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
        return _checked(values, config_path, overrides)

    @staticmethod
    def load_saved(
        folder: Path, users: Settings, overrides: Mapping[str, Override], users_alone: Collection[str] = ()
    ) -> Settings:
        """Read the settings that a fine-tuned model was saved with, to use the model.

        The folder may come from anybody. So what runs code, names a path or a Hub id to read, or chooses where to write
        is the user's alone (`user_only` in the schema), and the folder that the user named is model and output_dir.

        Args:
            folder: The model's folder, with a settings.yaml.
            users: The user's own settings, from their settings file and flags.
            overrides: Values of flags by dotted key, which win over the folder's settings.
            users_alone: Dotted names of further settings that are the user's alone here.

        Returns:
            The settings in force.

        Raises:
            SettingsError: Some are wrong.
        """
        path = folder / SAVED_SETTINGS
        values = read_sections(path)
        for field in fields_of(Settings):
            if field.setting.user_only or field.key in users_alone:
                _put(values, field.key, value_at(users, field.key))
        for key in ("model.name", "model.output_dir"):
            _put(values, key, str(folder))
        return _checked(values, path, overrides)

    @staticmethod
    def keys_in(path: Path | None) -> frozenset[str]:
        """Return the dotted names of the settings that a file states; none without a file."""
        values = read_sections(path) if path is not None else {}
        return frozenset(field.key for field in fields_of(Settings) if states(values, field.key))

    @staticmethod
    def changed(settings: Settings, overrides: Mapping[str, Override]) -> Settings:
        """Return settings with other values, checked together.

        Args:
            settings: The settings.
            overrides: Values by dotted key.

        Returns:
            The changed settings.

        Raises:
            SettingsError: Some are wrong.
        """
        return _checked(settings.model_dump(), None, overrides)

    @staticmethod
    def saved_dataset(folder: Path) -> str | None:
        """Return the (first) data that a fine-tuned model was saved with by name, to be shown and never read."""
        data = read_sections(folder / SAVED_SETTINGS).get("data")
        if not isinstance(data, dict):
            return None
        mix = data.get("mix")
        first = mix[0].get("dataset_name") if isinstance(mix, list) and mix and isinstance(mix[0], dict) else None
        name = first or data.get("train_file") or data.get("dataset_name")
        return None if name is None else str(name)

    @staticmethod
    def saved_base(folder: Path) -> str | None:
        """Return the model that the one in a folder was trained from; None where its settings name none but itself."""
        if not (folder / SAVED_SETTINGS).is_file():
            return None
        model = read_sections(folder / SAVED_SETTINGS).get("model")
        name = model.get("name") if isinstance(model, dict) else None
        is_itself = name is None or Path(str(name)).expanduser().resolve() == folder.resolve()
        return None if is_itself else str(name)

    @staticmethod
    def save(settings: Settings, path: Path) -> None:
        """Write the complete settings as YAML that `load` reads back as the same settings."""
        write_atomically(path, settings.to_yaml())


def _checked(values: dict[str, Any], path: Path | None, overrides: Mapping[str, Override]) -> Settings:
    for key, override in overrides.items():
        _put(values, key, override.value)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise explain(error, path, {key: given.source for key, given in overrides.items()}) from None


def _put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a value by its dotted key, replacing what stands in place of a section."""
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value
