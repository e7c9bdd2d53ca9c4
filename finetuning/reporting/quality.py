"""How good a run's model is: its score with an interval, beside what is had for nothing, and what went wrong.

The interval is a bootstrap over the rows: the metric of as many rows drawn with replacement, 400 times (fewer of many
rows, down to 100), between the 2.5th and the 97.5th percentile. It says how much the score depends on which rows
happened to be held out; it does not say how much another seed would change it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetuning.korean.particles import with_particle
from finetuning.reporting.findings import (
    Finding,
    Known,
    baseline_text,
    few_steps,
    finding_lines,
    lasting,
    odd_rate,
    rare_labels,
    with_preset,
)
from finetuning.reporting.metric_names import display_name
from finetuning.tasks.base import Task
from finetuning.types import Naive

_DRAWS, _MOST_ROWS = 400, 200_000  # of the bootstrap, which takes about a second at most
_SHOWN = 5
_FEW_SCORED = 100  # rows
_RISE = 1.05  # a validation loss this much above its lowest counts as risen
_GUESSED = 0.97  # a loss of this share of the one that knows the labels' shares alone has learned nothing
_LEARNED = 0.99  # a loss above this share of the untrained model's has not fallen


@dataclass(frozen=True)
class Quality:
    """What a run's score is worth.

    Attributes:
        metric: Name of the metric.
        split: The split that it is of.
        score: Its value.
        interval: Bootstrap interval of 95%, or None where it was not computed.
        baseline: The value of what needs no training, or None where there is none.
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


@dataclass(frozen=True)
class Untrained:
    """The loss of a few validation rows before training and after.

    Attributes:
        before: Of the model as it was loaded.
        after: Of the best model.
        rows: Number of rows.
    """

    before: float
    after: float
    rows: int


def quality_of(
    task: Task, scored: Scored, steps: int, losses: Sequence[float], known: Known | None = None,
    untrained: Untrained | None = None,
) -> Quality:  # fmt: skip
    """Judge a finished run.

    Args:
        task: The task.
        scored: The final evaluation.
        steps: Optimizer steps taken.
        losses: Validation losses at the ends of the epochs.
        known: What was known before it began.
        untrained: The loss before training, for a task whose score is its loss.

    Returns:
        The score with its interval, the baseline and the findings.
    """
    metric = task.scores.best_metric
    naive = naive_of(task, scored.train_labels, len(scored.predictions), scored.label_names)
    baseline = None if naive is None else naive_score(task, naive, scored.rows, scored.label_names)
    interval = _interval(task, scored)
    if untrained is not None:
        baseline = untrained.before
        beside, is_weak = [_fallen(untrained, known)], untrained.after > _LEARNED * untrained.before
    else:
        is_weak = baseline is not None and (interval[0] if interval else scored.metrics[metric]) <= baseline
        beside = (
            [] if naive is None or baseline is None else [_beside(scored, metric, naive, baseline, interval, known)]
        )
    stopped_early = known is not None and steps < known.steps
    overfit = list(_overfits(losses, known))
    few = () if stopped_early else few_steps(steps, known)
    found = [
        *beside,
        *(_not_longer(one) if overfit else one for one in few),
        *(odd_rate(known) if is_weak and known is not None else ()),
        *(_guesses(task, scored) if is_weak else ()),
        *_never_said(task, scored),
        *_few_scored(len(scored.predictions)),
        *(lasting(known) if known is not None else rare_labels(scored.train_labels if scored.label_names else {})),
        *overfit,
        *_for_a_paper(scored.split),
    ]
    return Quality(metric, scored.split, scored.metrics[metric], interval, baseline, _each_remedy_once(found))


def quality_of_use(task: Task, scored: Scored) -> Quality | None:
    """Judge a saved model on any split: what is known without the run that trained it.

    Args:
        task: The task.
        scored: The evaluation, with the labels of its own split in place of those of train.

    Returns:
        The score with its interval, the baseline and the findings; None where the task's metric was not computed.
    """
    metric = task.scores.best_metric
    if metric not in scored.metrics:  # such as rewards without the model to compare with
        return None
    naive = naive_of(task, scored.train_labels, len(scored.predictions), scored.label_names)
    interval = _interval(task, scored)
    found, baseline = list[Finding](), None
    if naive is not None:
        baseline = naive_score(task, naive, scored.rows, scored.label_names)
        found.append(_beside(scored, metric, naive, baseline, interval, None))
    found += [*_never_said(task, scored), *_few_scored(len(scored.predictions))]
    return Quality(metric, scored.split, scored.metrics[metric], interval, baseline, _each_remedy_once(found))


def naive_of(task: Task, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
    """Return what is had without training on so many rows, or None where that is not known."""
    has_counts = bool(train_labels) or not task.reads.has_labels
    return task.scores.baseline(train_labels, count, label_names) if has_counts and count else None


def naive_score(task: Task, naive: Naive, rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]) -> float:
    """Return the task's metric of what is had without training; counted where `plan` need not load scikit-learn."""
    if naive.predictions is None:
        return naive.score
    counted = task.scores.drawn_score(naive.predictions, rows, label_names)
    if counted is not None:
        return counted(np.arange(len(naive.predictions)))
    return task.scores.metrics(naive.predictions, rows, label_names, 0.0)[task.scores.best_metric]


def lines_of(quality: Quality) -> list[str]:
    """Render the findings as lines for the log."""
    return finding_lines("판정", quality.findings)


