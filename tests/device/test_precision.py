"""The precision that a run computes in."""

from __future__ import annotations

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.device.precision import allow_tf32, autocast_precision


def settings_of(mixed: bool) -> Settings:
    return Settings.model_validate({"memory": {"mixed_precision": mixed}})


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_uses_the_best_precision_it_supports(
    has_bfloat16: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert autocast_precision(settings_of(mixed=True)) == precision
    assert autocast_precision(settings_of(mixed=False)) == "no"


@pytest.mark.parametrize(("precision", "is_tf32"), [("bf16", True), ("fp16", True), ("no", False)])
def test_float32_products_use_tf32_under_mixed_precision(
    precision: str, is_tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        allow_tf32(precision)
        assert (products.fp32_precision == "tf32") == is_tf32
    finally:
        products.fp32_precision = before
