"""The ladder of cheaper settings: one order for the automatic choice, the suggestion and the error."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from finetuning.config.ladder import (
    LADDER,
    Abilities,
    Use,
    automatic_variants,
    remedies,
    suggested_variants,
    with_changes,
)
from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings

CHOICES = {
    "memory.mixed_precision": (True, False),
    "memory.gradient_checkpointing": (None, True, False),
    "data.batch_size": (3, 8),
    "generation.num_beams": (1, 4),
    "training.optimizer": ("adamw", "adamw_8bit", "adafactor"),
    "model.dtype": ("float32", "bfloat16"),
    "model.adapter.method": ("none", "lora"),
    "data.max_length": (64, 512),
}
ABLE = [Abilities(*answers) for answers in itertools.product((True, False), repeat=3)]
ERRORS: tuple[Use, ...] = ("train", "use", "load")


def all_settings() -> Iterator[Settings]:
    for values in itertools.product(*CHOICES.values()):
        yield with_changes(Settings(), dict(zip(CHOICES, values, strict=True)))


def places_of_remedies(texts: list[str]) -> list[int]:
    """Return each text's place in the ladder, by the setting and the value that it names."""
    places = []
    for text in texts:
        key, value = text.split(" (")[0].split(": ")
        places.append(
            next(
                place
                for place, rung in enumerate(LADDER)
                if rung.key == key and (key == "data.max_length" or value in str(rung.changes(_dearest(key))).lower())
            )
        )
    return places


def _dearest(key: str) -> Settings:
    """Return settings in which no rung of a key is in force."""
    dear = {"memory.mixed_precision": False, "memory.optimize_memory_usage": False, "generation.num_beams": 4}
    return with_changes(Settings(), {key: dear[key]} if key in dear else {})


def test_every_use_follows_the_order_of_the_ladder() -> None:
    for number, settings in enumerate(all_settings()):
        able = ABLE[number % len(ABLE)]
        for variants in (automatic_variants(settings, able, frozenset()), suggested_variants(settings, able)):
            if variants:
                places = [LADDER.index(rung) for rung in variants[-1].rungs]
                assert places == sorted(places)
        for use in ERRORS:
            *texts, last = remedies(settings, use)
            assert last == "더 작은 모델"
            places = places_of_remedies(texts)
            assert places == sorted(set(places))


def test_each_variant_adds_a_rung_to_the_one_before_and_changes_what_it_says() -> None:
    for number, settings in enumerate(all_settings()):
        variants = suggested_variants(settings, ABLE[number % len(ABLE)])
        for length, variant in enumerate(variants, start=1):
            assert len(variant.rungs) == length
            assert variant.settings == with_changes(settings, variant.changes)
            assert all(value_at(variant.settings, key) == value for key, value in variant.changes.items())


def test_automatic_choices_are_also_named_in_errors() -> None:
    named = {rung for rung in LADDER if "train" in rung.uses}
    assert {rung for rung in LADDER if "automatic" in rung.uses} <= named


def test_suggestions_keep_the_window_and_end_with_a_shorter_max_length() -> None:
    asked = Settings.model_validate(
        {"data": {"batch_size": 4, "max_length": 256}, "memory": {"gradient_accumulation_steps": 2}}
    )
    variants = suggested_variants(asked, Abilities(optimizer_8bit=False))
    assert [variant.flags() for variant in variants[:2]] == [
        "--set memory.gradient_checkpointing=true",
        "--set memory.gradient_checkpointing=true --set data.batch_size=2 --set memory.gradient_accumulation_steps=4",
    ]
    options = [variant.settings for variant in variants]
    assert [option.model.dtype for option in options] == ["float32"] * 3 + ["bfloat16"] * 6
    assert [option.training.optimizer for option in options] == ["adamw"] * 4 + ["adafactor"] * 5
    assert [option.model.adapter.method for option in options] == ["none"] * 5 + ["lora"] * 4
    assert [option.data.max_length for option in options] == [256] * 6 + [128, 64, 32]
    assert {option.data.batch_size * option.memory.gradient_accumulation_steps for option in options} == {8}


def test_only_rungs_that_change_no_loss_are_exact() -> None:
    asked = Settings.model_validate({"data": {"batch_size": 2}})
    exact = [variant for variant in suggested_variants(asked, Abilities()) if variant.is_exact]
    assert {key for variant in exact for key in variant.changes} == {
        "memory.gradient_checkpointing", "data.batch_size", "memory.gradient_accumulation_steps",
    }  # fmt: skip


@pytest.mark.parametrize("given", [frozenset(), frozenset({"training.optimizer", "model.dtype"})])
def test_flags_are_not_changed_automatically(given: frozenset[str]) -> None:
    changed = {key for one in automatic_variants(Settings(), Abilities(), given) for key in one.changes}
    assert changed == {"memory.gradient_checkpointing", "training.optimizer", "model.dtype"} - given
