"""The file of metrics where a run goes on and the file is not the one that it left."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from finetuning.reporting.metrics_file import MetricsFile


@pytest.mark.parametrize("kept", [None, 0, 20, 30])
def test_records_that_are_gone_are_told_and_every_line_stays_whole(
    tmp_path: Path, kept: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = MetricsFile(tmp_path)
    for step in range(4):
        file.add({"step": step, "loss": 0.5})
    size = file.size()
    if kept is None:
        file.path.unlink()
    else:
        file.path.write_bytes(file.path.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        file.cut(size)
    assert "기록 일부가 없습니다" in caplog.text
    file.add({"step": 4, "loss": 0.4})
    lines = [json.loads(line) for line in file.path.read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["step"] == 4


def test_nothing_is_said_where_the_file_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = MetricsFile(tmp_path)
    file.cut(0)
    file.add({"step": 1})
    size = file.size()
    file.add({"step": 2})
    file.cut(size)
    assert file.written() == size and not caplog.text
