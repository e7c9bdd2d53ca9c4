"""Background saving: it writes the state at the time of the call, one write at a time, and logs failures."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from exceptions import ResourceError
from finetuning.checkpoints import background as background_saving
from finetuning.checkpoints import manifest
from finetuning.checkpoints import store as checkpointing
from finetuning.checkpoints.background import BackgroundSaver
from finetuning.checkpoints.store import CheckpointStore
from finetuning.types import Checkpoint, Progress
from tests.support.forked import run_group
from tests.support.saves_together import save_and_change, save_and_fail


class HeldStore(CheckpointStore):
    """A store whose writes do not begin before they are let."""

    def __init__(self, output_dir: Path) -> None:
        super().__init__(output_dir, keep=2)
        self.let = threading.Event()
        self.writing, self.most_at_once = 0, 0

    def save(self, checkpoint: Checkpoint) -> Path:
        self.writing += 1
        self.most_at_once = max(self.most_at_once, self.writing)
        assert self.let.wait(60)
        path = super().save(checkpoint)
        self.writing -= 1
        return path


def checkpoint(weights: torch.Tensor, step: int) -> Checkpoint:
    model = {"embedding": weights, "head": weights}  # tied
    return Checkpoint(model, {"exp_avg/embedding": weights * 2}, {}, Progress(0, step, step), {})


def failing(code: int) -> object:
    def fail(path: Path) -> str:
        raise OSError(code, os.strerror(code), str(path))

    return fail


def test_training_goes_on_while_the_state_as_it_was_is_written(tmp_path: Path) -> None:
    store, weights = HeldStore(tmp_path / "run"), torch.ones(8)
    with BackgroundSaver(store) as saver:
        saver.save(checkpoint(weights, 1))  # returns though nothing can be written yet
        weights.mul_(7)  # as an optimizer does, in place
        assert store.newest() is None
        store.let.set()
        saver.finish()
        loaded = store.load(store.folder / "step-00000001")
    assert torch.equal(loaded.model["embedding"], torch.ones(8))
    assert torch.equal(loaded.optimizer["exp_avg/embedding"], torch.full((8,), 2.0))


def test_a_save_waits_for_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    store = HeldStore(tmp_path / "run")
    store.let.set()
    with BackgroundSaver(store) as saver:
        for step in range(1, 6):
            saver.save(checkpoint(torch.full((8,), float(step)), step))
    assert store.most_at_once == 1
    assert [path.name for path in store.folders()] == ["step-00000004", "step-00000005"]
    assert [f"스텝 {step} 체크포인트를 저장했습니다" in caplog.text for step in range(1, 6)] == [True] * 5


def test_leaving_waits_for_the_write_even_after_an_error(tmp_path: Path) -> None:
    store = HeldStore(tmp_path / "run")
    with pytest.raises(ValueError, match="diverged"), BackgroundSaver(store) as saver:
        saver.save(checkpoint(torch.ones(8), 1))
        store.let.set()
        raise ValueError("diverged")
    assert store.newest() == store.folder / "step-00000001"


@pytest.mark.parametrize("has_room", [True, False])
def test_a_failed_save_is_logged_and_retried_at_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_room: bool
) -> None:
    monkeypatch.setattr(background_saving, "available_bytes", lambda: 10**9 if has_room else 0)
    store = CheckpointStore(tmp_path / "run", keep=2)
    with BackgroundSaver(store) as saver:
        saver.save(checkpoint(torch.ones(8), 1))
        saver.wait()
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "sync_file", failing(errno.ENOSPC))
            saver.save(checkpoint(torch.ones(8), 2))
            saver.wait()
        assert "디스크가 가득 찼습니다" in caplog.text and "다시 시도합니다" in caplog.text
        assert store.newest() == store.folder / "step-00000001"
        saver.save(checkpoint(torch.ones(8), 3))
        saver.finish()
    assert store.newest() == store.folder / "step-00000003"


def test_a_failed_last_save_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "sync_file", failing(errno.EROFS))
    with BackgroundSaver(CheckpointStore(tmp_path / "run", keep=2)) as saver:
        saver.save(checkpoint(torch.ones(8), 1))
        for _ in range(2):  # it stays unsaved
            with pytest.raises(ResourceError, match="읽기 전용"):
                saver.finish()


def test_a_defect_in_the_thread_is_not_taken_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(checkpointing, "write_files", broken)
    saver = BackgroundSaver(CheckpointStore(tmp_path / "run", keep=2))
    saver.save(checkpoint(torch.ones(8), 1))
    with pytest.raises(KeyError, match="defect"):
        saver.wait()


def test_without_room_for_a_copy_it_is_written_before_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_saving, "available_bytes", lambda: 0)
    store = CheckpointStore(tmp_path / "run", keep=2)
    BackgroundSaver(store).save(checkpoint(torch.ones(8), 1))
    assert store.newest() == store.folder / "step-00000001"


def test_without_memory_for_a_copy_the_state_itself_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Checkpoint) -> Checkpoint:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")

    monkeypatch.setattr(background_saving, "copied", fail)
    store = CheckpointStore(tmp_path / "run", keep=2)
    with BackgroundSaver(store) as saver:
        saver.save(checkpoint(torch.ones(8), 1))
        assert store.newest() == store.folder / "step-00000001"  # there before it returned


def test_a_write_that_runs_out_of_memory_counts_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the run would end there, or be reported as saved."""

    def fail(path: Path) -> str:
        raise MemoryError

    store = CheckpointStore(tmp_path / "run", keep=2)
    with BackgroundSaver(store) as saver, monkeypatch.context() as patched:
        patched.setattr(manifest, "sync_file", fail)
        saver.save(checkpoint(torch.ones(8), 1))
        with pytest.raises(ResourceError, match="메모리가 부족해"):
            saver.finish()


@pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")
@pytest.mark.parametrize("memory", ["room", "none"])
def test_processes_save_what_they_divide_while_training_goes_on(memory: str, tmp_path: Path) -> None:
    done = run_group(2, [str(tmp_path / "run"), memory], tmp_path, program=save_and_change)
    assert [code for code, *_ in done] == [0, 0], done


@pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")
@pytest.mark.parametrize("error", ["memory", "defect"])
def test_a_divided_save_that_fails_in_one_process_has_failed_in_all(error: str, tmp_path: Path) -> None:
    done = run_group(2, [str(tmp_path / "run"), error], tmp_path, program=save_and_fail)
    assert [code for code, *_ in done] == [0, 0], done
