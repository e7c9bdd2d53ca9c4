"""A disk that is full: one Korean error, nothing half-made; and files that others may read as the umask says."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from data_manager import DataManager
from exceptions import ResourceError, SettingsError
from finetuning.checkpoints.store import CheckpointStore
from finetuning.config.schema import ModelSettings, Settings
from finetuning.data.hub import load_hub
from finetuning.files import discard_leftovers, write_json, writing
from finetuning.models.errors import explain
from finetuning.reporting.metrics_file import MetricsFile
from finetuning.reporting.predictions import beside, check_output, write_predictions
from finetuning.tasks.registry import find_task
from finetuning.types import Checkpoint, Progress
from model_manager import ModelManager

BIG = "가" * 10_000


@pytest.fixture
def full_disk() -> Iterator[None]:
    with full_for_a_while():
        yield


@contextmanager
def full_for_a_while() -> Iterator[None]:
    """No file may grow past 8 KiB, as on a disk that is full; what pytest captures is less."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    return AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)


def models() -> ModelManager:
    return ModelManager(Settings(), find_task(Settings()))


def checkpoint() -> Checkpoint:
    weights = {"weight": torch.zeros(10_000)}
    return Checkpoint(weights, weights, {"note": "x"}, Progress(0, 1, 1), {})


