"""Faults of the disk, of checkpoints, of the data and of numbers, made to happen in whole runs of the command."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from exceptions import ResourceError, SettingsError, StopRequested
from finetuning.checkpoints import manifest
from finetuning.tasks.classification.single import LabelScorer
from tests.support.checkpoints import damage
from tests.support.runs import StopAfter, losses, run_train

TASK = "text-classification"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
DAMAGES = ("removed", "truncated", "flipped")
SAMPLE = {("model.safetensors", "flipped"), ("state.json", "truncated"), ("manifest.json", "removed")}
Flags = Callable[[str], list[str]]


class Failing:
    """The last call of a write, which fails at these calls of it (from 0) as a disk of that errno does."""

    def __init__(self, calls: range, code: int) -> None:
        self.calls, self.code, self.count = calls, code, 0
        self.real = manifest.sync_folder

    def __call__(self, folder: Path) -> None:
        if ".partial-" in folder.name:
            self.count += 1
            if self.count - 1 in self.calls:
                raise OSError(self.code, os.strerror(self.code), str(folder))
        self.real(folder)


class During(StopAfter):
    """Does something once, after so many steps, and never asks for a stop."""

    def __init__(self, steps: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.steps, self.act = steps, act

    def pending(self) -> int | None:
        self.steps -= 1
        if self.steps == 0:
            self.act()
        return None


@pytest.fixture
def flags(flags_for: Flags) -> list[str]:
    """A run of ten steps that saves after every second."""
    return [*flags_for(TASK), "--set", "training.save_steps=2"]


@pytest.fixture
def whole(flags: list[str], tmp_path: Path) -> Path:
    """The output_dir of a run that nothing disturbed."""
    output_dir = tmp_path / "whole" / "model"
    run_train([*flags, "--output_dir", str(output_dir)], StopAfter())
    return output_dir


def check_like(output_dir: Path, whole: Path) -> None:
    assert losses(output_dir) == losses(whole)
    assert (output_dir / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not [path for path in output_dir.rglob("*") if "partial" in path.name or path.name == ".lock"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_failed_save_is_logged_and_the_run_goes_on(
    flags: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(manifest, "sync_folder", Failing(range(1, 3), code))
    run_train([*flags, "--output_dir", str(tmp_path / "run" / "model")], StopAfter())
    check_like(tmp_path / "run" / "model", whole)
    told = [record.getMessage() for record in caplog.records if record.name == "finetuning.checkpoints.background"]
    told = [line for line in told if "저장했습니다" not in line]
    assert ["저장하지 못했습니다" in line and "다시 시도합니다" in line for line in told] == [True, True]


def test_a_disk_that_stays_full_ends_the_run_with_its_last_checkpoint(
    flags: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*flags, "--output_dir", str(tmp_path / "run" / "model")]
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "sync_folder", Failing(range(1, 1000), errno.ENOSPC))
        with pytest.raises(ResourceError, match="디스크가 가득 찼습니다") as error:
            run_train(flags, StopAfter())
    assert error.value.exit_code == 5 and "--resume" in error.value.remedy
    assert [path.name for path in (tmp_path / "run" / "model" / "checkpoints").iterdir()] == ["step-00000002"]
    run_train([*flags, "--resume"], StopAfter())
    check_like(tmp_path / "run" / "model", whole)


def test_a_stop_without_a_saved_state_is_not_reported_as_saved(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "sync_folder", Failing(range(1, 1000), errno.ENOSPC))
    with pytest.raises(ResourceError, match="저장하지 못했습니다"):
        run_train([*flags, "--output_dir", str(tmp_path / "run" / "model")], StopAfter(looks=4))


class FullFor:
    """`save_pretrained` of a model on a disk that is full at these calls of it (from 0)."""

    def __init__(self, calls: range) -> None:
        self.calls, self.count, self.real = calls, 0, PreTrainedModel.save_pretrained

    def patched(self) -> Callable[..., None]:
        def save_pretrained(model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
            self.count += 1
            if self.count - 1 in self.calls:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.real(model, *args, **kwargs)

        return save_pretrained


def scoring(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Make the evaluations to come score as given, and the later ones as the last."""
    real, coming = LabelScorer.metrics, chain(scores, repeat(scores[-1]))

    def metrics(scorer: LabelScorer, *args: Any) -> dict[str, float]:
        return {**real(scorer, *args), scorer.best_metric: next(coming)}

    monkeypatch.setattr(LabelScorer, "metrics", metrics)


