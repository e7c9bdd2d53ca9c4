"""A changed setting on resume: what may change does, what would corrupt progress is refused with both values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import SettingsError
from finetuning.checkpoints.fingerprint import fingerprint
from finetuning.config.schema import Settings
from finetuning.training.schedules import schedule_of
from finetuning.types import Checkpoint
from finetuning.windows.order import Window
from tests.support.managers import make_manager
from training_manager import TrainingManager

TASK = "text-classification"


def halfway(model: Path, output_dir: Path) -> Checkpoint:
    """The checkpoint after the first of two epochs (3 windows each)."""
    manager = make_manager(model, output_dir, TASK, torch.float32)
    manager.run()
    return manager.store.load(manager.store.folder / "step-00000003")


def fingerprint_of(manager: TrainingManager) -> dict[str, Any]:
    """The fingerprint of a manager as it is now."""
    length, precision = manager.evaluator.max_length, manager.runtime.precision
    return fingerprint(
        manager.settings, manager.model, manager.train_examples, {}, length, manager.window_size, precision
    )


def changed(manager: TrainingManager, section: str, **values: Any) -> TrainingManager:
    """Give the manager other settings, and the fingerprint that they make."""
    settings = Settings.model_validate(
        {**manager.settings.model_dump(), section: {**getattr(manager.settings, section).model_dump(), **values}}
    )
    manager.settings = settings
    manager.window_size = settings.data.batch_size * settings.memory.gradient_accumulation_steps
    manager.fingerprint = fingerprint_of(manager)
    return manager


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("training", {"seed": 7}, "training.seed: 체크포인트 42 / 지금 7"),
        ("data", {"batch_size": 8}, "프로세스 수: 체크포인트 8 / 지금 16"),
        ("fill_mask", {"mask_probability": 0.5}, "fill_mask.mask_probability: 체크포인트 0.15 / 지금 0.5"),
        ("model", {"adapter": {"method": "lora"}}, "model.adapter.method: 체크포인트 none / 지금 lora"),
    ],
)
def test_changes_that_corrupt_progress_are_always_refused(
    tiny_model: Path, tmp_path: Path, section: str, values: dict[str, Any], said: str
) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    for allow_changed in (False, True):
        manager = changed(make_manager(tiny_model, tmp_path, TASK, torch.float32), section, **values)
        with pytest.raises(SettingsError) as error:
            manager.restore(checkpoint, True, allow_changed)
        assert said in error.value.where
        assert "--allow_changed" not in error.value.remedy


def test_an_order_that_is_made_in_another_way_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    monkeypatch.setattr("finetuning.windows.order._MOST_IN_MEMORY", 1)
    manager = make_manager(tiny_model, tmp_path, TASK, torch.float32)
    with pytest.raises(SettingsError) as error:
        manager.restore(checkpoint, True, True)
    assert "예제의 순서" in error.value.where
    manager = make_manager(tiny_model, tmp_path / "anew", TASK, torch.float32)
    manager.run()
    again = make_manager(tiny_model, tmp_path / "anew", TASK, torch.float32)
    again.restore(again.store.load(again.store.folder / "step-00000003"), True)
    again.run()
    whole, resumed = (one.model.state_dict() for one in (manager, again))
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_changes_of_future_steps_need_allow_changed(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    for allow_changed in (False, True):
        manager = changed(make_manager(tiny_model, tmp_path, TASK, torch.float32), "training", learning_rate=1e-3)
        if allow_changed:
            manager.restore(checkpoint, True, allow_changed)
            result = manager.train_window(manager.plan(Window(0, 0, np.arange(8))))
            assert result.lr == pytest.approx(1e-3 * 0.5)
            assert "training.learning_rate: 체크포인트 2e-05 / 지금 0.001" in caplog.text
        else:
            with pytest.raises(SettingsError, match="이어서 학습할 수 없습니다") as error:
                manager.restore(checkpoint, True, allow_changed)
            assert "--allow_changed" in error.value.remedy


def test_more_epochs_are_allowed_and_the_new_schedule_is_logged(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    manager = make_manager(tiny_model, tmp_path, TASK, torch.float32, epochs=4)
    manager.restore(checkpoint, True)
    assert "training.epochs: 체크포인트 2 / 지금 4" in caplog.text
    assert "1e-05가 아니라 1.5e-05" in caplog.text
    state = manager.run()
    assert state.step == 12
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "eval"] == [1, 2, 3, 4]
    last = next(line for line in reversed(lines) if line["kind"] == "train")
    assert last["lr"] == pytest.approx(2e-5 * schedule_of(manager.settings.training, 12)(11))


def test_fewer_epochs_than_are_done_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    halfway(tiny_model, tmp_path)
    manager = make_manager(tiny_model, tmp_path, TASK, torch.float32, epochs=1)
    with pytest.raises(SettingsError, match="이미 6스텝까지"):
        manager.restore(manager.store.load(manager.store.latest), True)


def test_another_cut_of_the_same_window_is_allowed(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    manager = make_manager(tiny_model, tmp_path, TASK, torch.float32)
    manager = changed(changed(manager, "data", batch_size=2), "memory", gradient_accumulation_steps=4)
    changed(manager, "training", save_steps=1, eval_steps=2, save_total_limit=5)
    manager.restore(checkpoint, True)
    assert manager.run().step == 6


def test_other_tokens_or_frozen_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = halfway(tiny_model, tmp_path)
    manager = make_manager(tiny_model, tmp_path, TASK, torch.float32)
    lengths = manager.train_examples.lengths.copy()
    lengths[3] += 1
    object.__setattr__(manager.train_examples, "lengths", lengths.astype(np.int32))
    manager.fingerprint = fingerprint_of(manager)
    with pytest.raises(SettingsError) as error:
        manager.restore(checkpoint, True)
    assert error.value.where == "토큰의 내용이 다릅니다"
    found = set()
    for value in (0.0, 0.0, 1.0):
        manager = make_manager(tiny_model, tmp_path, TASK, torch.float32)
        for parameter in manager.model.base_model.parameters():
            parameter.requires_grad_(False).fill_(value)
        found.add(fingerprint_of(manager)["학습하지 않는 가중치의 내용"])
    assert len(found) == 2
