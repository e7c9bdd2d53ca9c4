"""Numbers in YAML are what they look like, in a file and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config_manager import ConfigManager
from exceptions import SettingsError
from finetuning.config.overrides import Override, parse_assignment


def read(folder: Path, text: str) -> Any:
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    return ConfigManager.load(folder / "my.yaml", {})


def assigned(text: str) -> Any:
    key, value = parse_assignment(text)
    return ConfigManager.load(None, {key: Override(value, "--set")})


def test_a_leading_zero_does_not_make_an_octal_number(tmp_path: Path) -> None:
    assert read(tmp_path, "data: {batch_size: 010}").data.batch_size == 10
    assert assigned("data.batch_size=010").data.batch_size == 10


@pytest.mark.parametrize("written", ["1:30", "0x10", "0b11"])
def test_a_number_that_yaml_alone_would_see_is_refused(tmp_path: Path, written: str) -> None:
    for ask in (
        lambda: read(tmp_path, f"training: {{epochs: {written}}}"),
        lambda: assigned(f"training.epochs={written}"),
    ):
        with pytest.raises(SettingsError, match="숫자를 써야 합니다"):
            ask()


def test_a_date_and_a_code_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, "data: {dataset_config: 2024-01-01}").data.dataset_config == "2024-01-01"
    label_map = {"01": "긍정", "1_0": "부정"}
    assert read(tmp_path, "data: {label_map: {01: 긍정, 1_0: 부정}}").data.label_map == label_map


def test_a_label_that_an_assignment_maps_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="두 번"):
        parse_assignment("data.label_map={a: 긍정, a: 부정}")


def test_a_file_that_never_ends_is_no_settings_file(tmp_path: Path) -> None:
    (tmp_path / "zeros.yaml").symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match="설정 파일"):
        ConfigManager.load(tmp_path / "zeros.yaml", {})
