"""The settings that need less memory, in the order in which they are tried, suggested and named in errors.

Those that change least come first: only the speed, then the arithmetic, then the trained weights, then the text that
the model reads. On tiny models the loss of a step differed by a relative 8.3e-5 at most with 8-bit moments, 3.7e-4 with
bfloat16 weights and 0.022 with Adafactor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value

Use = Literal["automatic", "plan", "train", "use", "load"]

SHORTEST = 32  # tokens; shorter texts would change the task
_SMALLER_MODEL = "더 작은 모델"
_DEFAULTS = Settings()
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Abilities:
    """What the model and the machine support.

    Attributes:
        checkpointing: Whether the architecture has gradient checkpointing.
        optimizer_8bit: Whether bitsandbytes is installed and works on the device.
        rounded_weights: Whether weights can be bfloat16: they are not quantised, and the loss is not scaled for fp16.
        whole_weights: Whether each process has the whole weights, which Adafactor and 8-bit moments need.
    """

    checkpointing: bool = True
    optimizer_8bit: bool = True
    rounded_weights: bool = True
    whole_weights: bool = True


@dataclass(frozen=True)
class Rung:
    """One cheaper setting.

    Attributes:
        key: The setting that it changes, by dotted name.
        cost: Its disadvantage, in Korean.
        uses: Where it applies. "automatic": `memory.optimize_memory_usage` may choose it. "plan": `plan` may suggest
            it, since its effect can be estimated. "train", "use", "load": an error names it if memory ran out while
            a model was trained, used or loaded.
        changes: Maps settings to the changed ones by dotted name; empty if the setting is in force already or cannot
            be made cheaper.
        possible: Whether the model and machine support it.
        is_exact: Whether all losses stay the same.
        note: Note beside the setting in an error, in Korean.
    """

    key: str
    cost: str
    uses: frozenset[Use]
    changes: Callable[[Settings], Mapping[str, Any]]
    possible: Callable[[Abilities], bool] = lambda able: True
    is_exact: bool = False
    note: str = ""


@dataclass(frozen=True)
class Variant:
    """Settings after the changes of some rungs.

    Attributes:
        settings: All settings, changed.
        rungs: The rungs that changed them; empty for the user's settings.
        changes: The changed settings by dotted name.
    """

    settings: Settings
    rungs: tuple[Rung, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether all losses equal those of the user's settings."""
        return all(rung.is_exact for rung in self.rungs)

    def flags(self) -> str:
        """Return the changes as flags of the command line."""
        return " ".join(f"--set {key}={bare_value(value)}" for key, value in self.changes.items())

    def after(self, rung: Rung) -> Variant:
        """Return these settings changed by one more rung."""
        changes = rung.changes(self.settings)
        return Variant(with_changes(self.settings, changes), (*self.rungs, rung), {**self.changes, **changes})


def _unless(key: str, value: object, *, only_from: object = None) -> Callable[[Settings], Mapping[str, Any]]:
    """Return a rung's `changes`: set `key` to `value` unless it has it; only_from: the value it must have before."""

    def changes(settings: Settings) -> Mapping[str, Any]:
        now = value_at(settings, key)
        return {} if now == value or (only_from is not None and now != only_from) else {key: value}

    return changes


def _without_beams(settings: Settings) -> Mapping[str, Any]:
    return {"generation.num_beams": 1} if (settings.generation.num_beams or 1) > 1 else {}


