"""The numeric precision that a run computes in."""

from __future__ import annotations

from finetuning.config.schema import Settings


def autocast_precision(settings: Settings) -> str:
    """Choose autocast's precision by `memory.mixed_precision` and the machine.

    Args:
        settings: The settings of the run.

    Returns:
        "bf16" if the device supports it, else "fp16" on CUDA, else "no".
    """
    import torch

    if not settings.memory.mixed_precision:
        return "no"
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    checks = [getattr(torch.cpu, name, lambda: False) for name in names]
    return "bf16" if any(check() for check in checks) else "no"


def allow_tf32(precision: str) -> None:
    """Compute remaining float32 matrix products on CUDA in TF32 if the run uses mixed precision, and only then."""
    import torch

    if torch.cuda.is_available():
        torch.backends.cuda.matmul.fp32_precision = "ieee" if precision == "no" else "tf32"
