"""Where export may write: an empty folder, beside files of the user's, or over its own earlier export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exceptions import SettingsError
from finetuning.commands.export import check_export_folder
from tests.support.cli import Cli, arguments_for


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "config.json"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "m.gguf", "run.json"]
)
def test_a_folder_with_another_model_is_refused_by_name(adapter: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    with pytest.raises(SettingsError, match=name) as error:
        check_export_folder(tmp_path / "out", adapter)
    assert str(tmp_path / "out") in error.value.where


def test_the_adapter_itself_and_a_file_are_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="어댑터가 있는 폴더"):
        check_export_folder(adapter, adapter)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="파일입니다"):
        check_export_folder(tmp_path / "file", adapter)


def test_files_of_the_users_and_an_earlier_export_do_not_stop_it(adapter: Path, tmp_path: Path) -> None:
    out = adapter / "merged"
    check_export_folder(out, adapter)
    out.mkdir()
    (out / "notes.txt").touch()
    check_export_folder(out, adapter)
    (out / "config.json").touch()
    (out / "export.json").write_text(json.dumps({"format": "merged", "model": ".."}), encoding="utf-8")
    check_export_folder(out, adapter)
    moved = shutil.move(adapter, tmp_path / "moved")
    check_export_folder(Path(moved) / "merged", Path(moved))
    with pytest.raises(SettingsError, match="다른 모델"):
        check_export_folder(Path(moved) / "merged", tmp_path / "another")


def test_export_keeps_a_base_and_may_be_repeated(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "model"
    shutil.copytree(tiny_model, base)
    run = cli(*arguments_for(base, reviews, adapter, "--epochs", "1", "--set", "model.adapter.method=lora"))
    assert run.code == 0, run.err
    for folder in (base, adapter):
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        refused = cli("export", "--output_dir", adapter, "--output", folder)
        assert refused.code == 2
        assert str(folder) in refused.err and "config.json" in refused.err
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    for replaces in (False, True):
        exported = cli("export", "--model_name", adapter)
        assert exported.code == 0, exported.err
        assert ("이전에 내보낸 파일(merged 형식)" in exported.out + exported.err) == replaces
    assert (adapter / "merged" / "model.safetensors").is_file()
