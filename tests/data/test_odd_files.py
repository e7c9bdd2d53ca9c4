"""Files that are something else than their name says, seen through the command line and the readers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from exceptions import BadRow, DataError
from finetuning.config.schema import DataSettings, Settings
from finetuning.data.formats.registry import open_source
from finetuning.data.sources import find_sources
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli, arguments_for

DEEP = "[" * 100_000


def named(path: Path) -> DataSettings:
    return DataSettings.model_validate({"dataset_name": str(path)})


def test_a_key_that_an_object_has_twice_is_refused_by_line(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"글 {number}", "label": number % 2}) for number in range(30)]
    lines.append('{"text": "앞의 글", "text": "뒤의 글", "label": 1}')
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    run = cli("plan", *arguments_for(tiny_model, data, tmp_path / "model"))
    assert run.code == 3
    assert "'text' 키가 두 번" in run.err and "31번째 줄" in run.err


def test_a_key_that_a_nested_object_has_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"messages": [{"role": "user", "content": "가", "content": "나"}]}]', encoding="utf-8")
    with pytest.raises(DataError, match="'content' 키가 두 번"):
        open_source(path, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>404, not found</body></html>\n", "웹 페이지"),
        (b"SQLite format 3\0" + b"\0" * 100, "SQLite"),
    ],
)
def test_what_was_downloaded_instead_of_data_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_source(path, None)
    assert said in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
@pytest.mark.parametrize("setting", ["dataset_name", "test_file"])
def test_a_pipe_and_a_link_to_nothing_are_not_said_to_be_missing(tmp_path: Path, reviews: Path, setting: str) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to("moved.csv")
    for path, said in ((pipe, "파이프나 장치"), (link, "가리키는 파일이 없는 링크")):
        data = DataSettings.model_validate({"dataset_name": str(reviews), setting: str(path)})
        with pytest.raises(DataError, match=said) as error:
            find_sources(data)
        assert f"혹시 {path}입니까" not in str(error.value)


def test_ten_thousand_columns_are_read_and_not_all_listed(tmp_path: Path) -> None:
    names = [f"열{number}" for number in range(10_000)]
    path = tmp_path / "wide.csv"
    path.write_text(",".join(names) + "\n" + ",".join("1" * 10_000) + "\n", encoding="utf-8")
    raw = find_sources(named(path))["train"]
    assert len(raw.columns) == 10_000 and len(next(iter(raw.rows))) == 10_000


def test_columns_that_are_not_read_are_counted_where_they_are_many(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    more = [f"열{number}" for number in range(300)]
    rows = [",".join([f"글 {number}", "가" if number % 2 else "나", *"1" * 300]) for number in range(30)]
    path.write_text("\n".join([",".join(["text", "label", *more]), *rows]), encoding="utf-8")
    run = cli("plan", *arguments_for(tiny_model, path, tmp_path / "model"))
    assert run.code == 0, run.err
    assert "열0, 열1" in run.err and "외 280개" in run.err and "열299" not in run.err


def test_a_file_of_a_folder_that_is_in_no_split_is_told(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(reviews, tmp_path / "reviews")
    shutil.copy(folder / "train.csv", folder / "추가.csv")
    (folder / "notes.md").write_text("메모", encoding="utf-8")
    flags = ["--set", "data.train_rows=40"]
    run = cli("plan", *arguments_for(tiny_model, folder, tmp_path / "model", *flags))
    assert run.code == 0, run.err
    assert "읽지 않은 파일: 추가.csv" in run.err and "notes.md" not in run.err
    assert "읽지 않은 파일" not in cli("plan", *arguments_for(tiny_model, reviews, tmp_path / "model", *flags)).err


def test_a_file_of_a_folder_that_a_setting_names_is_read(reviews: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reviews, tmp_path / "reviews")
    shutil.copy(folder / "test.csv", folder / "추가.csv")
    data = DataSettings.model_validate({"dataset_name": str(folder), "validation_file": str(folder / "추가.csv")})
    assert not any("읽지 않은" in note for raw in find_sources(data).values() for note in raw.notes)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("multi-label-classification", {"text": "가", "label": DEEP}),
        ("token-classification", {"tokens": DEEP, "label": DEEP}),
        ("question-answering", {"question": "뭐?", "context": "가", "answers": DEEP}),
        ("text-generation", {"messages": DEEP}),
        ("text-generation", {"messages": [{"role": "assistant", "tool_calls": DEEP}]}),
        ("text-generation", {"messages": [{"role": "user", "content": "가"}], "tools": DEEP}),
    ],
)
def test_a_cell_nested_too_deeply_is_a_bad_row(task: str, row: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        find_task(Settings.model_validate({"model": {"task": task}})).reads.prepare(row)
