"""Files that predictions are not written over, and links that stay."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from exceptions import SettingsError
from finetuning.reporting.predictions import check_output, write_predictions
from tests.support.cli import Cli

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@posix
@pytest.mark.parametrize("name", ["in.csv", "link.csv", "other.csv"])
def test_the_file_that_is_read_is_not_written(cli: Cli, tiny_model: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,id\n글,1\n", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to("in.csv")
    os.link(source, tmp_path / "other.csv")
    run = cli("predict", "--model_name", tiny_model, "--input", source, "--output", tmp_path / name)
    assert run.code == 2 and "바로 그 파일" in run.err
    assert source.read_text(encoding="utf-8") == "text,id\n글,1\n"


@posix
def test_a_pipe_and_a_record_of_training_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("metrics.jsonl", "config.json"):
        (tmp_path / name).write_text("{}\n", encoding="utf-8")
    for name in ("pipe.csv", "metrics.jsonl"):
        with pytest.raises(SettingsError, match="다른 이름"):
            check_output(tmp_path / name)


@posix
def test_a_link_stays_and_a_file_that_was_there_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "real.csv").write_text("앞의 것", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to("real.csv")
    check_output(tmp_path / "link.csv", tmp_path / "in.csv")
    with caplog.at_level(logging.INFO):
        write_predictions(tmp_path / "link.csv", [{"text": "글"}])
        write_predictions(tmp_path / "new.csv", [{"text": "글"}])
    assert (tmp_path / "link.csv").is_symlink() and "글" in (tmp_path / "real.csv").read_text(encoding="utf-8")
    told = [record.getMessage() for record in caplog.records]
    assert "있던 파일을 바꿨습니다" in told[0] and "있던 파일" not in told[1]
