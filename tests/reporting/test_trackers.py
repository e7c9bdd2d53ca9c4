"""Trackers: what a run records is in metrics.jsonl and, where asked for, in a tracker; a tracker never costs a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.reporting import trackers
from finetuning.reporting.recorder import Recorder
from finetuning.reporting.sent_records import SentRecords
from finetuning.reporting.trackers import TrackedRun, TrackerRow, by_accelerate, check_trackers, flattened
from tests.support.cli import Cli, arguments_for


class FakeTracker:
    """accelerate's side of a tracker, which keeps what it is given."""

    def __init__(self, fails_at: int | None = None, starts: bool = True) -> None:
        self.fails_at, self.starts = fails_at, starts
        self.calls: list[str] = []
        self.settings: Mapping[str, Any] = {}
        self.logged: list[tuple[int, Mapping[str, Any]]] = []

    def start(self) -> None:
        if not self.starts:
            raise ConnectionError("no login")
        self.calls.append("start")

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.settings = values

    def log(self, values: Mapping[str, Any], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("no network")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.fixture
def recorder_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A recorder with one tracker, `fake`, whose package is installed."""

    def make(fake: FakeTracker, is_main_process: bool = True) -> tuple[Recorder, list[TrackedRun]]:
        runs: list[TrackedRun] = []
        monkeypatch.setitem(sys.modules, "fake", ModuleType("fake"))
        monkeypatch.setattr(trackers, "find_spec", lambda name: object() if name == "fake" else None)
        monkeypatch.setitem(trackers.TRACKERS, "fake", by_accelerate("fake", lambda run: runs.append(run) or fake))
        settings = Settings.model_validate({"logging": {"trackers": ["fake", "fake"]}})
        return Recorder(settings, tmp_path, is_main_process), runs

    return make


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_numbers_go_to_the_tracker_and_everything_to_the_file(recorder_of: Any, tmp_path: Path) -> None:
    fake = FakeTracker()
    recorder, runs = recorder_of(fake)
    with recorder:
        recorder.record(10, 1, kind="train", loss=0.5, grad_norm=float("nan"), skipped=0)
        recorder.record(12, 1, kind="eval", accuracy=0.75)
    assert fake.logged == [
        (10, {"epoch": 1, "train/loss": 0.5, "train/skipped": 0}),
        (12, {"epoch": 1, "eval/accuracy": 0.75}),
    ]
    assert lines_of(tmp_path) == [
        {"step": 10, "epoch": 1, "kind": "train", "loss": 0.5, "grad_norm": None, "skipped": 0},
        {"step": 12, "epoch": 1, "kind": "eval", "accuracy": 0.75},
    ]
    assert fake.calls == ["start", "finish"]  # named twice, started once
    assert len(runs) == 1 and runs[0].name == tmp_path.name and runs[0].resumed_step == 0
    assert fake.settings["training.seed"] == 42


def test_a_resumed_run_says_where_it_continues(recorder_of: Any, tmp_path: Path) -> None:
    recorder, runs = recorder_of(FakeTracker())
    recorder.record(10, 1, kind="train", loss=0.5)
    size = recorder.size()
    recorder.record(20, 1, kind="train", loss=0.4)
    recorder.cut(size, 10)
    with recorder:
        recorder.record(20, 1, kind="train", loss=0.4)
    assert runs[0].resumed_step == 10
    assert [line["step"] for line in lines_of(tmp_path)] == [10, 20]


def test_a_tracker_that_fails_is_dropped_and_the_run_goes_on(
    recorder_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeTracker(fails_at=2)
    recorder, _ = recorder_of(fake)
    with recorder:
        for step in (1, 2, 3):
            recorder.record(step, 1, kind="train", loss=0.5)
    assert [step for step, _ in fake.logged] == [1]
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no network" in caplog.text and fake.calls == ["start", "finish"]


def test_a_tracker_that_does_not_start_ends_the_command(recorder_of: Any) -> None:
    recorder, _ = recorder_of(FakeTracker(starts=False))
    with pytest.raises(SettingsError, match="fake tracker를 시작하지 못했습니다: no login"), recorder:
        pytest.fail("the block must not run")


def test_other_processes_record_nothing(recorder_of: Any, tmp_path: Path) -> None:
    fake = FakeTracker()
    recorder, _ = recorder_of(fake, is_main_process=False)
    with recorder:
        recorder.record(1, 1, kind="train", loss=0.5)
    assert (fake.calls, fake.logged, (tmp_path / "metrics.jsonl").exists()) == ([], [], False)


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_tracker_without_its_package_is_refused_with_the_pip_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=name) as error:
        check_trackers([name])
    assert f"pip install {name}" in error.value.remedy


def test_an_unknown_tracker_is_refused_before_anything_is_read(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    output_dir = tmp_path / "model"
    run = cli(*arguments_for(tiny_model, reviews, output_dir, "--set", "logging.trackers=[tensorbord]"))
    assert run.code == 2
    assert "tensorbord" in run.err and "swanlab" in run.err
    assert not output_dir.exists()


def test_settings_are_flat_values() -> None:
    flat = flattened(Settings().model_dump(mode="json"))
    assert flat["model.adapter.r"] == 16
    assert flat["data.normalize"] == '["zero_width"]' and flat["training.eval_steps"] == "null"
    assert all(isinstance(value, bool | int | float | str) for value in flat.values())


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar as TensorBoard shows it."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_metrics_jsonl_holds(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    output_dir = tmp_path / "model"
    arguments = arguments_for(
        tiny_model, reviews, output_dir, "--epochs", "2", "--set", "logging.trackers=[tensorboard]"
    )
    for _ in range(2):  # a new run in the same folder starts anew
        run = cli(*arguments)
        assert run.code == 0, run.err
    shown, recorded = scalars(output_dir / "tensorboard"), lines_of(output_dir)
    for kind, name in (("train", "loss"), ("train", "lr"), ("eval", "loss"), ("eval", "accuracy")):
        expected = [(line["step"], line[name]) for line in recorded if line["kind"] == kind]
        assert [step for step, _ in shown[f"{kind}/{name}"]] == [step for step, _ in expected]
        assert [value for _, value in shown[f"{kind}/{name}"]] == pytest.approx([value for _, value in expected])


def test_a_resumed_run_hides_what_tensorboard_has_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    settings = Settings.model_validate({"logging": {"trackers": ["tensorboard"]}})
    with Recorder(settings, tmp_path, True) as recorder:
        for step in (10, 20, 30):
            recorder.record(step, 1, kind="train", loss=float(step))
    resumed = Recorder(settings, tmp_path, True)
    resumed.cut(0, 20)
    with resumed:
        resumed.record(30, 1, kind="train", loss=3.5)
    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(10, 10.0), (20, 20.0), (30, 3.5)]


class LossLines:
    """A tracker of one's own, without a package."""

    name = "loss_lines"

    def __init__(self) -> None:
        self.path: Path | None = None

    def start(self, run: TrackedRun) -> None:
        self.path = run.output_dir / "loss.txt"

    def log(self, record: Mapping[str, Any]) -> None:
        assert self.path is not None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{record['step']} {record['loss']}\n")

    def finish(self) -> None:
        self.path = None


def test_a_tracker_of_our_own_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "loss_lines", TrackerRow(LossLines))
    settings = Settings.model_validate({"logging": {"trackers": ["loss_lines"]}})
    with Recorder(settings, tmp_path, True) as recorder:
        recorder.record(1, 1, kind="train", loss=0.5)
        recorder.record(2, 1, kind="train", loss=0.25)
    assert (tmp_path / "loss.txt").read_text(encoding="utf-8") == "1 0.5\n2 0.25\n"