def _interval(task: Task, scored: Scored) -> tuple[float, float] | None:
    count = len(scored.predictions)
    drawn_score = task.scores.drawn_score(scored.predictions, scored.rows, scored.label_names)
    if drawn_score is None or not 2 <= count <= _MOST_ROWS:
        return None
    draw = np.random.default_rng(0)
    low, high = np.percentile([drawn_score(draw.integers(0, count, count)) for _ in range(_DRAWS)], (2.5, 97.5))
    return float(low), float(high)


def _each_remedy_once(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings, a remedy only with the first of those that have it."""
    seen, kept = set[str](), list[Finding]()
    for finding in findings:
        kept.append(replace(finding, remedy="") if finding.remedy in seen else finding)
        seen.add(finding.remedy)
    return tuple(kept)


def _more_training(known: Known | None, scored: int) -> str:
    if known is not None and known.preset_trains_otherwise:
        return with_preset(known)
    if known is not None and known.settings.training.preset is not None:
        return f"학습 데이터와 평가할 행(지금 {scored:,}행)을 늘리세요."
    return "training.epochs나 training.learning_rate를 늘려 더 학습하거나, 학습 데이터와 평가할 행을 늘리세요."


def _beside(
    scored: Scored, metric: str, naive: Naive, baseline: float, interval: tuple[float, float] | None,
    known: Known | None,
) -> Finding:  # fmt: skip
    name, score = display_name(metric), scored.metrics[metric]
    within = f" (95% 신뢰구간 {interval[0]:.3f}~{interval[1]:.3f})" if interval else ""
    text = f"{scored.split} {name} {score:.4f}{within}. {baseline_text(naive, baseline)}"
    remedy = _more_training(known, len(scored.predictions))
    if (interval[0] if interval else score) > baseline:
        return Finding("learned", f"{text} 이 모델은 그보다 낫습니다.")
    return Finding("not learned", f"{text} 이 모델이 그보다 낫다고 할 수 없습니다.", remedy)


def _fallen(untrained: Untrained, known: Known | None) -> Finding:
    """Compare the loss with that of the model before it was trained, on the same rows."""
    losses = f"학습 전 {untrained.before:.4f}, 가장 좋은 모델 {untrained.after:.4f}"
    text = f"검증 데이터 {untrained.rows:,}행의 손실: {losses}."
    if untrained.after <= _LEARNED * untrained.before:
        return Finding("learned", text)
    return Finding("not learned", f"{text} 배운 것이 거의 없습니다.", _more_training(known, untrained.rows))


def _guesses(task: Task, scored: Scored) -> Iterator[Finding]:
    """Say that the loss is that of a model that knows nothing but how frequent each label is."""
    total = sum(scored.train_labels.values())
    if not scored.label_names or task.scores.best_metric != "accuracy" or not total or "loss" not in scored.metrics:
        return
    shares = [count / total for count in scored.train_labels.values() if count]
    guessing = -sum(share * math.log(share) for share in shares)
    if scored.metrics["loss"] >= _GUESSED * guessing:
        yield Finding(
            "loss of guessing",
            f"{scored.split} 손실이 {scored.metrics['loss']:.4f}입니다. "
            f"텍스트를 보지 않고 라벨의 비율대로만 예측해도 {guessing:.4f}입니다.",
            "학습률과 스텝 수를 늘리고, 라벨이 텍스트와 맞게 붙어 있는지 몇 행을 읽어 확인하세요.",
        )


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
            "더 학습하거나, 그 라벨의 학습 데이터를 늘리거나, training.class_weights: balanced를 쓰세요.",
        )


def _overfits(losses: Sequence[float], known: Known | None) -> Iterator[Finding]:
    stops = known is not None and known.settings.training.early_stopping_patience is not None
    lowest = min(range(len(losses)), key=lambda place: losses[place]) if losses else 0
    if losses and lowest < len(losses) - 1 and losses[-1] > _RISE * losses[lowest]:
        least, epoch = with_particle(f"{losses[lowest]:.4f}", "으로/로"), with_particle(str(lowest + 1), "으로/로")
        yield Finding(
            "overfits",
            f"검증 손실이 {lowest + 1} epoch에서 {least} 가장 낮았고 마지막에는 {losses[-1]:.4f}입니다"
            "(과적합). "
            "저장된 모델은 검증 지표가 가장 좋았던 시점의 것입니다.",
            "" if stops else f"training.epochs를 {epoch} 줄이거나 training.early_stopping_patience를 쓰세요.",
        )


def _few_scored(count: int) -> Iterator[Finding]:
    if 0 < count < _FEW_SCORED:
        yield Finding(
            "few scored rows",
            f"평가한 행이 {count:,}행뿐이어서, 다른 행으로 평가하면 점수가 크게 달라질 수 있습니다.",
            "데이터를 더 모으세요.",
        )


def _not_longer(finding: Finding) -> Finding:
    """Leave out a remedy that would only train longer, since the model overfits."""
    return finding if "preset" in finding.remedy else replace(finding, remedy="")


def _for_a_paper(split: str) -> Iterator[Finding]:
    if split == "validation":
        yield Finding(
            "chosen on validation",
            "이 점수는 모델을 고를 때 쓴 검증 데이터의 점수여서 실제보다 높게 나올 수 있습니다.",
            "논문이나 보고서에는 data.test_split으로 따로 분리한 test 데이터의 점수를 쓰세요.",
        )
    else:
        yield Finding(
            "score for a paper",
            f"논문이나 보고서에는 이 {split} 점수를 쓰세요. 모델을 고를 때 쓰지 않은 데이터의 점수입니다.",
        )
