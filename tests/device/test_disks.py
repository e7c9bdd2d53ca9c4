"""Which processes see one disk, and what those of other disks are given of the first one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuning.commands.machines import model_for_all
from finetuning.device.disks import disks_behind
from tests.support.machines import on_machines


@pytest.mark.parametrize("names", ["aa", "ab", "aab", "aba", "abb", "abcb"])
def test_machines_of_one_folder_are_found_and_nothing_is_left_there(names: str, tmp_path: Path) -> None:
    folders = [tmp_path / name / "model" for name in names]
    old = [folder / ".seen-0123456789abcdef-4194305" for folder in set(folders)]  # of a start that was killed
    for mark in old:
        mark.parent.mkdir(parents=True)
        mark.touch()
    found = on_machines(folders, disks_behind)
    assert [one.keeper for one in found] == [names.index(name) for name in names]
    assert {one.keepers for one in found} == {tuple(sorted({names.index(name) for name in names}))}
    assert [path for mark in old for path in mark.parent.iterdir()] == []


def test_folders_that_were_made_to_look_are_removed(tmp_path: Path) -> None:
    assert [one.own for one in on_machines([tmp_path / name / "model" for name in "ab"], disks_behind)] == [0, 1]
    assert list(tmp_path.iterdir()) == []


def test_other_disks_are_lent_the_files_of_the_model_alone(tmp_path: Path) -> None:
    folders = [tmp_path / name / "model" for name in "aab"]
    model = {
        "config.json": "{}", "model.safetensors": "weights", "1_Pooling/config.json": "{}",
        "2_Normalize/odd.json": "{}",
        "modules.json": '[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Normalize"}, {"path": "../other"}]',
        "additional_chat_templates/short.jinja": "{{ messages }}",
    }  # fmt: skip
    others = ["merged/model.safetensors", "checkpoints/state.json", ".hidden/a.json", "samples.csv", "../other/a.json"]
    for name, text in (model | dict.fromkeys(others, "other")).items():
        (folders[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (folders[0] / name).write_text(text)

    def read(folder: Path, runtime: Any) -> dict[str, str] | None:
        with model_for_all(folder, disks_behind(folder, runtime), runtime) as found:
            if found == folder:
                return None
            files = [path for path in found.rglob("*") if path.is_file()]
            return {path.relative_to(found).as_posix(): path.read_text() for path in files}

    assert on_machines(folders, read) == [None, None, model]
    assert not folders[2].exists()