def test_a_best_model_that_the_disk_does_not_take_does_not_end_the_run(
    flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, run, flags = tmp_path / "whole" / "model", tmp_path / "run" / "model", flags_for(TASK)
    scoring(monkeypatch, 0.5, 0.75)
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    scoring(monkeypatch, 0.5, 0.75)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", FullFor(range(1)).patched())
    run_train([*flags, "--output_dir", str(run)], StopAfter())
    assert "모델을 저장하지 못했습니다: 디스크가 가득 찼습니다." in caplog.text
    assert "학습을 계속하고, 더 나은 모델이 나오면" in caplog.text
    check_like(run, whole)


@pytest.mark.parametrize("full_for", [1, 100])
def test_a_best_model_that_was_never_saved_is_told_at_the_end_and_had_from_its_checkpoint(
    flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_for: int
) -> None:
    whole, run, flags = tmp_path / "whole" / "model", tmp_path / "run" / "model", flags_for(TASK)
    scoring(monkeypatch, 0.75, 0.5)
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    scoring(monkeypatch, 0.75, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", FullFor(range(full_for)).patched())
        with pytest.raises(ResourceError, match=r"가장 좋은 모델.*디스크가 가득 찼습니다") as error:
            run_train([*flags, "--output_dir", str(run)], StopAfter())
    assert error.value.exit_code == 5
    words = error.value.remedy.split()
    checkpoint = words[words.index("--checkpoint_path") + 1]
    assert losses(run) == losses(whole)
    if full_for == 1:  # the second epoch's model is there: the next evaluation has to be better than that one
        assert (run / "model.safetensors").is_file()
    scoring(monkeypatch, 0.75, 0.5)
    run_train([*flags, "--output_dir", str(run), "--resume", "--checkpoint_path", checkpoint], StopAfter())
    check_like(run, whole)


def test_a_disk_that_takes_no_checkpoint_at_all_is_not_said_to_hold_one(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifest, "sync_folder", Failing(range(1000), errno.ENOSPC))
    with pytest.raises(ResourceError, match="디스크가 가득 찼습니다") as error:
        run_train([*flags, "--output_dir", str(tmp_path / "run" / "model")], StopAfter())
    assert "--resume" not in error.value.remedy and "처음부터" in error.value.remedy
    run = tmp_path / "run" / "model"
    assert "가장 좋은 모델" in error.value.remedy and str(run) in error.value.remedy
    AutoModelForSequenceClassification.from_pretrained(run)
    assert (run / "summary.json").is_file() and (run / "README.md").is_file()
    assert "이전 체크포인트는 그대로 있습니다" not in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_turned_read_only(flags: list[str], whole: Path, tmp_path: Path) -> None:
    output_dir = tmp_path / "run" / "model"
    flags = [*flags, "--output_dir", str(output_dir)]
    with pytest.raises(ResourceError, match="쓰기 권한"):
        run_train(flags, During(3, lambda: (output_dir / "checkpoints").chmod(0o555)))
    (output_dir / "checkpoints").chmod(0o755)
    run_train([*flags, "--resume"], StopAfter())
    check_like(output_dir, whole)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=[] if (name, how) in SAMPLE else pytest.mark.soak)
        for name in FILES
        for how in DAMAGES
    ],
)
def test_a_run_resumes_from_the_newest_intact_checkpoint(
    flags: list[str], whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    output_dir = tmp_path / "run" / "model"
    flags = [*flags, "--output_dir", str(output_dir)]
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=5))
    newest = max((output_dir / "checkpoints").iterdir())
    damage(newest / name, how)
    run_train([*flags, "--resume"], StopAfter())
    assert str(newest) in caplog.text
    check_like(output_dir, whole)


def test_data_that_changed_since_the_checkpoint_is_refused(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, "--output_dir", str(tmp_path / "run" / "model")]
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=3))
    data = tmp_path / "train.csv"
    data.write_bytes(data.read_bytes().replace("최악".encode(), "최고".encode(), 1))
    for more in ([], ["--allow_changed"]):
        with pytest.raises(SettingsError) as error:
            run_train([*flags, "--resume", *more], StopAfter())
        assert "데이터의 내용이 다릅니다" in error.value.where
    assert list((tmp_path / "run" / "model" / "checkpoints").glob("step-*"))


