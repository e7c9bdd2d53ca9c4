"""4-bit and 8-bit base weights through bitsandbytes: where that can be done, and to which layers it is done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.device.precision import autocast_precision
from finetuning.models.adapters import stacks
from finetuning.models.gguf_reader import is_gguf

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

_DEVICES = ("cuda", "xpu", "cpu")
_BLOCK = 64  # weights that share a scale; where they are of two rows, bitsandbytes 0.50 reads them wrong on a CPU
_TRAINED_BESIDE = ("lora", "dora")


def check_combination(settings: Settings) -> None:
    """SettingsError where quantised weights would have to be trained, or are asked of a file that is quantised."""
    model = settings.model
    if model.quantization is None:
        return
    if model.adapter.method not in _TRAINED_BESIDE:
        raise SettingsError(
            "양자화한 가중치는 학습할 수 없어 LoRA나 DoRA가 필요합니다.",
            where=f"model.quantization: {model.quantization}, model.adapter.method: {model.adapter.method}",
            remedy="model.adapter.method를 lora나 dora로 하거나, model.quantization을 null로 두세요.",
        )
    if is_gguf(model.name):
        raise SettingsError(
            "GGUF 파일은 풀어서 읽으므로 다시 양자화할 수 없습니다.",
            where=f"model.quantization: {model.quantization}, model.name: {model.name}",
            remedy="safetensors로 된 원래 모델을 쓰거나, model.quantization을 null로 두세요.",
        )


def check_device(settings: Settings, device: torch.device) -> None:
    """SettingsError where bitsandbytes is not installed or cannot quantise on the device; found out by trying."""
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
        raise SettingsError(  # bitsandbytes 0.50 loses the scales of weights that peft reads for DoRA
            "CPU에서는 8bit로 양자화한 가중치에 DoRA를 쓸 수 없습니다.",
            where=f"{where}, model.adapter.method: dora",
            remedy="model.adapter.method를 lora로 하거나, model.quantization을 4bit로 하세요.",
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast, at every layer
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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(
            f"bitsandbytes가 이 장치({device.type})에서 {kind} 양자화를 하지 못합니다: {reason}",
            where=where,
            remedy="`pip install -U bitsandbytes`로 새 버전을 설치하거나, model.quantization을 null로 두세요.",
        ) from error


def _quantise_a_little(kind: str, device: torch.device) -> None:
    import torch
    from bitsandbytes import functional

    weight = torch.ones(64, 64, dtype=torch.float16, device=device)
    if kind == "4bit":
        functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    else:
        functional.int8_vectorwise_quant(weight)


def quantization_config(settings: Settings, empty: PreTrainedModel) -> BitsAndBytesConfig:
    """How the linear layers of the blocks are quantised; embeddings, norms and heads keep their precision.

    4bit: NF4 with double quantisation (Dettmers et al. 2023), computed in the precision of the run; 8bit: LLM.int8()
    (Dettmers et al. 2022). empty: the model without weights. Raises ModelError where it has no blocks.
    """
    from transformers import BitsAndBytesConfig

    kind = settings.model.quantization
    inputs = _linear_inputs(empty)
    blocks = tuple(f"{name}." for name in stacks(empty))
    whole = sorted(
        name for name, size in inputs.items() if not name.startswith(blocks) or (kind == "4bit" and size % _BLOCK)
    )
    if len(whole) == len(inputs):
        raise ModelError(
            "이 모델에는 양자화할 수 있는 linear 층이 없습니다.",
            where=f"model.quantization: {kind}",
            remedy="model.quantization을 null로 두세요.",
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    precisions = {"bf16": "bfloat16", "fp16": "float16", "no": settings.model.dtype}
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precisions[autocast_precision(settings)], llm_int8_skip_modules=whole,
    )  # fmt: skip


def _linear_inputs(model: PreTrainedModel) -> dict[str, int]:
    """How many inputs each linear layer has, by its name."""
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
    """Has evaluation on a CPU read the 4-bit weights that training reads.

    Where a CPU has AVX512-BF16, bitsandbytes packs them anew for inference, in place and with scales rounded to
    bfloat16: training would go on from other weights than it had before an evaluation.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def give_trained_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Has what is trained beside quantised weights in `dtype`: peft makes it in the precision they compute in."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def check_not_quantised_yet(config: PreTrainedConfig, name: str) -> None:
    """ModelError where a model comes quantised: there are no full-precision weights to merge an adapter into."""
    if getattr(config, "quantization_config", None) is None:
        return
    raise ModelError(
        "이미 양자화되어 저장된 모델입니다.",
        where=f"model.name: {name}",
        remedy="양자화하지 않은 원래 모델을 model.name에 쓰세요. 읽을 때 양자화합니다.",
    )
