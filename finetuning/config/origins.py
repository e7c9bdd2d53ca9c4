"""Where the settings in force come from: defaults < config.yaml < preset < the user's file < flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value

_DEFAULTS = Settings()
# what decides how well a model learns, and how fast
SHOWN = (
    "training.epochs", "training.learning_rate", "data.batch_size", "memory.gradient_accumulation_steps",
    "data.max_length", "training.warmup_steps", "training.warmup_ratio", "training.lr_scheduler",
    "training.weight_decay", "training.early_stopping_patience", "training.optimizer", "model.adapter.method",
    "model.dtype", "memory.mixed_precision", "memory.gradient_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class Origins:
    """Who decided a setting.

    Attributes:
        flags: Dotted names of the settings on the command line.
        file: The settings file that the user named; None for the program's own config.yaml.
        in_file: Dotted names of the settings in that file.
        preset: Dotted name of each setting that the preset chose → its source.
        adapter: Dotted names of the settings that a saved adapter decides, as the run goes on with it.
    """

    flags: frozenset[str] = frozenset()
    file: Path | None = None
    in_file: frozenset[str] = frozenset()
    preset: Mapping[str, str] = field(default_factory=dict)
    adapter: frozenset[str] = frozenset()

    @property
    def by_user(self) -> frozenset[str]:
        """The settings that the user decided, which no preset changes."""
        return self.flags | self.in_file

    def of(self, settings: Settings, key: str) -> str:
        """Return where a setting's value comes from, as a person reads it."""
        if key in self.flags:
            return "명령줄"
        if key in self.in_file and self.file is not None:
            return self.file.name
        if key in self.preset:
            return "preset"
        if key in self.adapter:
            return "이어서 학습하는 어댑터"
        return "기본값" if value_at(settings, key) == value_at(_DEFAULTS, key) else "config.yaml"

    def lines(self, settings: Settings) -> list[str]:
        """Return a line for each setting that matters, with its value and origin, and the sources of the preset."""
        lines = [f"  {key}: {bare_value(value_at(settings, key))} ({self.of(settings, key)})" for key in SHOWN]
        keys: dict[str, list[str]] = {}
        for key, source in self.preset.items():
            keys.setdefault(source, []).append(key.rpartition(".")[2])
        lines += [f"  preset의 {', '.join(names)}: {source}" for source, names in keys.items()]
        return ["설정과 출처:", *lines]
