"""Several processes on one output_dir and on one split: one folder, one result, told once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, arguments_for, data_flags, read_json
from tests.support.forked import run_group
from tests.support.paths import ROOT
from tests.support.texts import NEGATIVE, POSITIVE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")


def on_two(*arguments: object, stdin: str = "") -> tuple[str, str]:
    """What two processes print to standard output and to standard error, all of it."""
    done = run_group(2, list(map(str, arguments)), ROOT, stdin)
    out, err = ("".join(streams) for streams in zip(*(texts for _, *texts in done), strict=True))
    assert [code for code, *_ in done] == [0, 0], err
    return out, err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=lambda number: round(float(number), 5)) for line in text.splitlines()]


def test_processes_agree_on_the_folder_of_a_second_run_and_share_the_rows_that_its_model_scores(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "model", tmp_path / "model-2"
    flags = arguments_for(tiny_model, reviews, first, "--epochs", 1)
    assert cli(*flags).code == 0
    assert cli("evaluate", *flags[2:8], "--split", "test").code == 0  # leaves its metrics there as well
    before = content(first)

    _, said = on_two(*flags)
    assert content(first) == before
    assert read_json(second / "run.json") == {"output_dir": "model", "number": 2}
    assert said.count("그대로 두고 새 폴더에 학습합니다") == 1
    assert (second / "model.safetensors").is_file() and (second / "summary.json").is_file()

    _, said = on_two(*flags, "--epochs", 2, "--resume")
    assert said.count("가장 최근 학습을 이어 갑니다") == 1
    assert said.count("체크포인트에서 이어서 학습합니다") == 1
    assert content(first) == before
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model", "model-2"]
    assert read_json(second / "summary.json")["steps"] == 2 * 4

    # evaluate: one line, and the metrics of one process
    evaluate = ("evaluate", "--model_name", second, *data_flags(second), "--split", "test")
    out, _ = on_two(*evaluate)
    metrics = read_json(second / "metrics-test.json")
    alone = cli(*evaluate)
    assert out == alone.out
    expected = read_json(second / "metrics-test.json")
    assert metrics.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
    assert metrics == expected

    # predict: each row once and in order, from standard input and from a file
    lines = "".join(f"{text}\n" for text in (*POSITIVE, *NEGATIVE, "ㅋ"))
    predict = ("predict", "--model_name", second)
    out, said = on_two(*predict, stdin=lines)
    assert rows_in(out) == rows_in(cli(*predict, stdin=lines).out)
    assert [row["text"] for row in rows_in(out)] == lines.splitlines()
    assert said.count("예측한 행 11개") == 1
    written = tmp_path / "predicted.jsonl"
    on_two(*predict, "--input", reviews / "test.csv", "--output", written)
    assert len(rows_in(written.read_text(encoding="utf-8"))) == 20


def test_an_error_is_told_once_and_what_is_not_shared_is_refused(reviews: Path, tmp_path: Path) -> None:
    for words, code, what in (
        (("predict", "--output_dir", tmp_path, "--output", tmp_path / "no" / "a.csv"), 2, "결과를 쓸 폴더가 없습니다"),
        (("plan", "--dataset", reviews), 2, "plan은 프로세스 하나로만 실행합니다"),
    ):
        done = run_group(2, list(map(str, words)), ROOT, prepare=_ask_after_main)
        assert [one[0] for one in done] == [code, code], done
        assert "".join(err for *_, err in done).count(what) == 1, done


def _ask_after_main() -> None:
    """Let process 1 ask who says a message when process 0 has said one: it ends next, and the store goes with it.

    Where there is no store yet, process 1 waits to be ended by the launcher, which is done here.
    """
    if os.environ["RANK"] == "0" or not Path("/proc/self/fd/2").exists():
        return
    from finetuning.device import peers

    told, meets = Path("/proc/self/fd/2").readlink().parents[1] / "0" / "err", peers._store

    def meet_later() -> object:
        while not (told.exists() and "해결:" in told.read_text(encoding="utf-8")):
            os.sched_yield()
        return meets()

    peers._store = meet_later
    peers._wait_to_be_ended = lambda: os._exit(2)
