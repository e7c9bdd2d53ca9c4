"""The folder of an export: whole or as it was before, and only its own files are replaced."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from exceptions import ResourceError
from finetuning.exports.folder import record_of, sizes_in, staged
from finetuning.files import writing


def test_a_full_disk_leaves_nothing_of_a_new_folder_and_an_earlier_export_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for expected in ([], ["export.json", "model.gguf", "mine.txt"]):
        with pytest.raises(ResourceError, match="디스크가 가득"), staged(folder, {"format": "gguf"}) as place:
            (place / "model.gguf").write_bytes(b"new")
            raise OSError(errno.ENOSPC, "No space left on device")
        assert (
            sorted(path.name for path in folder.iterdir() if folder.exists()) == sorted(expected)
            if expected
            else (not folder.exists())
        )
        with staged(folder, {"format": "gguf"}) as place:
            (place / "model.gguf").write_bytes(b"old")
        (folder / "mine.txt").touch()
    assert (folder / "model.gguf").read_bytes() == b"old"


def test_a_file_in_the_place_of_a_folder_is_no_matter_of_free_space(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "out"
    with pytest.raises(ResourceError, match="폴더가 있어야 할 곳에 파일") as error, staged(folder, {"format": "gguf"}):
        pass
    assert "경로" in error.value.remedy and "공간" not in error.value.remedy


def test_a_failure_deeper_down_names_the_folder_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(ResourceError) as error, staged(folder, {"format": "gguf"}) as place, writing("쓰기", place):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.where == str(folder)


def test_files_that_an_export_wrote_before_are_replaced_and_those_of_the_user_stay(tmp_path: Path) -> None:
    with staged(tmp_path, {"format": "gguf", "model": ".."}) as place:
        (place / "model-f16.gguf").write_bytes(b"1234")
        (place / "Modelfile").touch()
    (tmp_path / "mine.txt").touch()
    with staged(tmp_path, {"format": "gguf-q8_0", "model": ".."}) as place:
        (place / "model-q8_0.gguf").write_bytes(b"12")
        (place / "Modelfile").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"model-q8_0.gguf", "Modelfile", "mine.txt", "export.json"}
    assert record_of(tmp_path)["format"] == "gguf-q8_0"
    assert sizes_in(tmp_path)["model-q8_0.gguf"] == 2 and "mine.txt" not in sizes_in(tmp_path)


def test_a_record_that_names_files_elsewhere_removes_none(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").touch()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "export.json").write_text('{"files": ["../keep.txt", 3, "/etc/hosts"]}', encoding="utf-8")
    with staged(folder, {}) as place:
        (place / "config.json").touch()
    assert (tmp_path / "keep.txt").exists()
