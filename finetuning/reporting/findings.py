"""What is known of a run before it begins, as sentences with the setting that would change it.

`plan` prints these findings, and the verdict at the end of a run repeats those that its score bears out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.cells import SPLIT_NAMES
from finetuning.config.ladder import with_changes
from finetuning.config.preset import Method, Row
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.korean.particles import with_particle
from finetuning.tasks.classification.inputs import LabelledTextTask
from finetuning.tasks.registry import find_task
from finetuning.types import Naive

_FEW_STEPS = 100  # models need hundreds of steps (Zhang et al. 2021, see config/preset.py)
_MORE_STEPS = 1.5  # a preset that makes so many times as many is worth naming
_FEW_ROWS_OF_A_LABEL = 10
_SHOWN = 5
_LOW_RATE, _HIGH_RATE = 4, 10  # times below, and above, the usual learning rate
_MUCH_CUT = 0.05  # share of the examples
_METHODS: Mapping[Method, str] = {"full": "모델 전체의 학습", "lora": "LoRA", "qlora": "QLoRA"}


@dataclass(frozen=True)
class Finding:
    """Something to know about a run.

    Attributes:
        kind: Short name, for programs.
        text: A sentence in Korean.
        remedy: What would change it, with the setting; "" where nothing needs to.
    """

    kind: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of a run before it begins.

    Attributes:
        settings: The settings in force.
        method: How the model is trained.
        row: The preset's row for this kind of training.
        preset: What the preset would choose, by dotted name; empty where it is in force.
        per_epoch: Training examples of an epoch.
        processes: Processes that share a window.
        train_labels: Count of each label in train; empty for a task without.
        cut: Training examples whose text was cut.
        max_length: Tokens at which it was cut: `data.max_length`, or the model's own limit.
        leaked: Rows of each other split whose text is in train, too.
    """

    settings: Settings
    method: Method
    row: Row
    preset: Mapping[str, Any]
    per_epoch: int
    processes: int
    train_labels: Mapping[str, int]
    cut: int
    max_length: int
    leaked: Mapping[str, int]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._steps_under(self.settings)

    @property
    def preset_steps(self) -> int:
        """The steps that the preset would make."""
        return self._steps_under(with_changes(self.settings, self.preset))

    @property
    def preset_trains_otherwise(self) -> bool:
        """Whether the preset would choose another learning rate or number of steps; flags may forbid it."""
        rate = with_changes(self.settings, self.preset).training.learning_rate
        return self.preset_steps != self.steps or rate != self.settings.training.learning_rate

    def _steps_under(self, settings: Settings) -> int:
        window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * self.processes
        return settings.training.epochs * math.ceil(self.per_epoch / window)


def finding_lines(title: str, findings: Sequence[Finding]) -> list[str]:
    """Render findings as lines; none without findings."""
    lines = [f"  {one.text}{f' → {one.remedy}' if one.remedy else ''}" for one in findings]
    return [title, *lines] if lines else []


def foreseen(known: Known) -> list[Finding]:
    """Return everything that is worth knowing before a run begins, the weightiest first."""
    return [*few_steps(known.steps, known), *odd_rate(known), *lasting(known)]


def lasting(known: Known) -> list[Finding]:
    """Return what stays true whatever the score will be."""
    return [*_leaked(known.leaked), *_cut(known), *rare_labels(known.train_labels)]


def few_steps(steps: int, known: Known | None) -> Iterator[Finding]:
    """Say that a run has few steps, and what the preset would do.

    Args:
        steps: Its steps.
        known: What was known before it began.

    Yields:
        The finding, if it has few.
    """
    if steps >= _FEW_STEPS:
        return
    text, remedy = f"학습이 {steps:,}스텝뿐입니다.", "training.epochs를 늘리거나 data.batch_size를 줄이세요."
    if known is not None and known.preset_trains_otherwise and known.preset_steps > _MORE_STEPS * steps:
        row = known.row
        warm_up = f", warm-up {row.warmup_ratio:g}" if row.warmup_ratio else ""
        values = f"배치 {row.window}, 학습률 {bare_value(row.learning_rate)}{warm_up}"
        text += f" {with_particle(row.source, '은/는')} {values}입니다."
        remedy = with_preset(known)
    yield Finding("few steps", text, remedy)


