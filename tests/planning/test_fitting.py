"""The automatic choice of cheaper settings: in the ladder's order, logged, and kept by a resumed run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from exceptions import SettingsError, StopRequested
from finetuning.config.ladder import Abilities, automatic_variants, remembered
from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.device.usage import Cgroup
from finetuning.planning.fit import choose
from memory_utils import MemoryManager
from tests.support.planning import fitting_for, fitting_of_prepared, needs, prepared_for
from tests.support.runs import StopAfter, losses, run_train

RUNGS: list[tuple[dict[str, Any], bool]] = [  # (settings chosen, whether bitsandbytes is there)
    ({"memory.gradient_checkpointing": True}, True),
    ({"memory.gradient_checkpointing": True, "training.optimizer": "adamw_8bit"}, True),
    ({"memory.gradient_checkpointing": True, "training.optimizer": "adamw_8bit", "model.dtype": "bfloat16"}, True),
    ({"memory.gradient_checkpointing": True, "model.dtype": "bfloat16"}, False),
    ({"memory.gradient_checkpointing": True, "model.dtype": "bfloat16", "training.optimizer": "adafactor"}, False),
]


def test_the_ladder_ends_with_adafactor_only_without_bitsandbytes() -> None:
    for has_8bit in (True, False):
        able = Abilities(optimizer_8bit=has_8bit)
        found = [variant.changes for variant in automatic_variants(Settings(), able, given=frozenset())]
        assert found == [chosen for chosen, with_it in RUNGS if with_it == has_8bit or len(chosen) == 1]


@pytest.mark.parametrize(("chosen", "has_8bit"), RUNGS)
def test_each_rung_is_chosen_where_it_is_the_first_that_fits(
    chosen: dict[str, Any], has_8bit: bool, flags_for: Callable[[str], list[str]],
    short_of_memory: Callable[[int, bool], None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ladder = automatic_variants(Settings(), Abilities(optimizer_8bit=has_8bit), given=frozenset())
    short = next(needs(variant.settings) for variant in ladder if variant.changes == chosen)
    short_of_memory(short, has_8bit)
    fitting = fitting_for(flags_for("text-classification"))
    with caplog.at_level(logging.INFO):
        changes, _ = choose(fitting)
    assert changes == chosen
    said = next(record.message for record in caplog.records if "자동으로 적용합니다" in record.message)
    assert all(f"{key}={str(value).lower()}" in said for key, value in chosen.items())


@pytest.mark.parametrize(
    "flags",
    [
        ["--set", "memory.optimize_memory_usage=false"],
        ["--set", "memory.gradient_checkpointing=false", "--set", "training.optimizer=adafactor", "--set",
         "model.dtype=bfloat16"],
        ["--set", "memory.gradient_checkpointing=false", "--set", "training.optimizer=adamw", "--set",
         "model.dtype=float32"],
    ],
)  # fmt: skip
def test_settings_of_the_user_are_not_changed(
    flags: list[str], flags_for: Callable[[str], list[str]],
    short_of_memory: Callable[[int, bool], None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    short_of_memory(1, False)
    fitting = fitting_for([*flags_for("text-classification"), *flags])
    assert fitting.automatic() == []
    changes, _ = choose(fitting)
    assert changes == {}
    assert "메모리가 부족할 수 있습니다" in caplog.text


def test_a_resumed_run_keeps_chosen_settings_even_with_enough_memory(
    flags_for: Callable[[str], list[str]],
    short_of_memory: Callable[[int, bool], None], tmp_path: Path,
) -> None:  # fmt: skip
    flags, chosen = flags_for("text-classification"), RUNGS[-1][0]
    whole, halved = tmp_path / "whole" / "model", tmp_path / "halved" / "model"
    named = [part for key, value in chosen.items() for part in ("--set", f"{key}={str(value).lower()}")]
    run_train([*flags, *named, "--output_dir", str(whole)], StopAfter())
    short_of_memory(65, False)
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], StopAfter(looks=3))
    short_of_memory(10**12, True)
    run_train([*flags, "--output_dir", str(halved), "--resume"], StopAfter())
    assert losses(halved) == losses(whole)
    assert (halved / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    kept = yaml.safe_load((halved / "settings.yaml").read_text(encoding="utf-8"))
    assert {key: kept[key.split(".")[0]][key.split(".")[1]] for key in chosen} == chosen


def test_a_setting_of_the_user_wins_over_a_checkpoint() -> None:
    asked = Settings.model_validate({"training": {"optimizer": "adafactor"}})
    chosen = {"training.optimizer": "adamw_8bit", "model.dtype": "bfloat16"}
    found = remembered(asked, chosen, given=frozenset())
    assert (found.training.optimizer, found.model.dtype) == ("adafactor", "bfloat16")
    assert remembered(Settings(), chosen, given={"model.dtype"}).model.dtype == "float32"


def test_a_flag_equal_to_the_default_wins_over_a_checkpoint(
    flags_for: Callable[[str], list[str]],
    short_of_memory: Callable[[int, bool], None], tmp_path: Path,
) -> None:  # fmt: skip
    flags = [*flags_for("text-classification"), "--output_dir", str(tmp_path / "model")]
    short_of_memory(65, False)
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=3))
    with pytest.raises(SettingsError, match="달라") as error:
        run_train([*flags, "--resume", "--set", "model.dtype=float32"], StopAfter())
    assert "model.dtype: 체크포인트 bfloat16 / 지금 float32" in error.value.where


def test_a_session_passes_new_settings_to_all_its_parts(flags_for: Callable[[str], list[str]]) -> None:
    session = prepared_for(flags_for("fill-mask"))[0].session
    model = session.settings.model.model_copy(update={"dtype": "bfloat16"})
    other = session.with_settings(session.settings.model_copy(update={"model": model}), session.task)
    assert {part.settings.model.dtype for part in (other, other.task, other.models)} == {"bfloat16"}
    assert other.task.name == session.task.name


def test_the_process_with_the_least_memory_decides(
    flags_for: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else one would train with other weights or another optimizer than the next."""
    gib = 2**30
    monkeypatch.setattr(MemoryManager, "limit", lambda self: 10 * gib)
    monkeypatch.setattr(MemoryManager, "used", lambda self: gib)
    prepared, tokenizer, length = prepared_for(flags_for("text-classification"))
    alone = fitting_of_prepared(prepared, tokenizer, length)

    class BesideOneWithLess(Runtime):  # by a GiB in use, and by one of its machine
        def maxima(self, values: Sequence[float]) -> tuple[float, ...]:
            return tuple(value + gib for value in values)

    two: Any = replace(prepared.session, runtime=BesideOneWithLess(prepared.session.runtime.accelerator))
    beside = fitting_of_prepared(replace(prepared, session=two), tokenizer, length)
    assert (alone.taken, alone.limit) == (gib, 10 * gib)
    assert (beside.taken, beside.limit) == (2 * gib, 9 * gib)


@pytest.mark.parametrize(("written", "limit"), [("2147483648\n", 2**31), ("max\n", None)])
def test_a_container_limit_may_be_below_the_memory_of_the_machine(
    written: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(written, encoding="utf-8")
    whole = int(psutil.virtual_memory().total)
    monkeypatch.setattr("finetuning.device.usage.CGROUPS", (Cgroup(tmp_path / "none"), Cgroup(tmp_path)))
    assert MemoryManager(Settings(), torch.device("cpu"), 64).limit() == min(limit or whole, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_ulimit_may_be_below_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    memory, now = MemoryManager(Settings(), torch.device("cpu"), 64), psutil.Process().memory_info()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (now.vms + 2**28 + 2**30, resource.RLIM_INFINITY))
    assert abs(memory.limit() - memory.used() - 2**30) < 2**26
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert memory.limit() > 2**31
