"""The way of attention on a GPU: chosen by the card and the model, and given up where its trial fails."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

import tests.support.attention_kernels as attention_kernels
from finetuning.models.attention import AttentionNeeds, choose_way
from finetuning.models.attention_trial import usable_way
from finetuning.models.probes import attends_within_sequences, drops_padding
from finetuning.types import NO_CARD, Card
from tests.support.architectures import CAUSAL, ENCODERS, made

T4, RTX3090, H100 = ((7, 5), "fp16", True), ((8, 6), "bf16", True), ((9, 0), "bf16", True)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("card", "needs", "name", "reasons"),
    [
        (H100, AttentionNeeds(BF16, 64, 0.1), "flash", []),  # BERT
        (RTX3090, AttentionNeeds(BF16, 256, 0.0, window=512), "flash", []),  # Gemma 3
        (RTX3090, AttentionNeeds(BF16, 256, 0.1), "efficient", ["head 크기 256"]),
        (H100, AttentionNeeds(BF16, 256, 0.1), "flash", []),
        (H100, AttentionNeeds(BF16, 512, 0.0, window=512), "flex", ["head 크기 512", "sliding window 512"]),  # Gemma 4
        (T4, AttentionNeeds(FP16, 64, 0.1), "efficient", ["compute capability 7.5"]),
        (T4, AttentionNeeds(FP16, 128, 0.0, window=4096), "flex", ["compute capability 7.5", "4,096"]),
        (T4, AttentionNeeds(FP16, 128, 0.1, window=4096), "padded", ["dropout 0.1"]),
        (H100, AttentionNeeds(FP32, 64), "efficient", ["float32"]),
        (((8, 0), "bf16", False), AttentionNeeds(FP32, 64, window=8), "padded", ["float32", "Triton"]),
        (((7, 0), "bf16", True), AttentionNeeds(BF16, 64), "flex", ["bfloat16"]),
        (H100, AttentionNeeds(BF16, 12), "flex", ["head 크기 12"]),
    ],
)
def test_the_first_kernel_that_takes_what_the_model_asks_for(
    card: tuple[tuple[int, int], str, bool], needs: AttentionNeeds, name: str, reasons: list[str]
) -> None:
    way = choose_way(Card(*card), needs)
    assert way.name == name and (way.attend is None) == (name == "padded")
    assert all(reason in way.line() for reason in reasons)
    assert bool(way.reason) == bool(reasons)


# --- the trial ---


@pytest.fixture
def kernels() -> Iterator[None]:
    with attention_kernels.kernels_on_cpu():
        yield


def way_of(name: str, card: tuple[tuple[int, int], str, bool] | None = H100, meta: bool = False) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any
    if name in CAUSAL:
        model = AutoModelForCausalLM.from_config(made(CAUSAL[name]))
        runs: Any = partial(attends_within_sequences, model, 64)
    else:
        model = AutoModel.from_config(made(ENCODERS[name]))
        runs = partial(drops_padding, model)
    if meta:
        model.to("meta")
    state = torch.get_rng_state()
    way = usable_way(model, 64, NO_CARD if card is None else Card(*card), runs)
    assert torch.equal(torch.get_rng_state(), state)
    return way


@pytest.mark.parametrize("name", ["llama", "gemma3-text", "mistral", "exaone4", "gpt2", "bert", "modernbert"])
def test_a_way_that_agrees_with_padded_rows_is_taken(kernels: None, name: str) -> None:
    assert way_of(name).name == "flash"
    way = way_of(name, ((7, 5), "no", True))  # in float32, as FlexAttention runs on a CPU, too
    assert way.name == ("efficient" if name in ("llama", "gpt2", "bert") else "flex")
    assert way_of(name, meta=True).name == "flash"  # as `plan` and the estimate have it


def test_without_a_cuda_card_nothing_is_chosen_or_told() -> None:
    way = way_of("llama", None)
    assert way.name == "padded" and way.line() == ""


def test_a_kernel_that_is_not_there_is_told() -> None:
    way = way_of("llama")
    assert way.attend is None
    assert "flash 불가: 시험해 보니" in way.line() and "_flash_attention_forward" in way.line()
    assert "패딩한 행으로 펼쳐" in way.line()


def test_a_window_that_is_one_too_far_is_seen(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    window = attention_kernels._window
    monkeypatch.setattr(attention_kernels, "_window", lambda left, right: window(left and left + 1, right))
    assert "결과가 다름" in way_of("mistral").line()


def test_a_wrong_gradient_is_seen(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = attention_kernels._backward
    monkeypatch.setattr(attention_kernels, "_backward", lambda *given: [2 * one for one in backward(*given)])
    assert "결과가 다름" in way_of("bert").line()


def test_sequences_that_see_each_other_are_seen(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(bounds: Any, *tensors: Any) -> Iterator[Any]:
        yield tuple(tensor.transpose(0, 1) for tensor in tensors)

    monkeypatch.setattr(attention_kernels, "_parts", whole)
    assert "결과가 다름" in way_of("llama").line()
