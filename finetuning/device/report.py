"""What the log says first: the device and how it computes, and what keeps a GPU that is there from being used."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from exceptions import SettingsError, first_line_of
from finetuning.device.launch import unused_settings
from finetuning.device.runtime import Runtime, has_apple_gpu

_log = logging.getLogger(__name__)
_GIB = 2**30
_PCI_DEVICES = Path("/sys/bus/pci/devices")
_DRIVER = Path("/proc/driver/nvidia/version")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI's number of the vendor, and the first digits of its class of displays
_ON_CPU = "CPU로 계산하려면 CUDA_VISIBLE_DEVICES=-1을 설정하세요."


def report_device(runtime: Runtime) -> None:
    """Log the device of a run, and warn where a GPU or a setting of accelerate is there and is not used.

    Args:
        runtime: The run's device and precision.

    Raises:
        SettingsError: The installed PyTorch has no code for the GPU.
    """
    _log.info("%s", device_line(runtime))
    for note in unused_settings(os.environ, runtime.precision):
        _log.warning("%s", note)
    if runtime.is_cuda:
        check_has_code(runtime.device)
    elif has_apple_gpu():
        _log.info("Apple GPU(MPS)에서는 시험하지 않아 쓰지 않고 CPU로 계산합니다.")
    elif runtime.is_cpu and not _gpus_are_hidden() and has_nvidia_card():
        _log.warning("%s", _why_not_used())


def device_line(runtime: Runtime) -> str:
    """Return one Korean line: the device, its capability and memory, the precision, and the kernels of attention."""
    details, attention = f" (스레드 {torch.get_num_threads()}개)" if runtime.is_cpu else "", "sdpa"
    if runtime.is_cuda:
        major, minor = torch.cuda.get_device_capability(runtime.device)
        free, total = torch.cuda.mem_get_info(runtime.device)
        details = (
            f" (compute capability {major}.{minor}, 메모리 {total / _GIB:.1f} GiB 중 {free / _GIB:.1f} GiB 비어 있음)"
        )
        # flash attention takes 16-bit numbers without a mask, on cards since Ampere
        is_flash = major >= 8 and runtime.precision != "no"
        attention = "flash, memory-efficient" if is_flash else "memory-efficient"
    precision = runtime.precision if runtime.precision != "no" else "float32"
    processes = f", 프로세스: {runtime.processes}개" if runtime.processes > 1 else ""
    return f"장치: {runtime.device_name}{details}, 정밀도: {precision}, attention: {attention}{processes}"


def check_has_code(device: torch.device) -> None:
    """Check that the installed PyTorch has kernels for a GPU.

    Args:
        device: The GPU.

    Raises:
        SettingsError: It has none, so that the first kernel would fail.
    """
    capability, codes = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not codes or runs_on(codes, capability):
        return
    raise SettingsError(
        "설치된 PyTorch에 이 GPU에서 실행할 수 있는 코드가 없습니다.",
        where=f"{torch.cuda.get_device_name(device)} (compute capability {capability[0]}.{capability[1]}), "
        f"PyTorch {torch.__version__} ({', '.join(codes)})",
        remedy="이 GPU를 지원하는 CUDA 버전의 PyTorch를 설치하세요. 오래된 GPU라면 "
        f"`pip install torch --index-url https://download.pytorch.org/whl/cu126`을 써 보세요. {_ON_CPU}",
    )


def runs_on(codes: Sequence[str], capability: tuple[int, int]) -> bool:
    """Return whether some code of a PyTorch runs on a card.

    Args:
        codes: As of `torch.cuda.get_arch_list`: `sm_86` is machine code for cards of the same major number and this
            minor number or a larger one, `compute_80` is compiled for any card from that number on. Code whose name
            ends with `a` runs on this very number alone.
        capability: The card's compute capability.

    Returns:
        Whether there is such code.
    """
    for code in codes:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", code)
        if found is None:
            continue
        number = int(found[2]), int(found[3])
        if found[4] == "a":
            fits = number == capability
        else:
            fits = number <= capability and (found[1] == "compute" or number[0] == capability[0])
        if fits:
            return True
    return False


def has_nvidia_card() -> bool:
    """Return whether this machine has an NVIDIA card, as far as its driver or its PCI bus shows."""
    if shutil.which("nvidia-smi") is not None or _DRIVER.exists():
        return True
    try:
        return any(
            (device / "vendor").read_text().strip() == _NVIDIA and (device / "class").read_text().startswith(_DISPLAY)
            for device in _PCI_DEVICES.iterdir()
        )
    except OSError:  # no such folder, as on Windows
        return False


def _gpus_are_hidden() -> bool:
    """Return whether the user has hidden the GPUs from CUDA."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def _why_not_used() -> str:
    """Return why torch does not use the NVIDIA card, and what to do."""
    if torch.version.cuda is None:
        return (
            f"NVIDIA GPU가 있지만 설치된 PyTorch({torch.__version__})가 CPU용이어서 GPU를 쓰지 못합니다. "
            f"https://pytorch.org/get-started/locally 의 명령으로 CUDA용 PyTorch를 설치하세요. {_ON_CPU}"
        )
    try:
        torch.cuda.init()
        reason = "GPU를 찾지 못했습니다"
    except (RuntimeError, AssertionError) as error:
        reason = first_line_of(error)
    return (
        f"NVIDIA GPU가 있지만 PyTorch({torch.__version__})가 GPU를 쓰지 못합니다: {reason} "
        "nvidia-smi로 드라이버를 확인하세요. 드라이버가 없거나 오래되었으면 새 드라이버를 설치하거나, 드라이버에 맞는 "
        f"CUDA 버전의 PyTorch를 설치하세요. {_ON_CPU}"
    )