def check_full(caught: pytest.ExceptionInfo[ResourceError], folder: Path, *said: str) -> None:
    """The error says what and where; below the folder nothing is left but empty folders."""
    for words in ("못했습니다", *said):
        assert words in str(caught.value)
    assert caught.value.remedy
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_model_is_saved_whole_or_not_at_all(loaded: tuple[Any, Any], tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(ResourceError) as caught:
        models().save(*loaded, tmp_path)
    check_full(caught, tmp_path, "모델을 저장", "남은 공간")


def test_weights_that_do_not_fit_on_the_disk_are_a_disk_error(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors' error is no OSError."""

    def fail(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(loaded[0], "save_pretrained", fail)
    with pytest.raises(ResourceError) as caught:
        models().save(*loaded, tmp_path)
    check_full(caught, tmp_path, "디스크가 가득 찼습니다")


def test_a_checkpoint_is_saved_whole_or_not_at_all(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(ResourceError) as caught:
        CheckpointStore(tmp_path / "run", keep=2).save(checkpoint())
    check_full(caught, tmp_path, "체크포인트를 저장", "step-00000001")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("stage", ["rows", "examples"])
def test_a_full_cache_disk_is_reported(loaded: tuple[Any, Any], tmp_path: Path, stage: str, request: Any) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "좋은 영화,1\n나쁜 영화,0\n" * 1000, encoding="utf-8")
    data = {"dataset_name": str(tmp_path / "train.csv"), "dataset_cache_dir": str(tmp_path / "cache")}
    settings = Settings.model_validate({"data": data})
    manager = DataManager(settings, find_task(settings))
    rows = manager.load_splits()["train"] if stage == "examples" else None
    before = set(tmp_path.rglob("*"))
    request.getfixturevalue("full_disk")
    with pytest.raises(ResourceError) as caught:
        if rows is None:
            manager.load_splits()
        else:
            manager.encode(rows, loaded[1], ("0", "1"), 64)
    assert "dataset_cache_dir" in caught.value.where and "dataset_cache_dir" in caught.value.remedy
    assert [path for path in set(tmp_path.rglob("*")) - before if path.is_file()] == []


def test_a_record_that_does_not_fit_waits_for_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = MetricsFile(tmp_path)
    metrics.add({"step": 1})
    size = metrics.size()
    with full_for_a_while():
        for step in (2, 3):
            metrics.add({"step": step, "text": BIG})
        with pytest.raises(ResourceError, match="학습 기록"):
            metrics.size()
        assert metrics.path.stat().st_size == size
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    metrics.add({"step": 4})
    lines = metrics.path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_unwritable_records_of_a_run_are_reported(tmp_path: Path, full_disk: None) -> None:
    for name, write in {
        "summary.json": lambda path: write_json(path, BIG),
        "out.csv": lambda path: write_predictions(path, [{"text": BIG}]),
        "out.jsonl": lambda path: write_predictions(path, [{"text": BIG}]),
    }.items():
        with pytest.raises(ResourceError) as caught:
            write(tmp_path / name)
        check_full(caught, tmp_path, name)


def test_a_full_disk_during_a_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("An error occurred while generating the dataset") from OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ResourceError, match="디스크가 가득 찼습니다") as caught:
        load_hub("nsmc", None, str(tmp_path))
    assert str(tmp_path) in caught.value.where


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_model_is_named_with_what_to_do(code: int, tmp_path: Path) -> None:
    failed = RuntimeError("could not download")
    failed.__cause__ = OSError(code, os.strerror(code))
    settings = Settings(model=ModelSettings(cache_dir=str(tmp_path)))
    error = explain(failed, "모델", "klue/roberta-base", settings, "text-classification")
    assert isinstance(error, ResourceError)
    assert str(tmp_path) in error.where and "--cache_dir" in error.remedy


def test_only_old_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / "rows.partial-999999999", tmp_path / f"rows.partial-{os.getppid()}"
    (tmp_path / "folder.partial-999999998").mkdir()
    for path in (dead, alive, tmp_path / "rows-1.arrow", tmp_path / "mine-x"):
        path.write_text("x")
    discard_leftovers(tmp_path.iterdir(), idle_s=3600)
    assert len(list(tmp_path.iterdir())) == 5
    os.utime(dead, (1, 1))
    discard_leftovers(tmp_path.iterdir(), idle_s=3600)
    assert not dead.exists()
    discard_leftovers(tmp_path.glob("*.partial-*"))
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, "rows-1.arrow", "mine-x"}


def test_only_disk_failures_are_reported_as_disk_failures(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    for error in (SafetensorError("InvalidTensorView"), ValueError("no"), KeyboardInterrupt()):
        partial.mkdir()
        with pytest.raises(type(error)), writing("못했습니다", tmp_path, partial=partial):
            raise error
        assert not partial.exists()
    with pytest.raises(ResourceError, match="읽기 전용"), writing("못했습니다", tmp_path, partial=partial):
        raise OSError(errno.EROFS, "read only")


def test_an_unwritable_output_is_reported_before_predicting(tmp_path: Path) -> None:
    check_output(None)
    check_output(tmp_path / "out.CSV")
    (tmp_path / "folder.csv").mkdir()
    for name, said in (("out.xlsx", ".csv"), ("no/out.csv", "폴더가 없습니다"), ("folder.csv", "폴더입니다")):
        with pytest.raises(SettingsError) as caught:
            check_output(tmp_path / name)
        assert said in str(caught.value) and name in caught.value.where


def test_a_column_of_the_input_stays_beside_its_prediction() -> None:
    found = beside({"id": 7, "label": "부정"}, {"label": "긍정", "score": 0.9})
    assert found == {"id": 7, "label": "부정", "predicted_label": "긍정", "score": 0.9}
    assert beside({"text": "글"}, {"label": "긍정"}) == {"text": "글", "label": "긍정"}


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
def test_saved_weights_may_be_read_as_the_umask_says(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        models().save(*loaded, tmp_path / "run")
        path = CheckpointStore(tmp_path / "run", keep=2).save(checkpoint())
    finally:
        os.umask(before)
    modes = {file: file.stat().st_mode & 0o777 for file in [*path.iterdir(), *(tmp_path / "run").glob("*.*")]}
    assert {file.name for file in modes} >= {"model.safetensors", "optimizer.safetensors", "config.json"}
    assert set(modes.values()) == {0o640}
    assert json.loads((path / "manifest.json").read_text())["files"]
