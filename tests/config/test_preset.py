"""The preset: a row for everything that is trained, enough steps, and never against the user."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest

from finetuning.config.ladder import with_changes
from finetuning.config.preset import KEYS, ROWS, Kind, Method, Row, Trained, kept, preset_values, row_for, sources
from finetuning.config.schema import Settings
from finetuning.tasks.registry import task_classes

EVERYTHING = [
    Trained(kind, method, cls.auto_class, cls.objective)
    for kind, method, cls in itertools.product(get_args(Kind), get_args(Method), task_classes().values())
    if not (kind == "encoder" and cls.auto_class in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM"))
    and not (kind != "causal" and cls.objective == "preference")
    and not (kind in ("seq2seq", "t5") and cls.objective == "contrastive")
]


def window_of(settings: Settings, processes: int) -> int:
    return settings.data.batch_size * settings.memory.gradient_accumulation_steps * processes


def test_every_training_has_a_row_with_a_source_and_every_row_is_used() -> None:
    used = {row_for(training) for training in EVERYTHING}
    assert used == set(ROWS)
    assert all(row.source for row in ROWS)
    assert all(row_for(training).is_for(training) for training in EVERYTHING)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.source[:20])
@pytest.mark.parametrize("examples", [5, 191, 586, 3_000, 150_000])
def test_small_data_gets_enough_steps_and_the_settings_are_valid(row: Row, examples: int) -> None:
    values = preset_values(row, Settings(), frozenset(), examples, 1)
    settings = with_changes(Settings(), values)
    assert Settings.model_validate(settings.model_dump()) == settings and values.keys() <= KEYS
    window, epochs = window_of(settings, 1), settings.training.epochs
    assert row.least_window <= window <= row.window
    assert epochs * math.ceil(examples / window) >= row.steps or epochs == row.most_epochs
    told = sources(row, values, Settings(), frozenset(), 1)
    assert told.keys() == values.keys() and told["training.learning_rate"] == row.source
    if examples == 150_000:
        assert (window, epochs) == (row.window, row.epochs)
        assert told["training.epochs"] == told["data.batch_size"] == row.source


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_window_is_the_same_on_several_processes(processes: int) -> None:
    for row in ROWS:
        alone = with_changes(Settings(), preset_values(row, Settings(), frozenset(), 586, 1))
        shared = with_changes(Settings(), preset_values(row, Settings(), frozenset(), 586, processes))
        assert window_of(shared, processes) == window_of(alone, 1)


def test_what_the_user_decided_stays_and_the_rest_is_chosen_around_it() -> None:
    row = ROWS[0]
    for key in KEYS:
        assert key not in preset_values(row, Settings(), frozenset({key}), 586, 1)
    given = with_changes(Settings(), {"data.batch_size": 8})
    values = preset_values(row, given, frozenset({"data.batch_size"}), 586, 1)
    assert values["memory.gradient_accumulation_steps"] * 8 == row.least_window
    steps = with_changes(Settings(), {"training.warmup_steps": 7})
    assert "training.warmup_ratio" not in preset_values(row, steps, frozenset({"training.warmup_steps"}), 586, 1)


def test_a_resumed_run_keeps_its_values_but_divides_its_window_anew() -> None:
    now = {"training.learning_rate": 5e-5, "data.batch_size": 8}
    assert kept(now, {"training.learning_rate": 1e-5, "data.batch_size": 16}) == {**now, "training.learning_rate": 1e-5}