def _half_as_large_micro_batches(settings: Settings) -> Mapping[str, Any]:
    size, steps = settings.data.batch_size, settings.memory.gradient_accumulation_steps
    if size % 2:
        return {}
    return {"data.batch_size": size // 2, "memory.gradient_accumulation_steps": steps * 2}


def _half_as_long(settings: Settings) -> Mapping[str, Any]:
    length = settings.data.max_length // 2
    return {"data.max_length": length} if length >= SHORTEST else {}


LADDER: tuple[Rung, ...] = (
    Rung(
        "memory.mixed_precision", "bfloat16이나 fp16으로 계산합니다.",
        frozenset({"train", "use"}), _unless("memory.mixed_precision", True),
    ),
    Rung(
        "memory.optimize_memory_usage", "메모리가 부족할 때 아래 설정 가운데 일부를 자동으로 적용합니다.",
        frozenset({"train"}), _unless("memory.optimize_memory_usage", True),
    ),
    Rung(
        "memory.gradient_checkpointing", "backward에서 활성값을 다시 계산하므로 느려집니다. 결과는 달라지지 않습니다.",
        frozenset({"automatic", "plan", "train"}), _unless("memory.gradient_checkpointing", True),
        possible=lambda able: able.checkpointing, is_exact=True,
    ),
    Rung(  # no error names it: a micro-batch is a single example by then
        "data.batch_size", "micro-batch가 작아져 느려집니다. 한 스텝의 예제 수와 결과는 달라지지 않습니다.",
        frozenset({"plan"}), _half_as_large_micro_batches, is_exact=True,
    ),
    Rung(
        "generation.num_beams", "beam search 없이 생성하므로 품질이 조금 낮아질 수 있습니다.",
        frozenset({"use"}), _without_beams,
    ),
    Rung(
        "training.optimizer", "옵티마이저 상태를 8비트로 저장합니다. 손실은 거의 같습니다.",
        frozenset({"automatic", "plan", "train"}), _unless("training.optimizer", "adamw_8bit", only_from="adamw"),
        possible=lambda able: able.optimizer_8bit and able.whole_weights, note="bitsandbytes 필요",
    ),
    Rung(
        "model.dtype", "가중치를 bfloat16으로 저장합니다. 손실은 거의 같습니다.",
        frozenset({"automatic", "plan", "train", "use", "load"}), _unless("model.dtype", "bfloat16"),
        possible=lambda able: able.rounded_weights,
    ),
    Rung(
        "training.optimizer", "옵티마이저가 AdamW와 다른 방식으로 학습합니다.",
        frozenset({"automatic", "plan", "train"}), _unless("training.optimizer", "adafactor"),
        possible=lambda able: able.whole_weights,
    ),
    Rung(
        "model.quantization", "가중치를 4비트로 양자화하고 어댑터만 학습합니다.",
        frozenset({"load"}), _unless("model.quantization", "4bit"), note="model.adapter.method: lora와 함께",
    ),
    Rung(
        "model.adapter.method", "모델 전체가 아니라 어댑터만 학습합니다.",
        frozenset({"plan", "train"}), _unless("model.adapter.method", "lora", only_from="none"),
    ),
    Rung(
        "data.max_length", "긴 텍스트의 뒷부분이 잘려 나갑니다.",
        frozenset({"plan", "train", "use"}), _half_as_long,
    ),
)  # fmt: skip


def automatic_variants(settings: Settings, able: Abilities, given: Set[str]) -> list[Variant]:
    """List the variants that `memory.optimize_memory_usage` may choose.

    Only settings left at their default are changed, so Adafactor is chosen only where 8-bit moments are not.

    Args:
        settings: What the user asked for.
        able: What the model and the machine support.
        given: Dotted names of the settings on the command line, which stay as they are.

    Returns:
        The variants, the least costly first. Each contains the changes of those before it.
    """
    found = [Variant(settings)]
    for rung in LADDER if settings.memory.optimize_memory_usage else ():
        if "automatic" in rung.uses and rung.possible(able) and is_left_open(found[-1].settings, rung.key, given):
            found.append(found[-1].after(rung))
    return found[1:]


def suggested_variants(settings: Settings, able: Abilities) -> list[Variant]:
    """List the variants that `plan` may suggest; each contains the changes of those before it."""
    found = [Variant(settings)]
    for rung in LADDER:
        while "plan" in rung.uses and rung.possible(able) and rung.changes(found[-1].settings):
            found.append(found[-1].after(rung))
    return found[1:]


def remedies(settings: Settings, use: Use) -> list[str]:
    """List what a user can try after an out-of-memory error.

    Args:
        settings: The settings in force.
        use: What the program was doing with the model: "train", "use" or "load".

    Returns:
        The settings that would help and are not in force, in Korean, the least costly first.
    """
    found = []
    for rung in LADDER:
        if use in rung.uses and (changes := rung.changes(settings)):
            note = f" ({rung.note})" if rung.note else ""
            found.append(", ".join(f"{key}: {bare_value(value)}" for key, value in changes.items()) + note)
    return [*found, _SMALLER_MODEL]


def remembered(settings: Settings, chosen: Mapping[str, Any], given: Set[str]) -> Settings:
    """Apply the settings that a checkpoint's run had chosen automatically.

    Args:
        settings: The settings of the resumed run.
        chosen: Values by dotted name.
        given: Dotted names of the settings on the command line, which stay as they are.

    Returns:
        The settings with the chosen values. A setting that the user has decided since is not changed.
    """
    return with_changes(settings, {key: value for key, value in chosen.items() if is_left_open(settings, key, given)})


def is_left_open(settings: Settings, key: str, given: Set[str]) -> bool:
    """Return whether the program may decide a setting: it has its default, and the command line does not state it."""
    value = value_at(settings, key)
    return bool(value == value_at(_DEFAULTS, key)) and (value is None or key not in given)


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings with other values, by dotted names; the values are not checked."""
    for key, value in changes.items():
        settings = _replaced(settings, key.split("."), value)
    return settings


def _replaced(section: _Model, names: list[str], value: Any) -> _Model:
    if len(names) > 1:
        value = _replaced(getattr(section, names[0]), names[1:], value)
    return section.model_copy(update={names[0]: value})
