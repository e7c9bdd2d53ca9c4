"""Settings of a model and its adapter that do not go together, found before anything is loaded."""

from __future__ import annotations

from exceptions import SettingsError
from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.korean.particles import with_particle
from finetuning.models.adapters import METHODS
from finetuning.models.gguf_reader import is_gguf


def check_combination(settings: Settings) -> None:
    """Check that the settings of the adapter, of quantisation, of sharding and of LoRA+ go together.

    Args:
        settings: The settings in force.

    Raises:
        SettingsError: Quantised weights would have to be trained or taken apart, a GGUF file be quantised, or a setting
            of adapters is on without one.
    """
    _check_quantization(settings)
    _check_sharding(settings)
    adapter = settings.model.adapter
    if METHODS[adapter.method].adds_weights:
        return
    for key, is_on, name in (
        ("training.lora_plus_ratio", settings.training.lora_plus_ratio > 1, "LoRA+"),
        ("model.adapter.rslora", adapter.rslora, "rsLoRA"),
    ):
        if is_on:
            raise SettingsError(
                f"{with_particle(name, '은/는')} 어댑터를 학습할 때만 쓸 수 있습니다.",
                where=f"{key}: {bare_value(value_at(settings, key))}, model.adapter.method: {adapter.method}",
                remedy="model.adapter.method를 lora, dora, pissa 가운데 하나로 하거나, "
                f"{with_particle(key, '을/를')} 설정에서 빼세요.",
            )


def _check_sharding(settings: Settings) -> None:
    """Raise SettingsError for what needs whole weights in each process, where they are divided."""
    shard = settings.distributed.shard
    if shard == "none":
        return
    memory, training, model = settings.memory, settings.training, settings.model
    for key, is_on, reason, remedy in (
        ("model.quantization", model.quantization == "8bit", "8bit 가중치는 나누어 둘 수 없습니다.", "4bit로"),
        ("training.optimizer", training.optimizer != "adamw", "이 옵티마이저는 행렬 전체를 봅니다.", "adamw로"),
        (
            "memory.optimizer_in_backward",
            memory.optimizer_in_backward,
            "기울기를 합치기 전에 업데이트합니다.",
            "false로",
        ),
        (
            "training.torch_compile",
            bool(training.torch_compile),
            "컴파일한 층에서는 나누어 둔 가중치를 쓸 수 없습니다.",
            "null로",
        ),
        ("model.adapter.method", model.adapter.method == "pissa", "PiSSA는 가중치 전체를 바꿔 시작합니다.", "lora로"),
        (
            "model.extend_vocabulary",
            model.extend_vocabulary is not None,
            "추가한 어휘는 나누어 학습할 수 없습니다.",
            "null로",
        ),
    ):
        if is_on:
            shown = bare_value(value_at(settings, key))
            raise SettingsError(
                f"가중치를 프로세스들이 나누어 가질 때는 {key}: {shown} 설정을 쓸 수 없습니다. {reason}",
                where=f"distributed.shard: {shard}, {key}: {shown}",
                remedy=f"{with_particle(key, '을/를')} {remedy} 두거나, 모델이 카드 하나에 들어가면 "
                "distributed.shard를 none으로 두세요.",
            )


def _check_quantization(settings: Settings) -> None:
    model = settings.model
    if model.quantization is None:
        return
    if not METHODS[model.adapter.method].adds_weights:
        raise SettingsError(
            "양자화한 가중치는 학습할 수 없어 LoRA나 DoRA가 필요합니다.",
            where=f"model.quantization: {model.quantization}, model.adapter.method: {model.adapter.method}",
            remedy="model.adapter.method를 lora나 dora로 하거나, model.quantization을 null로 두세요.",
        )
    if model.adapter.method == "pissa":
        raise SettingsError(
            "PiSSA는 베이스 모델의 가중치를 나누어 시작하므로 양자화한 모델에는 쓸 수 없습니다.",
            where=f"model.quantization: {model.quantization}, model.adapter.method: pissa",
            remedy="model.adapter.method를 lora나 dora로 하거나, model.quantization을 null로 두세요.",
        )
    if is_gguf(model.name):
        raise SettingsError(
            "GGUF 파일은 풀어서 읽으므로 다시 양자화할 수 없습니다.",
            where=f"model.quantization: {model.quantization}, model.name: {model.name}",
            remedy="safetensors로 된 원래 모델을 쓰거나, model.quantization을 null로 두세요.",
        )
