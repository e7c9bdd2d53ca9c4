"""Settings of a run that begins with a saved adapter: its shape is that of the adapter."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from exceptions import SettingsError
from finetuning.config.ladder import with_changes
from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.files import typed
from finetuning.models.adapter_files import config_of
from finetuning.models.saved import is_adapter

_METHOD = "model.adapter.method"
_SHAPE = frozenset(
    {_METHOD, "model.adapter.r", "model.adapter.rslora", "model.adapter.alpha", "model.adapter.target_modules"}
)


def follow_adapter(settings: Settings, by_user: Set[str]) -> Settings:
    """Give settings the method and the shape of the adapter that `model.name` is, if it is one.

    Args:
        settings: The settings of a training.
        by_user: Dotted names of the settings that the user decided.

    Returns:
        The settings, unchanged for another model.

    Raises:
        SettingsError: The user asked for another method or shape, or the adapter is not a LoRA.
    """
    folder = Path(settings.model.name).expanduser()
    if not is_adapter(folder):
        return settings
    found = shape_of(folder)
    different = {key: value for key, value in found.items() if key in by_user and not _is(settings, key, value)}
    if not different:
        return with_changes(settings, found)
    if _METHOD in different:
        merged = Path(settings.model.name) / "merged"
        raise SettingsError(
            f"어댑터 폴더에서 시작하는 학습은 그 어댑터({found[_METHOD]})를 이어서 학습합니다.",
            where=f"model.name: {settings.model.name}, {_METHOD}: {value_at(settings, _METHOD)}",
            remedy=f"{_METHOD} 설정을 빼세요. 합친 모델에서 다른 방법으로 학습하려면 먼저 `python finetuning_app.py "
            f"export --model_name {typed(settings.model.name)}` 명령으로 합치고 "
            f"--model_name {typed(merged)} 플래그를 쓰세요.",
        )
    raise SettingsError(
        "이어서 학습할 어댑터와 설정이 다릅니다.",
        where="; ".join(
            f"{key}: 어댑터 {bare_value(value)} / 설정 {bare_value(value_at(settings, key))}"
            for key, value in different.items()
        ),
        remedy="이 설정들을 빼면 어댑터의 값을 씁니다. 다른 크기의 어댑터를 새로 학습하려면 먼저 export로 합치세요.",
    )


def decided_by_adapter(settings: Settings) -> frozenset[str]:
    """Return the dotted names of the settings that the adapter decides that is `model.name`; none for others."""
    return _SHAPE if is_adapter(Path(settings.model.name).expanduser()) else frozenset()


def shape_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a saved adapter that belong to its weights, by dotted name.

    Args:
        folder: The adapter's folder.

    Returns:
        The settings, without those that cannot be written as one.

    Raises:
        ModelError: Its adapter_config.json cannot be read.
        SettingsError: It is not a LoRA.
    """
    config = config_of(folder)
    if config.get("peft_type") != "LORA":
        raise SettingsError(
            f"LoRA와 DoRA 어댑터만 이어서 학습할 수 있습니다. 이 어댑터의 종류: {config.get('peft_type')}",
            where=f"model.name: {folder}",
            remedy="LoRA나 DoRA 어댑터, 또는 모델 전체가 있는 폴더를 지정하세요.",
        )
    found: dict[str, Any] = {
        _METHOD: "dora" if config.get("use_dora") else "lora",
        "model.adapter.r": config["r"],
        "model.adapter.rslora": bool(config.get("use_rslora")),
    }
    if config["lora_alpha"] == int(config["lora_alpha"]):  # PiSSA's under rsLoRA is no integer
        found["model.adapter.alpha"] = int(config["lora_alpha"])
    if isinstance(config.get("target_modules"), list):
        found["model.adapter.target_modules"] = sorted(config["target_modules"])
    return found


def _is(settings: Settings, key: str, value: Any) -> bool:
    """Return whether a setting has a value; `auto` layers are those of the adapter."""
    asked = value_at(settings, key)
    return bool(asked == "auto" or (sorted(asked) if isinstance(asked, list) else asked) == value)
