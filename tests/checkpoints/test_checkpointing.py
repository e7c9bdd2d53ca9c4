"""Checkpoints: exact, whole or not at all, and broken ones passed over."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import ModelError, ResourceError
from finetuning.checkpoints import manifest
from finetuning.checkpoints import store as checkpointing
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.tensors import optimizer_tensors, restore_optimizer
from finetuning.types import Checkpoint, Progress
from tests.support.checkpoints import damage


class Tied(torch.nn.Module):
    """An embedding whose weights are the output's too, as in most language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 6)
        self.middle = torch.nn.Linear(6, 6)
        self.head = torch.nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.embedding(ids)))


def train(model: Tied, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = torch.randint(0, 11, (7,), generator=torch.Generator().manual_seed(step))
        torch.nn.functional.cross_entropy(model(ids), ids).backward()
        optimizer.step()
        optimizer.zero_grad()


def names_of(model: torch.nn.Module) -> dict[torch.nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def checkpoint_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Checkpoint:
    tensors, numbers = optimizer_tensors(optimizer, names_of(model))
    state = {"optimizer": numbers, "loss": 0.1 + 0.2}
    return Checkpoint(model.state_dict(), tensors, state, Progress(1, 2, step), {"seed": 42})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "models" / "run", keep=2)


def saved(store: CheckpointStore, *steps: int) -> list[Path]:
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    train(model, optimizer, range(2))
    return [store.save(checkpoint_of(model, optimizer, step)) for step in steps]


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"amsgrad": True}])
def test_training_goes_on_bit_for_bit(store: CheckpointStore, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    train(model, optimizer, range(3))
    path = store.save(checkpoint_of(model, optimizer, 3))
    train(model, optimizer, range(3, 6))

    other = Tied()
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=0.1, **options)
    loaded = store.load(path)
    other.load_state_dict(loaded.model)
    restore_optimizer(other_optimizer, names_of(other), loaded.optimizer, loaded.state["optimizer"])
    train(other, other_optimizer, range(3, 6))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.progress == Progress(1, 2, 3)
    assert loaded.state["loss"] == 0.1 + 0.2
    assert loaded.fingerprint == {"seed": 42}


def test_rotation_keeps_the_newest_and_latest_points_to_them(store: CheckpointStore) -> None:
    paths = saved(store, 1, 2, 10)
    assert [path.exists() for path in paths] == [False, True, True]
    assert store.newest() == paths[-1]
    assert store.load(store.latest).progress.step == 10


def test_saving_a_step_again_replaces_it(store: CheckpointStore) -> None:
    saved(store, 4, 4)
    assert store.load(store.latest).progress.step == 4
    assert [path.name for path in store.folder.iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("how", ["removed", "truncated", "flipped"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_broken_checkpoint_is_named_and_skipped(
    store: CheckpointStore, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = saved(store, 1, 2)
    damage(newer / name, how)
    with pytest.raises(ModelError) as error:
        store.load(newer)
    assert name in error.value.what or name == "manifest.json" or "형식" in error.value.what
    assert str(newer) in error.value.where
    assert store.newest() == older
    assert str(newer) in caplog.text


def test_a_checkpoint_of_another_format_names_both(store: CheckpointStore) -> None:
    (path,) = saved(store, 1)
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    with pytest.raises(ModelError, match=r"형식\(2\)이 이 버전의 형식\(3\)과 달라") as error:
        store.load(path)
    assert "--model_name" in error.value.remedy


def test_a_manifest_cannot_lead_out_of_its_folder(store: CheckpointStore) -> None:
    (path,) = saved(store, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {"../" + name: fact for name, fact in manifest["files"].items()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        store.load(path)


def test_half_made_checkpoints_of_dead_processes_are_removed(store: CheckpointStore) -> None:
    leftover = store.folder / ".step-00000009.partial-999999999"
    leftover.mkdir(parents=True)
    saved(store, 1)
    assert not leftover.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_keeps_the_last_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (older,) = saved(store, 1)

    def failing(path: Path) -> str:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(manifest, "sync_file", failing)
    with pytest.raises(ResourceError) as error:
        saved(store, 2)
    assert error.value.exit_code == 5
    monkeypatch.undo()
    assert store.newest() == older
    assert [path.name for path in store.folder.iterdir()] == [older.name]


def test_a_disk_that_is_too_small_is_reported_before_writing(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, 1)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checkpointing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match="공간이 부족해"):
        saved(store, 2)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]


def test_where_links_fail_a_file_points_to_the_latest(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    saved(store, 1, 2)
    assert store.latest.is_file()
    assert store.load(store.latest).progress.step == 2


def test_a_folder_of_the_users_own_is_left_alone(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    store.latest.mkdir(parents=True)
    (store.latest / "mine.txt").write_text("mine")
    saved(store, 1)
    assert (store.latest / "mine.txt").read_text() == "mine"
    assert "checkpoint-latest" in caplog.text


def test_a_folder_without_links_is_reported_once(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target == store.latest:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    saved(store, 1, 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "checkpoint-latest" in caplog.text and "쓰기 권한" in caplog.text
    assert store.newest() == store.folder / "step-00000002"
    assert [path.name for path in store.latest.parent.iterdir()] == ["run"]


def test_a_path_that_is_not_a_checkpoint_is_refused(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="체크포인트가 없습니다"):
        store.load(tmp_path / "nowhere")


def test_going_on_from_an_older_checkpoint_leaves_the_later_ones_behind(store: CheckpointStore) -> None:
    saved(store, 20, 30)
    assert [path.name for path in store.later_than(20)] == ["step-00000030"]
    (newer,) = saved(store, 25)  # of a run that went on from step 20
    assert store.newest() == newer == store.latest.resolve()
    assert [path.name for path in store.folders()] == ["step-00000020", "step-00000025"]


@pytest.mark.parametrize("name", ["step-best", "step-00000004-backup", "step-99999999.bak", "step-1"])
def test_copies_of_the_users_in_checkpoints_are_left_alone(store: CheckpointStore, name: str) -> None:
    (older,) = saved(store, 4)
    shutil.copytree(older, store.folder / name)
    saved(store, 5, 6, 7)
    assert store.newest() == store.folder / "step-00000007"
    assert {path.name for path in store.folder.iterdir()} == {"step-00000006", "step-00000007", name}


@pytest.mark.parametrize("kind", ["file", "link", "pointer"])
def test_a_checkpoint_latest_of_the_users_own_is_left_alone(
    store: CheckpointStore, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.latest.parent.mkdir(parents=True)
    if kind == "link":
        (store.latest.parent / "mine").mkdir()
        store.latest.symlink_to("mine")
    else:
        store.latest.write_text("mine" if kind == "file" else "../mine/step-00000004", encoding="utf-8")
    before = str(store.latest.readlink()) if kind == "link" else store.latest.read_text(encoding="utf-8")
    saved(store, 1, 2)
    after = str(store.latest.readlink()) if kind == "link" else store.latest.read_text(encoding="utf-8")
    assert after == before
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "checkpoint-latest" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="no name has a line break there")
def test_the_link_to_a_run_with_a_line_break_in_its_name_is_renewed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "a\nb", keep=2)
    saved(store, 1, 2)
    assert store.load(store.latest).progress.step == 2
