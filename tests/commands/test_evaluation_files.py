"""Files beside a model that evaluate did not write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.cli import Cli, arguments_for, data_flags


@pytest.mark.parametrize("theirs", ["내 메모", '{"accuracy": 1.0}'])
def test_a_file_of_the_user_is_kept_and_an_evaluation_is_written_anew(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, theirs: str
) -> None:
    flags = ["--epochs", "1", "--set", "data.train_rows=40"]
    assert cli(*arguments_for(tiny_model, reviews, tmp_path / "model", *flags)).code == 0
    data = shutil.copy(reviews / "test.csv", tmp_path / "mine.csv")
    path = tmp_path / "model" / "metrics-mine.json"
    path.write_text(theirs, encoding="utf-8")
    cache = data_flags(tmp_path / "model")[2:]
    run = cli("evaluate", "--output_dir", tmp_path / "model", "--dataset", data, *cache)
    assert run.code == 0 and "mine 20행" in run.out
    assert "판정" in run.err and "95% 신뢰구간" in run.err and "평가한 행이 20행뿐" in run.err
    assert path.read_text(encoding="utf-8") == theirs and "덮어쓰지 않습니다" in run.err
    path.unlink()
    for _ in range(2):
        run = cli("evaluate", "--output_dir", tmp_path / "model", "--dataset", data, *cache)
        assert "덮어쓰지" not in run.err and json.loads(path.read_text(encoding="utf-8"))["rows"] == 20
