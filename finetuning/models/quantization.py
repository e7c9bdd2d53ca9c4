"""4-bit and 8-bit base weights through bitsandbytes: what supports them, and which layers are quantised."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exceptions import ModelError, SettingsError, first_line_of
from finetuning.config.schema import Settings
from finetuning.device.precision import autocast_precision
from finetuning.models.adapters import stacks
from finetuning.models.dtypes import base_dtype

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

_DEVICES = ("cuda", "xpu", "cpu")
_BLOCK = 64  # weights that share a scale; if a block spans two rows, bitsandbytes 0.50 reads it wrong on a CPU


def check_device(settings: Settings, device: torch.device) -> None:
    """Check that bitsandbytes can quantise on a device, by trying it on a few weights.

    Args:
        settings: The settings in force.
        device: The device that the model goes to.

    Raises:
        SettingsError: bitsandbytes is not installed or does not support the device.
    """
    kind = settings.model.quantization
    if kind is None:
        return
    where = f"model.quantization: {kind}"
    if device.type not in _DEVICES:
        raise SettingsError(
            f"{device.type} 장치에서는 {kind} 양자화를 쓸 수 없습니다.",
            where=where,
            remedy="NVIDIA GPU나 CPU에서 실행하거나, model.quantization을 null로 두세요.",
        )
    if kind == "8bit" and device.type == "cpu" and settings.model.adapter.method == "dora":
        raise SettingsError(  # bitsandbytes 0.50 loses the scales of the weights, which DoRA reads
            "CPU에서는 8bit로 양자화한 가중치에 DoRA를 쓸 수 없습니다.",
            where=f"{where}, model.adapter.method: dora",
            remedy="model.adapter.method를 lora로 하거나, model.quantization을 4bit로 하세요.",
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast in every layer
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise SettingsError(
            f"{kind} 양자화에는 bitsandbytes가 필요합니다.",
            where=where,
            remedy="`pip install bitsandbytes`로 설치하거나, model.quantization을 null로 두세요.",
        ) from None
    try:
        _quantise_a_little(kind, device)
    except Exception as error:
        reason = first_line_of(error)
        raise SettingsError(
            f"bitsandbytes로는 이 장치({device.type})에서 {kind} 양자화를 할 수 없습니다: {reason}",
            where=where,
            remedy="`pip install -U bitsandbytes`로 새 버전을 설치하거나, model.quantization을 null로 두세요.",
        ) from error


def _quantise_a_little(kind: str, device: torch.device) -> None:
    """Quantise 64 × 64 weights on the device; errors of bitsandbytes are raised unchanged."""
    import torch
    from bitsandbytes import functional

    weight = torch.ones(64, 64, dtype=torch.float16, device=device)
    if kind == "4bit":
        functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    else:
        functional.int8_vectorwise_quant(weight)


def quantization_config(settings: Settings, outline: PreTrainedModel) -> BitsAndBytesConfig:
    """Return how to quantise the linear layers of a model's blocks; embeddings, norms and heads keep their precision.

    4bit is NF4 with double quantisation (Dettmers et al. 2023), computed in the precision of the run. 8bit is
    LLM.int8() (Dettmers et al. 2022).

    Args:
        settings: The settings in force.
        outline: The model on the meta device.

    Returns:
        The argument of `from_pretrained`.

    Raises:
        ModelError: The model has no layers that can be quantised.
    """
    from transformers import BitsAndBytesConfig

    kind, linear = settings.model.quantization, _input_sizes(outline)
    whole = sorted(linear.keys() - _quantized_layers(outline, kind))
    if len(whole) == len(linear):
        raise ModelError(
            "이 모델에는 양자화할 수 있는 linear 층이 없습니다.",
            where=f"model.quantization: {kind}",
            remedy="model.quantization을 null로 두세요.",
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    precisions = {"bf16": "bfloat16", "fp16": "float16", "no": settings.model.dtype}
    # FSDP2 divides floating-point weights alone, and gathers those of this dtype as they are
    storage = "uint8" if settings.distributed.shard == "none" else base_dtype(settings)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precisions[autocast_precision(settings)], bnb_4bit_quant_storage=storage,
        llm_int8_skip_modules=whole,
    )  # fmt: skip


def quantized_weights(outline: PreTrainedModel, kind: str | None) -> dict[str, int]:
    """Return how many weights each layer of an outline has that will be quantised; kind: `model.quantization`."""
    weights = {name: outline.get_parameter(f"{name}.weight") for name in _quantized_layers(outline, kind)}
    return {name: weight.numel() for name, weight in weights.items() if not weight.requires_grad}


def _quantized_layers(model: PreTrainedModel, kind: str | None) -> set[str]:
    """Return the names of the linear layers in blocks that a kind of quantisation can take; none for no kind."""
    blocks = tuple(f"{name}." for name in stacks(model))
    return {
        name
        for name, size in _input_sizes(model).items()
        if kind is not None and name.startswith(blocks) and not (kind == "4bit" and size % _BLOCK)
    }


def _input_sizes(model: PreTrainedModel) -> dict[str, int]:
    """Return the number of inputs of each linear layer, by its name."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[name] = module.in_features
        elif isinstance(module, Conv1D):
            found[name] = module.nx
    return found


def keep_weights_as_loaded(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for inference on a CPU, in place.

    On a CPU with AVX512-BF16 it repacks them with scales rounded to bfloat16, so training after an evaluation would go
    on with other weights than before it.

    Args:
        model: The quantised model.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check_not_quantised_yet(config: PreTrainedConfig, name: str) -> None:
    """Check that a model was not saved quantised: an adapter could not be merged into full-precision weights.

    Args:
        config: The model's config.
        name: The model, for the error message.

    Raises:
        ModelError: It was saved quantised.
    """
    if getattr(config, "quantization_config", None) is None:
        return
    raise ModelError(
        "이미 양자화되어 저장된 모델입니다.",
        where=f"model.name: {name}",
        remedy="양자화하지 않은 원래 모델을 model.name에 쓰세요. 읽을 때 양자화합니다.",
    )
