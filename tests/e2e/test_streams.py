"""Standard streams that are closed, full or without a reader, and the signals of a terminal that goes away."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.cli import Cli, arguments_for, data_flags
from tests.support.forked import Start, stop_at
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such streams and signals")
FIRST_STEPS = "손실"


@pytest.fixture(scope="module")
def trained(cli: Cli, tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("trained") / "model"
    run = cli(*arguments_for(tiny_model, reviews, output_dir, "--epochs", 1))
    assert run.code == 0, run.err
    return output_dir


def run_with(
    tmp_path: Path, *arguments: object, stdin: str | None = os.devnull, out: str | None = "out", err: str | None = "err"
) -> tuple[int, str]:
    """Run the program with these files for streams, None for a closed one; its exit code, and its standard error."""
    streams = [stdin, *(None if name is None else str(tmp_path / name) for name in (out, err))]
    process = Start(list(map(str, arguments)), ROOT, streams).start()
    process.join(200)
    return process.exitcode, (tmp_path / "err").read_text(encoding="utf-8") if err == "err" else ""


def shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program with streams as a shell gives them; `RUN` in the command stands for it."""
    words = shlex.join([sys.executable, str(ROOT / "finetuning_app.py"), *map(str, arguments)])
    return subprocess.run(
        ["bash", "-c", command.replace("RUN", words)],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=200,
    )  # fmt: skip


def test_interrupt_whose_log_has_lost_its_reader_saves_the_state(
    tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    """Ctrl+C under `2>&1 | tee log` ends `tee` as well."""
    output_dir = tmp_path / "model"
    arguments = arguments_for(tiny_model, reviews, output_dir, "--epochs", 40)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetuning_app.py"), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
    )  # fmt: skip
    guard = threading.Timer(200, process.kill)
    guard.start()
    assert process.stdout is not None
    for line in process.stdout:
        if FIRST_STEPS in line:
            break
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    guard.cancel()
    newest = max((output_dir / "checkpoints").glob("step-*"))
    assert (newest / "manifest.json").is_file()


def test_run_whose_log_has_no_reader_from_the_start_ends_well(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    arguments = arguments_for(tiny_model, reviews, tmp_path / "model", "--epochs", 1)
    assert shell("RUN 2>&1 | true; exit ${PIPESTATUS[0]}", *arguments).returncode == 0
    assert (tmp_path / "model" / "summary.json").is_file()


@pytest.mark.parametrize("streams", [{"err": "/dev/full"}, {"err": None}, {"out": "/dev/full"}], ids=str)
def test_log_that_cannot_be_written_does_not_end_training(
    tiny_model: Path, reviews: Path, tmp_path: Path, streams: dict[str, str | None]
) -> None:
    arguments = arguments_for(tiny_model, reviews, tmp_path / "model", "--epochs", 1)
    code, said = run_with(tmp_path, *arguments, **streams)
    assert code == 0, said
    assert (tmp_path / "model" / "summary.json").is_file()


def test_training_that_a_shell_closes_all_streams_of_ends_well(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    arguments = arguments_for(tiny_model, reviews, tmp_path / "model", "--epochs", 1)
    done = shell("RUN >&- 2>&- <&-", *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "summary.json").is_file()


def asked(trained: Path, reviews: Path, command: str) -> list[object]:
    more = ["--input", reviews / "test.csv"] if command == "predict" else data_flags(trained)
    return [command, "--output_dir", trained, *more]


def check_lost_result(code: int, said: str) -> None:
    assert code == 5, said
    assert "결과를 쓰지 못했습니다" in said and "표준 출력" in said
    assert "Traceback" not in said and "Exception ignored" not in said


@pytest.mark.parametrize("out", ["/dev/full", None])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_result_that_cannot_be_written_is_an_error(
    trained: Path, reviews: Path, tmp_path: Path, command: str, out: str | None
) -> None:
    check_lost_result(*run_with(tmp_path, *asked(trained, reviews, command), out=out))
    if command == "evaluate":
        assert (trained / "metrics-test.json").is_file()


def test_result_that_a_shell_cannot_write_is_an_error(trained: Path, reviews: Path) -> None:
    done = shell("RUN >/dev/full", *asked(trained, reviews, "predict"))
    check_lost_result(done.returncode, done.stderr)


def test_closed_standard_input_is_named(trained: Path, tmp_path: Path) -> None:
    code, said = run_with(tmp_path, "predict", "--output_dir", trained, stdin=None)
    assert code == 3
    assert "표준 입력이 닫혀" in said and "--input" in said
    assert "Traceback" not in said


def test_terminal_that_hangs_up_leaves_a_saved_state(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    output_dir = tmp_path / "model"
    arguments = arguments_for(tiny_model, reviews, output_dir, "--epochs", 40)
    code, log = stop_at(arguments, FIRST_STEPS, signal.SIGHUP)
    assert code == 129, log
    assert "상태를 저장하고 멈췄습니다" in log
    assert list((output_dir / "checkpoints").glob("step-*"))
