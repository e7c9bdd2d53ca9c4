"""How good a run's model is: its score with an interval, beside what is had for nothing, and what went wrong.

The interval is a bootstrap over the rows: the metric of as many rows drawn with replacement, 400 times (fewer of many
rows, down to 100), between the 2.5th and the 97.5th percentile. It says how much the score depends on which rows
happened to be held out; it does not say how much another seed would change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetuning.korean.particles import with_particle
from finetuning.reporting.metric_names import display_name
from finetuning.tasks.base import Task
from finetuning.tasks.classification.labels import most_common

_DRAWS, _FEWEST_DRAWS, _MOST_ROWS = 400, 100, 20_000
_ROWS_DRAWN = 1_000_000  # in all draws together, which takes a few seconds
_FEW_STEPS = 50
_FEW_ROWS_OF_A_LABEL = 10
_SHOWN = 5
_RISE = 1.05  # a validation loss this much above its lowest counts as risen


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
class Quality:
    """What a run's score is worth.

    Attributes:
        metric: Name of the metric.
        split: The split that it is of.
        score: Its value.
        interval: Bootstrap interval of 95%, or None where it was not computed.
        baseline: The value of answers that need no training, or None for a task without such answers.
        findings: What to know, the weightiest first.
    """

    metric: str
    split: str
    score: float
    interval: tuple[float, float] | None
    baseline: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Scored:
    """A split and what the best model said about it.

    Attributes:
        split: Name of the split.
        rows: Columns of the split by role.
        predictions: One of each row.
        metrics: Metrics by name.
        label_names: Label names in the order of their ids; empty for a task without labels.
        train_labels: Count of each label in train.
    """

    split: str
    rows: Mapping[str, Sequence[Any]]
    predictions: Sequence[Any]
    metrics: Mapping[str, float]
    label_names: Sequence[str]
    train_labels: Mapping[str, int]


def quality_of(task: Task, scored: Scored, steps: int, losses: Sequence[float]) -> Quality:
    """Judge a finished run.

    Args:
        task: The task.
        scored: The final evaluation.
        steps: Optimizer steps taken.
        losses: Validation losses at the ends of the epochs.

    Returns:
        The score with its interval, the baseline and the findings.
    """
    metric, count = task.scores.best_metric, len(scored.predictions)
    has_labels = bool(scored.label_names) and bool(scored.train_labels) and count > 0
    naive = task.scores.baseline(scored.train_labels, count, scored.label_names) if has_labels else None
    interval = baseline = None
    if naive is not None:
        columns = _Read(scored.rows)
        baseline = task.scores.metrics(naive, columns, scored.label_names, 0.0)[metric]
        interval = _interval(task, scored, columns)
    found = [
        *_beside(scored, metric, baseline, interval),
        *_few_steps(steps, is_weak=baseline is not None and (interval is None or interval[0] <= baseline)),
        *_never_said(task, scored),
        *_rare(scored),
        *_overfits(losses),
        *_chosen_on(scored.split),
    ]
    return Quality(metric, scored.split, scored.metrics[metric], interval, baseline, tuple(found))


def lines_of(quality: Quality) -> list[str]:
    """Render the findings as lines for the log."""
    if not quality.findings:
        return []
    return ["판정", *(f"  {one.text}{f' → {one.remedy}' if one.remedy else ''}" for one in quality.findings)]


class _Read(Mapping[str, Sequence[Any]]):
    """Columns, each read once; with `places`, the rows at these places."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], places: np.ndarray | None = None) -> None:
        self._columns, self._places, self._kept = columns, places, dict[str, list[Any]]()

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._kept:
            cells = self._columns[name]
            self._kept[name] = list(cells) if self._places is None else [cells[place] for place in self._places]
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _interval(task: Task, scored: Scored, columns: Mapping[str, Sequence[Any]]) -> tuple[float, float] | None:
    count, metric = len(scored.predictions), task.scores.best_metric
    if not 2 <= count <= _MOST_ROWS:
        return None
    draw, values = np.random.default_rng(0), list[float]()
    for _ in range(min(_DRAWS, max(_FEWEST_DRAWS, _ROWS_DRAWN // count))):
        places = draw.integers(0, count, count)
        predictions = [scored.predictions[place] for place in places]
        values.append(task.scores.metrics(predictions, _Read(columns, places), scored.label_names, 0.0)[metric])
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _beside(
    scored: Scored, metric: str, baseline: float | None, interval: tuple[float, float] | None
) -> Iterator[Finding]:
    if baseline is None:
        return
    commonest = most_common(scored.train_labels)
    name, score = display_name(metric), scored.metrics[metric]
    within = f" (95% 신뢰구간 {interval[0]:.3f}~{interval[1]:.3f})" if interval else ""
    naive = f"항상 가장 흔한 라벨('{commonest}')로만 예측하면 {baseline:.4f}입니다."
    text = f"{scored.split} {name} {score:.4f}{within}. {naive}"
    if (interval[0] if interval else score) > baseline:
        yield Finding("learned", f"{text} 이 모델은 그보다 확실히 낫습니다.")
    else:
        yield Finding(
            "not learned",
            f"{text} 이 모델이 그보다 낫다고 할 수 없습니다.",
            "training.epochs나 training.learning_rate를 늘려 더 학습하거나, 학습 데이터와 평가할 행을 늘리세요.",
        )


def _few_steps(steps: int, is_weak: bool) -> Iterator[Finding]:
    if steps < _FEW_STEPS:
        remedy = "training.epochs를 늘리거나 data.batch_size를 줄이세요." if is_weak else ""
        yield Finding("few steps", f"학습이 {steps:,}스텝뿐입니다.", remedy)


def _never_said(task: Task, scored: Scored) -> Iterator[Finding]:
    if "label" not in scored.rows or not scored.label_names or not scored.predictions:
        return
    if not (hasattr(scored.predictions[0], "argmax") and task.scores.best_metric == "accuracy"):
        return
    said = Counter(scored.label_names[int(one.argmax())] for one in scored.predictions)
    there = Counter(scored.rows["label"])
    never = [name for name in scored.label_names if there[name] and not said[name]]
    if never:
        shown = ", ".join(f"{name}(정답 {there[name]:,}행)" for name in never[:_SHOWN])
        more = f" 등 {len(never):,}개" if len(never) > _SHOWN else ""
        yield Finding(
            "labels never predicted",
            f"한 번도 예측하지 않은 라벨이 있습니다: {shown}{more}",
            "더 학습하거나, 그 라벨의 학습 데이터를 늘리세요.",
        )


def _rare(scored: Scored) -> Iterator[Finding]:
    rare = {label: count for label, count in scored.train_labels.items() if count < _FEW_ROWS_OF_A_LABEL}
    if scored.label_names and rare:
        shown = ", ".join(f"{label} {count:,}행" for label, count in list(rare.items())[:_SHOWN])
        more = f" 등 {len(rare):,}개" if len(rare) > _SHOWN else ""
        yield Finding(
            "rare labels",
            f"학습 데이터가 {_FEW_ROWS_OF_A_LABEL}행보다 적은 라벨이 있습니다: {shown}{more}",
            "데이터를 더 모으거나 data.label_map으로 다른 라벨과 합치세요.",
        )


def _overfits(losses: Sequence[float]) -> Iterator[Finding]:
    lowest = min(range(len(losses)), key=lambda place: losses[place]) if losses else 0
    if losses and lowest < len(losses) - 1 and losses[-1] > _RISE * losses[lowest]:
        least, epoch = with_particle(f"{losses[lowest]:.4f}", "으로/로"), with_particle(str(lowest + 1), "으로/로")
        yield Finding(
            "overfits",
            f"검증 손실이 {lowest + 1} epoch에서 {least} 가장 낮았고 마지막에는 {losses[-1]:.4f}입니다"
            "(과적합). "
            "저장된 모델은 검증 지표가 가장 좋았던 시점의 것입니다.",
            f"training.epochs를 {epoch} 줄이거나 training.early_stopping_patience를 쓰세요.",
        )


def _chosen_on(split: str) -> Iterator[Finding]:
    if split == "validation":
        yield Finding(
            "chosen on validation",
            "이 점수는 모델을 고를 때 쓴 검증 데이터의 점수여서 실제보다 높게 나올 수 있습니다.",
            "논문이나 보고서에는 data.test_split으로 따로 분리한 test 데이터의 점수를 쓰세요.",
        )
