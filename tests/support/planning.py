"""The estimate of a run's memory, made without training."""

from __future__ import annotations

from typing import Any

from finetuning.commands.fitting import fitting_of
from finetuning.commands.session import Prepared, prepare
from finetuning.config.schema import Settings
from finetuning.planning.fit import Fitting
from finetuning_app import build_parser, build_session, overrides_in, read_settings
from tests.support.runs import StopAfter


def prepared_for(flags: list[str]) -> tuple[Prepared, Any, int]:
    """Return a run's data and session, its tokenizer, and its length in tokens."""
    arguments = build_parser().parse_args(flags)
    given = frozenset(overrides_in(arguments))
    session = build_session(read_settings(arguments), StopAfter(), given, settings_file=arguments.config)
    tokenizer = session.models.load_tokenizer()
    length = session.models.usable_length(tokenizer)
    return prepare(session, tokenizer, length), tokenizer, length


def fitting_of_prepared(prepared: Prepared, tokenizer: Any, length: int) -> Fitting:
    examples = prepared.examples
    return fitting_of(
        prepared.session, tokenizer, prepared.label_names, length, examples["train"], examples["validation"]
    )


def fitting_for(flags: list[str]) -> Fitting:
    return fitting_of_prepared(*prepared_for(flags))


def needs(settings: Settings) -> int:
    """Return bytes that stand for what a run takes: less on each rung."""
    optimizer = {"adamw": 20, "adamw_8bit": 10, "adafactor": 5}[settings.training.optimizer]
    recomputed = 30 if settings.memory.gradient_checkpointing else 0
    return 100 - recomputed + optimizer - 10 * (settings.model.dtype == "bfloat16")
