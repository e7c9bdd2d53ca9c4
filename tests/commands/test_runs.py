"""runs: every run below a folder in one table, whatever state it is in; what is no run is named and skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetuning.checkpoints.lock import only_run_in
from finetuning.commands.found_runs import runs_below
from finetuning.config.schema import Settings
from finetuning.reporting.metric_names import lower_is_better
from finetuning.reporting.text_table import shortened, table_lines, width
from finetuning.tasks.registry import task_classes
from tests.support.cli import Cli
from tests.support.summaries import write_finished, write_stopped


def place(lines: list[str], word: str) -> int:
    return next(number for number, line in enumerate(lines) if word in line)


def test_the_best_run_of_a_task_stands_first_and_stopped_ones_say_where(cli: Cli, tmp_path: Path) -> None:
    write_finished(tmp_path / "worse", model="a/other", dataset="./b.csv", test={"accuracy": 0.6}, quality=None)
    write_finished(tmp_path / "sweeps" / "learning_rate=3e-5")
    write_finished(
        tmp_path / "chat-weak", task="text-generation", best_validation_loss=2.0, test={"loss": 2.1}, quality=None
    )
    write_finished(
        tmp_path / "chat-good", task="text-generation", best_validation_loss=1.0, test={"loss": 1.1}, quality=None
    )
    write_stopped(tmp_path / "halved", step=30, last_step=42)
    write_stopped(tmp_path / "begun", step=None)
    run = cli("runs", tmp_path)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert place(lines, "sweeps/learning_rate=3e-5") < place(lines, "worse")
    good = lines[place(lines, "sweeps/learning_rate=3e-5")]
    for shown in ("roberta-base", "nsmc", "0.7500 (0.700~0.800) test", "120", "1분 5초", "기준보다 나음", "스텝 적음"):
        assert shown in good
    assert "스텝 30까지 저장" in lines[place(lines, "halved")] and "42" in lines[place(lines, "halved")]
    assert "체크포인트 없음" in lines[place(lines, "begun")]
    assert "학습 6개: 끝남 4개, 끝나지 않음 2개" in run.out


def test_a_lower_loss_is_the_better_one(cli: Cli, tmp_path: Path) -> None:
    for name, loss in (("a-weak", 2.0), ("b-good", 1.0)):
        quality = {"metric": "loss", "split": "validation", "score": loss, "interval": None, "findings": []}
        write_finished(tmp_path / name, best_validation_loss=loss, validation={"loss": loss}, quality=quality)
    lines = cli("runs", tmp_path).out.splitlines()
    assert place(lines, "b-good") < place(lines, "a-weak")


def test_metrics_are_better_in_the_direction_of_their_tasks() -> None:
    for cls in task_classes().values():
        scores = cls(Settings()).scores
        assert lower_is_better(scores.best_metric) is not scores.greater_is_better


def test_damaged_runs_and_folders_of_others_are_named_and_skipped(cli: Cli, tmp_path: Path) -> None:
    write_finished(tmp_path / "whole")
    for name, text in (("cut", '{"task": '), ("list", "[1]"), ("lacking", "{}"), ("odd", '{"quality": 3}')):
        (write_finished(tmp_path / name) / "summary.json").write_text(text, encoding="utf-8")
    (tmp_path / "pretrained" / "blobs").mkdir(parents=True)
    (tmp_path / "note.txt").write_text("x", encoding="utf-8")
    run = cli("runs", tmp_path)
    assert run.code == 0, run.err
    assert "학습 1개: 끝남 1개" in run.out
    for name in ("cut", "list", "lacking", "odd"):
        assert f"읽지 못해 건너뛴 학습: {tmp_path / name} (summary.json" in run.out
    assert "학습이 없어 건너뛴 폴더: pretrained" in run.out


def test_a_run_that_is_training_now_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    write_stopped(tmp_path / "killed", step=5)
    (tmp_path / "killed" / ".lock").touch()
    write_stopped(tmp_path / "now", step=5)
    with only_run_in(tmp_path / "now"):
        states = {row.name: row.state for row in runs_below(tmp_path).rows}
    assert states == {"killed": "stopped", "now": "running"}


def test_an_exported_model_is_no_run(tmp_path: Path) -> None:
    write_finished(tmp_path / "run")
    for name in ("config.json", "settings.yaml", "export.json"):
        (tmp_path / "merged").mkdir(exist_ok=True)
        (tmp_path / "merged" / name).write_text("{}", encoding="utf-8")
    assert [row.name for row in runs_below(tmp_path).rows] == ["run"]


@pytest.mark.parametrize("words", [["runs", "nowhere"], ["runs", "."]])
def test_a_folder_without_runs_is_an_error_that_says_what_to_do(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    run = cli(*words, cwd=tmp_path)
    assert run.code == 2
    assert "runs 폴더" in run.err


def test_columns_are_aligned_where_hangul_is_wide() -> None:
    lines = table_lines(["이름", "값"], [["가나다", "1"], ["ab", "20"]], right=frozenset({1}))
    assert len({width(line) for line in lines}) == 1
    assert lines[0].startswith("이름  ") and lines[-1].endswith("20")


def test_a_long_name_keeps_both_ends() -> None:
    assert shortened("learning_rate=1e-5,epochs=2", 40) == "learning_rate=1e-5,epochs=2"
    cut = shortened("가나다라마바사아자차카타파하", 11)
    assert width(cut) <= 11 and cut.startswith("가나") and cut.endswith("하")


def test_runs_of_earlier_versions_have_a_score_too(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "old")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    del summary["quality"]
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    row = runs_below(tmp_path).rows[0]
    assert (row.metric, row.split, row.score, row.interval) == ("accuracy", "test", 0.75, None)


def test_a_model_that_all_runs_of_a_task_share_is_said_once(cli: Cli, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_finished(tmp_path / name, model=f"a/{name}")
    heading, columns, *_ = cli("runs", tmp_path).out.splitlines()
    assert heading == "text-classification (정확도), 데이터 nsmc"
    assert "모델" in columns and "데이터" not in columns


def test_the_page_holds_the_table_and_the_curves_in_one_file(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    hostile = "<script>alert(1)</script>\"'&"
    for name in ("one", "two"):
        folder = write_finished(tmp_path / name, model=hostile)
        records = (
            {"kind": kind, "step": step, "loss": 1 / step, "accuracy": 0.5}
            for step in (10, 20)
            for kind in ("train", "eval")
        )
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    (tmp_path / "one" / "report.html").write_text("", encoding="utf-8")
    write_finished(
        tmp_path / "three", task="text-generation", best_validation_loss=1.0, test={"loss": 1.1}, quality=None
    )
    run = cli("runs", tmp_path, "--html")
    assert run.code == 0, run.err
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3 and "0.7500 (0.700~0.800) test" in page
    assert 'href="one/report.html"' in page and 'href="two/report.html"' not in page
    assert "<script" not in page and "alert(1)" in page and "src=" not in page and "@import" not in page