def with_preset(known: Known) -> str:
    """Return the remedy that names the preset, with what it would choose."""
    settings = with_changes(known.settings, known.preset)
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * known.processes
    return (
        f"--set training.preset=auto를 붙이면 배치 {window}, 학습률 {bare_value(settings.training.learning_rate)}, "
        f"{settings.training.epochs} epoch, {known.preset_steps:,}스텝으로 학습합니다."
    )


def odd_rate(known: Known) -> Iterator[Finding]:
    """Say that the learning rate is far from the usual one."""
    rate, usual = known.settings.training.learning_rate, known.row.learning_rate
    usually = f"{_METHODS[known.method]}에 흔히 쓰는 {bare_value(usual)}"
    text = f"학습률이 {bare_value(rate)}입니다. {usually}의"
    remedy = (
        f"--learning_rate {with_particle(bare_value(usual), '을/를')} 쓰거나 --set training.preset=auto를 붙이세요."
    )
    if rate * _LOW_RATE <= usual:
        yield Finding("low learning rate", f"{text} {usual / rate:.0f}분의 1입니다({known.row.source}).", remedy)
    elif rate >= _HIGH_RATE * usual:
        yield Finding("high learning rate", f"{text} {rate / usual:.0f}배입니다({known.row.source}).", remedy)


def rare_labels(train_labels: Mapping[str, int]) -> Iterator[Finding]:
    """Say which labels have few rows."""
    rare = {label: count for label, count in train_labels.items() if count < _FEW_ROWS_OF_A_LABEL}
    if rare:
        shown = ", ".join(f"{label} {count:,}행" for label, count in list(rare.items())[:_SHOWN])
        more = f" 등 {len(rare):,}개" if len(rare) > _SHOWN else ""
        yield Finding(
            "rare labels",
            f"학습 데이터가 {_FEW_ROWS_OF_A_LABEL}행보다 적은 라벨이 있습니다: {shown}{more}",
            "데이터를 더 모으거나, data.label_map으로 다른 라벨과 합치거나, training.class_weights: balanced를 쓰세요.",
        )


def baseline_text(naive: Naive, score: float) -> str:
    """Say what is had without training."""
    return f"{naive.said} {score:.4f}입니다."


def _leaked(leaked: Mapping[str, int]) -> Iterator[Finding]:
    shown = ", ".join(f"{SPLIT_NAMES[name]} 데이터 {count:,}행" for name, count in leaked.items() if count)
    if shown:
        yield Finding(
            "leaked rows",
            f"학습 데이터에도 같은 텍스트가 있는 행: {shown}. 점수가 실제보다 높게 나올 수 있습니다.",
            "그 행을 한쪽에서 지우거나, 파일 하나로 합쳐 data.validation_split과 data.test_split으로 나누세요. "
            "같은 텍스트는 한쪽에만 둡니다.",
        )


def _cut(known: Known) -> Iterator[Finding]:
    if known.cut <= _MUCH_CUT * known.per_epoch:
        return
    is_models = known.max_length < known.settings.data.max_length
    remedy = "더 긴 텍스트를 읽는 모델을 고르거나 텍스트를 나누세요." if is_models else "data.max_length를 늘리세요."
    is_divisible = isinstance(find_task(known.settings), LabelledTextTask) and not known.settings.data.text_pair_column
    if is_divisible:
        remedy = f"{remedy} 끝까지 읽으려면 text_classification.long_documents를 pool로 바꾸세요."
    limit = f"{'모델의 한도' if is_models else 'data.max_length'}({known.max_length:,} 토큰)"
    share = 100 * known.cut / known.per_epoch
    yield Finding("rows cut", f"학습 예제 {known.cut:,}개({share:.0f}%)의 텍스트가 {limit}에서 잘립니다.", remedy)
