"""Data of a few rows, and labels that are one: what trains nothing is refused by name, what means little is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Cli, Run


def plan(cli: Cli, model: Path, data: Path, tmp_path: Path, *more: object) -> Run:
    flags = ["--model_name", model, "--dataset", data, "--output_dir", tmp_path / "out"]
    return cli("plan", *flags, "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", *more)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_three_rows_are_told_to_mean_little(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", "text,label", "정말 좋다,긍정", "너무 싫다,부정", "재미있다,긍정")
    run = plan(cli, tiny_model, data, tmp_path)
    assert run.code == 0, run.err
    assert "검증 데이터가 1행뿐입니다" in run.err and "data.validation_split" in run.err
    assert "라벨: 긍정 1, 부정 1" in run.out  # what is held out leaves every label in train


def test_a_validation_file_of_one_row_is_told_too(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.csv", "text,label", *(f"글 {n},{'긍정' if n % 2 else '부정'}" for n in range(20)))
    write(folder / "validation.csv", "text,label", "정말 좋다,긍정")
    run = plan(cli, tiny_model, folder, tmp_path)
    assert run.code == 0, run.err
    assert "검증 데이터가 1행뿐입니다" in run.err and "validation_split" not in run.err


@pytest.mark.parametrize(("rows", "says"), [
    (["정말 좋다,긍정"], "1개뿐"), (["정말 좋다,긍정", "너무 싫다,부정"], "라벨마다 예제가 하나뿐"),
])  # fmt: skip
def test_what_cannot_be_divided_is_refused(
    cli: Cli, tiny_model: Path, tmp_path: Path, rows: list[str], says: str
) -> None:
    run = plan(cli, tiny_model, write(tmp_path / "a.csv", "text,label", *rows), tmp_path)
    assert run.code == 3, run.err
    assert says in run.err and "a.csv" in run.err


def test_one_label_names_its_column_and_those_that_may_be_meant(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"{n},2026-01-{n:02},글 {n},영화,{('기쁨', '슬픔')[n % 2]}" for n in range(1, 21)]
    data = write(tmp_path / "a.csv", "id,날짜,문장,분류,기분", *rows)
    run = plan(cli, tiny_model, data, tmp_path)
    assert run.code == 3, run.err
    assert "한 가지뿐입니다: 영화" in run.err and "a.csv, 라벨 열 '분류'" in run.err
    assert "기분(슬픔, 기쁨)" in run.err and "--label_column '기분'" in run.err
    assert "날짜(" not in run.err
    assert plan(cli, tiny_model, data, tmp_path, "--label_column", "기분").code == 0


def test_two_scores_of_their_own_are_still_regression(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", "text,label", *(f"글 {n},{n / 8}" for n in range(1, 7)))
    run = plan(cli, tiny_model, data, tmp_path)
    assert run.code == 0, run.err
    assert "text-regression" in run.out