def test_data_that_changes_during_a_run_does_not_change_the_run(flags: list[str], whole: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    run_train([*flags, "--output_dir", str(tmp_path / "run" / "model")], During(3, lambda: data.write_bytes(b"\0")))
    check_like(tmp_path / "run" / "model", whole)


def test_a_resumed_run_skips_the_same_non_finite_step(
    flags: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    poison = tokenizer("37").input_ids[1:]  # with the end of the text
    loss_sum = LabelScorer.loss_sum

    def poisoned(scorer: LabelScorer, outputs: Any, batch: Any) -> Any:
        texts = [
            [token for token in ids if token != tokenizer.pad_token_id] for ids in batch.inputs["input_ids"].tolist()
        ]
        is_trained = outputs.requires_grad and any(ids[-len(poison) :] == poison for ids in texts)
        return loss_sum(scorer, outputs, batch) * (math.nan if is_trained else 1.0)

    monkeypatch.setattr(LabelScorer, "loss_sum", poisoned)
    whole, halved = tmp_path / "whole" / "model", tmp_path / "halved" / "model"
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], StopAfter(looks=3))
    run_train([*flags, "--output_dir", str(halved), "--resume"], StopAfter())
    check_like(halved, whole)
    assert sum(record.get("skipped", 0) for record in losses(halved)) == 2  # once an epoch
    assert "NaN 또는 Inf가 있어 이 스텝을 건너뜁니다" in caplog.text


def test_records_that_cannot_be_written_keep_no_checkpoint_from_being_saved(
    flags: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output_dir = tmp_path / "run" / "model"
    flags = [*flags, "--output_dir", str(output_dir)]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "metrics.jsonl":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the file of a descriptor is read from /proc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises((StopRequested, ResourceError)):
            run_train(flags, StopAfter(looks=7))
    assert "학습 기록을 쓰지 못했습니다" in caplog.text
    assert len(list((output_dir / "checkpoints").glob("step-*"))) == 2
    run_train([*flags, "--resume"], StopAfter())
    check_like(output_dir, whole)


def test_an_output_dir_that_is_a_link_is_resumed_by_its_own_name(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "big disk" / "run").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    output_dir = tmp_path / "models" / "model"
    output_dir.symlink_to(tmp_path / "big disk" / "run")
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(output_dir)], StopAfter(looks=5))
    latest = tmp_path / "models" / "checkpoint-latest"
    assert latest.resolve() == max((output_dir / "checkpoints").iterdir()).resolve()
    run_train([*flags, "--resume", "--checkpoint_path", str(latest)], StopAfter())
    assert (output_dir / "summary.json").is_file()


def test_a_file_in_place_of_the_checkpoints_is_told_before_the_first_step(flags: list[str], tmp_path: Path) -> None:
    output_dir = tmp_path / "run" / "model"
    output_dir.mkdir(parents=True)
    (output_dir / "checkpoints").write_text("mine")
    with pytest.raises(ResourceError, match="같은 이름의 파일") as error:
        run_train([*flags, "--output_dir", str(output_dir)], StopAfter())
    assert str(output_dir / "checkpoints") in error.value.where
    assert [path.name for path in output_dir.iterdir()] == ["checkpoints"]


def test_a_clock_that_goes_back_changes_nothing(
    flags: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, hours = time.time(), count(0, -1)
    monkeypatch.setattr(time, "time", lambda: now + 3600.0 * next(hours))
    flags = [*flags, "--output_dir", str(tmp_path / "run" / "model")]
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=5))
    run_train([*flags, "--resume"], StopAfter())
    check_like(tmp_path / "run" / "model", whole)


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(
    flags: list[str], whole: Path, tmp_path: Path
) -> None:
    flags = [*flags, "--output_dir", str(tmp_path / "run" / "model")]

    def begin_another() -> None:
        for resume in ([], ["--resume"]):
            with pytest.raises(SettingsError, match="다른 학습"):
                run_train([*flags, *resume], StopAfter())

    run_train(flags, During(5, begin_another))
    check_like(tmp_path / "run" / "model", whole)


def test_what_a_killed_run_left_of_old_checkpoints_is_gone_after_a_resume_that_saves_nothing(
    flags: list[str], tmp_path: Path
) -> None:
    flags = [*flags, "--output_dir", str(tmp_path / "run" / "model")]
    run_train(flags, StopAfter())
    checkpoints = tmp_path / "run" / "model" / "checkpoints"
    before = sorted(path.name for path in checkpoints.iterdir())
    (checkpoints / ".step-00000004.replaced-999999999").mkdir()
    run_train([*flags, "--resume"], StopAfter())
    assert sorted(path.name for path in checkpoints.iterdir()) == before
