"""Runs that the page starts: one after the other, stopped and resumed, and known to a page that is opened later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exceptions import SettingsError
from finetuning.commands.board_jobs import Jobs
from finetuning.web.printed import error_in
from tests.support.summaries import write_finished

TRAINS = """import sys
print('학습', sys.argv[1:], flush=True)
try:
    sys.stdin.read()
except KeyboardInterrupt:
    pass
"""


class Runs:
    """Processes in place of runs: each ends when its input is closed, or by the signal that asks it to stop."""

    def __init__(self) -> None:
        self.started: list[tuple[list[str], subprocess.Popen[bytes]]] = []

    def start(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            command = [sys.executable, "-c", TRAINS, *words]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True)
        self.started.append((list(words), child))
        while "학습" not in log.read_text(encoding="utf-8"):
            assert child.poll() is None
        return child

    def end(self, number: int) -> None:
        child = self.started[number][1]
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


@pytest.fixture
def runs() -> Iterator[Runs]:
    made = Runs()
    yield made
    for number in range(len(made.started)):
        made.end(number)


def states(jobs: Jobs) -> dict[str, str]:
    return {job.name: job.state for job in jobs.all()}


def test_runs_train_one_after_the_other_and_a_later_page_knows_them(runs: Runs, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / ".board", runs.start)
    for name in ("a", "b"):
        jobs.add(name, ["train", "--output_dir", str(tmp_path / name)], tmp_path / name)
    assert states(jobs) == {"a": "running", "b": "queued"}
    jobs.close()
    later = Jobs(tmp_path / ".board", runs.start)
    later.close()
    assert states(later) == {"a": "running", "b": "queued"} and "학습" in later.job("a").log
    write_finished(tmp_path / "a")
    runs.end(0)
    later.start_next()
    assert states(later) == {"a": "finished", "b": "running"}


def test_a_run_is_stopped_once_and_resumed_from_its_checkpoint(runs: Runs, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / ".board", runs.start)
    jobs.close()
    jobs.add("a", ["train", "--output_dir", "x"], tmp_path / "a")
    jobs.stop("a")
    runs.started[0][1].wait()
    assert states(jobs) == {"a": "stopped"}
    (tmp_path / "a" / "checkpoints" / "step-00000010").mkdir(parents=True)
    jobs.resume("a")
    assert states(jobs) == {"a": "running"} and runs.started[1][0][-1] == "--resume"


def test_a_run_that_ends_without_a_result_has_failed_and_one_that_waits_can_be_taken_out(
    runs: Runs, tmp_path: Path
) -> None:
    jobs = Jobs(tmp_path / ".board", runs.start)
    jobs.close()
    jobs.add("a", ["train"], tmp_path / "a")
    jobs.add("b", ["train"], tmp_path / "b")
    jobs.stop("b")
    assert states(jobs) == {"a": "running"}
    runs.end(0)
    assert states(jobs) == {"a": "failed"}
    with pytest.raises(SettingsError):
        jobs.job("b")


def test_the_error_that_a_command_printed_is_found() -> None:
    said = "로그\n오류: 파일이 없습니다.\n  위치: a.csv\n  해결: 고치세요.\n"
    assert error_in(said) == ("파일이 없습니다.", "a.csv", "고치세요.")
    assert error_in("끝") is None


def test_a_run_that_trains_is_not_started_again_and_an_old_error_is_forgotten(runs: Runs, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / ".board", runs.start)
    jobs.close()
    jobs.add("a", ["train"], tmp_path / "a")
    jobs.resume("a")
    assert len(runs.started) == 1
    (tmp_path / ".board" / "a.log").write_text("오류: 메모리가 부족합니다.\n", encoding="utf-8")
    runs.end(0)
    assert states(jobs) == {"a": "failed"}
    jobs.resume("a")
    jobs.stop("a")
    runs.started[1][1].wait()
    assert states(jobs) == {"a": "stopped"}
