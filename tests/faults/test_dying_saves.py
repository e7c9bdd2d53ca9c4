"""A process that dies between any two calls to the disk leaves the old file or the new one, and a way to go on."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetuning.checkpoints.store import CheckpointStore
from finetuning.files import discard, write_json
from finetuning.models.saving import save_pretrained
from finetuning.reporting.metrics_file import MetricsFile
from finetuning.reporting.predictions import write_predictions
from finetuning.types import Checkpoint, Progress
from tests.support.dying import Disk, dies_at

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def each_death(folder: Path, prepare: Callable[[], object], act: Callable[[], object]) -> Iterator[int]:
    """Let a copy of this process do something and die at one call after the other, each time in a new folder."""
    for call in itertools.count():
        discard(folder)
        prepare()
        if not dies_at(call, folder, act):
            return
        yield call


def checkpoint(step: int, value: float) -> Checkpoint:
    weights = {"weight": torch.full((64,), value)}
    return Checkpoint(weights, weights, {}, Progress(0, step, step), {})


def value_of(store: CheckpointStore, path: Path) -> float:
    return float(store.load(path).model["weight"][0])


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_a_checkpoint_is_the_old_or_the_new_one_and_the_next_save_clears_up(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "home" / "run", keep=2)
    found = set()
    for _ in each_death(
        tmp_path / "home",
        lambda: [store.save(checkpoint(step, step)) for step in (1, 2)],
        lambda: store.save(checkpoint(3, 3.0)),
    ):
        newest = store.newest()
        assert newest is not None
        found.add(value_of(store, newest))
        assert [value_of(store, path) for path in store.folders()] in ([1, 2], [1, 2, 3], [2, 3])
        assert value_of(store, store.latest) in (2, 3)
        store.save(checkpoint(4, 4.0))
        assert names(store)[-1] == "step-00000004" and len(names(store)) == 2
        assert [path.name for path in store.latest.parent.iterdir() if "partial" in path.name] == []
    assert found == {2.0, 3.0}


def test_a_run_that_goes_back_is_never_resumed_on_the_branch_that_it_left(tmp_path: Path) -> None:
    """Once the new checkpoint of step 3 is there, the old one of step 4 is not."""
    store = CheckpointStore(tmp_path / "home" / "run", keep=9)
    found = set()
    for _ in each_death(
        tmp_path / "home",
        lambda: [store.save(checkpoint(step, step)) for step in (1, 2, 3, 4)],
        lambda: store.save(checkpoint(3, 33.0)),
    ):
        values = [value_of(store, path) for path in store.folders()]
        found.add(values[-1])
        assert values in ([1, 2, 3, 4], [1, 2, 3], [1, 2], [1, 2, 33])
        store.save(checkpoint(5, 5.0))
        assert [value_of(store, path) for path in store.folders()][:2] == [1, 2]
        assert not [name for name in names(store) if name.startswith(".")]
    assert 33.0 in found


def test_a_model_is_the_old_or_the_new_one(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    folder = tmp_path / "run"

    def save(bias: float) -> None:
        folder.mkdir(exist_ok=True)
        with torch.no_grad():
            model.cls.predictions.bias.fill_(bias)
        save_pretrained(model, tokenizer, folder, None)

    found = set()
    for _ in each_death(folder, lambda: save(1.0), lambda: save(2.0)):
        loaded = AutoModelForMaskedLM.from_pretrained(folder)
        found.add(loaded.cls.predictions.bias[0].item())
        AutoTokenizer.from_pretrained(folder)
        save(3.0)
        assert not (folder / ".model.partial").exists()
    assert found == {1.0, 2.0}


def test_what_was_saved_outlives_a_power_failure(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    disk, home = Disk(monkeypatch), tmp_path / "home"
    store, folder = CheckpointStore(home / "run", keep=2), home / "model"
    folder.mkdir(parents=True)
    metrics = MetricsFile(folder)
    metrics.add({"step": 1})
    metrics.size()
    store.save(checkpoint(1, 1.0))
    save_pretrained(model, tokenizer, folder, None)
    write_json(folder / "best.json", {"step": 1})
    metrics.add({"step": 2})
    disk.lose_power(home)
    assert store.load(store.latest).progress.step == 1
    AutoModelForMaskedLM.from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)
    assert json.loads((folder / "best.json").read_text(encoding="utf-8")) == {"step": 1}
    assert metrics.path.read_text(encoding="utf-8") == '{"step": 1}\n'


def write_csv(path: Path, value: int) -> None:
    write_predictions(path, [{"text": "좋다", "score": value}])


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("summary.json", lambda path, value: write_json(path, {"score": value}),
         lambda path: json.loads(path.read_text(encoding="utf-8"))["score"]),
        ("out.csv", write_csv, lambda path: int(path.read_text(encoding="utf-8").split(",")[-1])),
        ("out.jsonl", write_csv, lambda path: json.loads(path.read_text(encoding="utf-8"))["score"]),
    ],
)  # fmt: skip
def test_a_file_is_the_old_or_the_new_one(tmp_path: Path, name: str, write: Any, read: Any) -> None:
    folder = tmp_path / "home"

    def prepare() -> None:
        folder.mkdir()
        write(folder / name, 1)

    died = 0
    for _ in each_death(folder, prepare, lambda: write(folder / name, 2)):
        died += 1
        assert read(folder / name) in (1, 2)
        write(folder / name, 3)
        assert [path.name for path in folder.iterdir()] == [name]
    assert died > 2