def kept_by(fake: FakeTracker, record: dict[str, Any], output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A recorder with one tracker that continues its runs, as W&B's does; `record` gets what it was started with."""

    def build(run: TrackedRun) -> FakeTracker:
        record["run"] = run
        return fake

    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    monkeypatch.setitem(trackers.TRACKERS, "kept", by_accelerate("kept", build, lambda _: {"id": "abc"}))
    logging = {"trackers": ["kept"], "run_name": "둘째 시도", "tags": ["baseline", "nsmc"]}
    return Recorder(Settings.model_validate({"logging": logging}), output_dir, True)


def test_a_resumed_run_goes_on_in_its_own_run_and_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, first = dict[str, Any](), FakeTracker()
    with kept_by(first, began, tmp_path, monkeypatch) as recorder:
        recorder.record(10, 1, kind="train", loss=0.5)
        size = recorder.size()
        recorder.record(20, 1, kind="train", loss=0.4)  # and the process is killed before a checkpoint
    assert (began["run"].name, began["run"].tags, dict(began["run"].continued)) == (
        "둘째 시도",
        ("baseline", "nsmc"),
        {},
    )
    resumed, second = dict[str, Any](), FakeTracker()
    recorder = kept_by(second, resumed, tmp_path, monkeypatch)
    recorder.cut(size, 10)
    with recorder:
        recorder.record(20, 1, kind="train", loss=0.4)
        recorder.record(20, 1, kind="eval", accuracy=0.75)  # of the same step, and not sent yet
        recorder.record(30, 1, kind="train", loss=0.3)
    assert dict(resumed["run"].continued) == {"id": "abc"}
    assert [(step, sorted(values)) for step, values in second.logged] == [
        (20, ["epoch", "eval/accuracy"]), (30, ["epoch", "train/loss"]),
    ]  # fmt: skip
    assert not second.settings  # some trackers refuse to change them
    assert [line["step"] for line in lines_of(tmp_path)] == [10, 20, 20, 30]


def test_what_a_killed_process_had_in_its_buffer_is_sent_again(tmp_path: Path) -> None:
    killed = SentRecords(tmp_path, "slow", buffered_s=3600)
    killed.begin({"id": "abc"})
    killed.add("train", 10)
    resumed = SentRecords(tmp_path, "slow", buffered_s=3600)
    resumed.read()
    assert resumed.run == {"id": "abc"} and not resumed.has("train", 10)
    resumed.add("train", 10)
    resumed.finish()
    again = SentRecords(tmp_path, "slow")
    again.read()
    assert again.has("train", 10) and not again.has("train", 11) and not again.has("eval", 10)


def test_a_damaged_note_of_what_was_sent_begins_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trackers.json").write_text('{"kept": [1', encoding="utf-8")
    began, fake = dict[str, Any](), FakeTracker()
    recorder = kept_by(fake, began, tmp_path, monkeypatch)
    recorder.cut(0, 10)
    with recorder:
        recorder.record(20, 1, kind="train", loss=0.4)
    assert dict(began["run"].continued) == {} and [step for step, _ in fake.logged] == [20]


def test_mlflow_has_one_run_with_each_value_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped, resumed from an earlier checkpoint, and read back from MLflow's local store."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    output_dir = tmp_path / "model"
    output_dir.mkdir()
    logging = {"trackers": ["mlflow"], "run_name": "둘째 시도", "tags": ["baseline", "nsmc"]}
    settings = Settings.model_validate({"logging": logging})
    with Recorder(settings, output_dir, True) as recorder:
        for step in (10, 20, 30):
            recorder.record(step, 1, kind="train", loss=1 / step)
    longer = settings.model_copy(update={"training": settings.training.model_copy(update={"epochs": 9})})
    resumed = Recorder(longer, output_dir, True)
    resumed.cut(0, 20)
    with resumed:
        for step in (30, 40):
            resumed.record(step, 1, kind="train", loss=1 / step)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'finetuning-python'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")]
    assert history == [(step, pytest.approx(1 / step)) for step in (10, 20, 30, 40)]
    assert (run.info.run_name, run.data.tags["tags"], run.info.status) == ("둘째 시도", "baseline, nsmc", "FINISHED")
    assert run.data.params["training.learning_rate"] == "2e-05"
