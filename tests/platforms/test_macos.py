"""macOS, simulated: its GPU, its units, disks that ignore case or give Hangul back as single letters."""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from exceptions import SettingsError
from finetuning.commands.run_folder import RunFolder, check_not_its_own_base, newest_run
from finetuning.data import parallel
from finetuning.device.report import report_device
from finetuning.device.runtime import start_runtime
from finetuning.device.usage import peak_bytes


@pytest.fixture
def apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("mps"))


def test_the_gpu_of_a_mac_is_left_alone_and_that_is_told(apple_gpu: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    runtime = start_runtime("no", deterministic=False)
    assert runtime.device.type == "cpu"
    report_device(runtime)
    assert [record.getMessage() for record in caplog.records if "MPS" in record.getMessage()] == [
        "Apple GPU(MPS)에서는 시험하지 않아 쓰지 않고 CPU로 계산합니다."
    ]


def test_no_word_of_that_gpu_where_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report_device(start_runtime("no", deterministic=False))
    assert "MPS" not in caplog.text


def test_peak_memory_is_in_bytes_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=4096))
    monkeypatch.setattr(sys, "platform", "linux")
    assert peak_bytes(torch.device("cpu")) == 4096 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_bytes(torch.device("cpu")) == 4096


def test_texts_are_tokenised_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="Darwin"), raising=False)
    assert not parallel.can_fork()


@pytest.fixture
def other_name(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A folder by its own name and by another that the disk takes for the same one, for which a link stands here."""
    name, other = request.param
    (tmp_path / name).mkdir()
    with suppress(OSError):  # this disk itself takes them for one, or has no links
        (tmp_path / other).symlink_to(name)
    if not (tmp_path / other).is_dir():
        pytest.skip("no links here")
    return tmp_path / name, tmp_path / other


CASE = ("model", "MODEL")
LETTERS = ("결과", unicodedata.normalize("NFD", "결과"))


@pytest.mark.parametrize("other_name", [CASE, LETTERS], indirect=True)
def test_a_base_by_its_other_name_is_not_written_over(other_name: tuple[Path, Path]) -> None:
    base, same = other_name
    with pytest.raises(SettingsError, match="덮어쓰지 않습니다"):
        check_not_its_own_base(str(base), same)


@pytest.mark.parametrize("other_name", [CASE, LETTERS], indirect=True)
def test_the_newest_run_is_found_by_the_other_name(other_name: tuple[Path, Path]) -> None:
    first, same = other_name
    for number in (2, 3):
        folder = first.with_name(f"{first.name}-{number}")
        folder.mkdir()
        RunFolder(folder, first.name, number).record()
    assert newest_run(same).path.name == f"{first.name}-3"


def test_a_link_of_another_name_means_the_run_that_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model-2").mkdir()
    RunFolder(tmp_path / "model-2", "model", 2).record()
    (tmp_path / "best").symlink_to("model")
    assert newest_run(tmp_path / "best").path == tmp_path / "best"
