"""The files of published data sets, found under the names that their copies have."""

from __future__ import annotations

from pathlib import Path

import pytest

from exceptions import DataError
from finetuning.inference.suite.files import find_files, read_local


@pytest.mark.parametrize(
    "name", ["Law-test.csv", "data/Law-test.csv", "law/test-00000-of-00002.parquet", "Law/test/0000.parquet",
             "Law/published-test.parquet", "Law_test.jsonl"],
)  # fmt: skip
def test_a_split_is_found_in_every_usual_layout(tmp_path: Path, name: str) -> None:
    others = ["Criminal-Law-test.csv", "Law-train.csv", "Laws-test.csv", "Law-testing.csv", "README.md", "Law-test.txt"]
    for one in (*others, name):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).touch()
    assert find_files(tmp_path, "Law", ["test"]) == {"test": [tmp_path / name]}
    assert set(find_files(tmp_path, "Law", ["test", "train", "dev"])) == {"test", "train"}


def test_data_that_are_not_there_are_told_with_the_name_that_they_should_have(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        read_local(tmp_path, "skt/kobest_v1", "boolq", ["test", "train"], str(tmp_path / "cache"))
    assert "skt/kobest_v1(boolq)" in told.value.what and str(tmp_path / "boolq" / "test.parquet") in told.value.remedy
