"""The first line of the log, and GPUs that are there and cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exceptions import SettingsError
from finetuning.device import report
from finetuning.device.report import device_line, has_nvidia_card, report_device, runs_on
from finetuning.device.runtime import Runtime


def runtime_on(device: str, precision: str = "no") -> Runtime:
    accelerator: Any = SimpleNamespace(device=torch.device(device), mixed_precision=precision, num_processes=1)
    return Runtime(accelerator)


@pytest.fixture
def t4(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {
        "get_device_name": lambda device=None: "Tesla T4",
        "get_device_capability": lambda device=None: (7, 5),
        "mem_get_info": lambda device=None: (14 * 2**30, 15 * 2**30),
        "get_arch_list": lambda: ["sm_75", "sm_80", "compute_120"],
    }
    for name, function in made.items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.mark.usefixtures("t4")
def test_the_line_names_card_capability_memory_precision_and_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_line(runtime_on("cuda", "fp16")) == (
        "장치: Tesla T4 (compute capability 7.5, 메모리 15.0 GiB 중 14.0 GiB 비어 있음), 정밀도: fp16, "
        "attention: memory-efficient"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 6))
    assert device_line(runtime_on("cuda", "bf16")).endswith("정밀도: bf16, attention: flash, memory-efficient")
    assert device_line(runtime_on("cpu")).startswith("장치: cpu (스레드 ")


@pytest.mark.parametrize(
    ("codes", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90"], (8, 6), True),  # code of 8.0 runs on 8.6
        (["sm_75", "sm_86"], (8, 0), False),
        (["sm_75", "sm_80"], (7, 0), False),  # a V100 under a wheel that has left it
        (["sm_80", "compute_80"], (12, 0), True),  # compiled for a newer card when it is first used
        (["sm_80", "sm_90"], (12, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_100f"], (10, 3), True),
    ],
)
def test_code_runs_on_cards_of_its_kind(codes: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(codes, capability) == runs


@pytest.mark.usefixtures("t4")
def test_a_card_without_code_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    report_device(runtime_on("cuda"))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    with pytest.raises(SettingsError, match="코드가 없습니다") as error:
        report_device(runtime_on("cuda"))
    assert "Tesla T4" in error.value.where and "7.5" in error.value.where and "sm_90" in error.value.where
    assert "CUDA_VISIBLE_DEVICES=-1" in error.value.remedy


@pytest.mark.parametrize(("cuda", "told"), [(None, "CPU용이어서"), ("13.0", "드라이버")])
def test_a_card_that_is_not_used_is_told(
    cuda: str | None, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(report, "has_nvidia_card", lambda: True)
    with caplog.at_level(logging.WARNING):
        report_device(runtime_on("cpu"))
    assert told in caplog.text
    assert (cuda is None) or "Found no NVIDIA driver" in caplog.text
    caplog.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the user's own wish
    report_device(runtime_on("cpu"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(report, "has_nvidia_card", lambda: False)  # a laptop without a card
    report_device(runtime_on("cpu"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("vendor", "kind", "is_card"), [("0x10de", "0x030000", True), ("0x10de", "0x020000", False),
                                                         ("0x8086", "0x030000", False)])  # fmt: skip
def test_a_card_is_found_on_the_bus(
    vendor: str, kind: str, is_card: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0x10de is NVIDIA, which also makes network cards (class 0x02)."""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "0000:01:00.0" / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(report, "_PCI_DEVICES", tmp_path)
    monkeypatch.setattr(report, "_DRIVER", tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert has_nvidia_card() == is_card
