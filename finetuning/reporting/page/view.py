"""What the page shows, made from the facts of a run or of an evaluation; the templates only lay it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.config.metadata import fields_of, value_at
from finetuning.config.schema import Settings
from finetuning.korean.durations import duration
from finetuning.reporting.metric_names import display_name
from finetuning.reporting.next_steps import NextStep
from finetuning.reporting.quality import Quality
from finetuning.reporting.run_report import Background, EvaluationFacts, RunReport, SplitFacts, library_versions
from finetuning.tasks.base import Task
from finetuning.tasks.evidence import Mark

_MOST_LABELS = 15
_PRECISIONS = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}
_GIB = 2**30


@dataclass(frozen=True)
class SettingLine:
    """A setting as it is shown: key, value, default and what it is."""

    key: str
    value: str
    default: str
    about: str


@dataclass(frozen=True)
class Scale:
    """Where a score lies between the worst and the best, in percent from the left.

    Attributes:
        score: The score.
        low: Lower end of its interval.
        high: Upper end.
        baseline: What is had without training, or None.
    """

    score: float
    low: float
    high: float
    baseline: float | None


def scale_of(quality: Quality) -> Scale | None:
    """Return the place of a score that has an interval and lies between 0 and 1, or 0 and 100."""
    if quality.interval is None or not 0 <= quality.interval[0] <= quality.score <= 100:
        return None
    unit = 100.0 if max(quality.score, quality.interval[1], quality.baseline or 0.0) <= 1 else 1.0
    low, high = (unit * value for value in quality.interval)
    baseline = None if quality.baseline is None else max(0.0, unit * quality.baseline)
    return Scale(unit * quality.score, low, high, baseline)


@dataclass(frozen=True)
class Group:
    """Facts of one kind.

    Attributes:
        title: What they are about.
        facts: Name and value of each.
        notes: Sentences.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """What a page shows, from top to bottom; what is empty is left out.

    Attributes:
        title: The page's name.
        subtitle: What was done, in a line.
        quality: What the score is worth.
        published: The verdict on a published score.
        evaluation: The evaluation.
        rows: Number of rows of its split.
        errors_file: Name of the file of all wrong rows, "" where there is none.
        metrics_file: Name of the file with the whole matrix and the scores of all labels.
        groups: Facts of the data, the training and the machine.
        settings: The settings in force, those that differ from their defaults first.
        changed: How many of them do.
        next_steps: What may be done next with the model.
    """

    title: str
    subtitle: str
    quality: Quality | None
    published: str
    evaluation: EvaluationFacts
    rows: int
    errors_file: str
    metrics_file: str
    groups: tuple[Group, ...]
    settings: tuple[SettingLine, ...]
    changed: int
    next_steps: tuple[NextStep, ...]

    @property
    def metrics(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each metric, as people read them."""
        return tuple((display_name(name), f"{value:.4f}") for name, value in self.evaluation.metrics.items())

    @property
    def metric_name(self) -> str:
        """The name of the metric that the verdict is about."""
        return "" if self.quality is None else display_name(self.quality.metric)

    @property
    def marks_answers(self) -> bool:
        """Whether texts have the right and the predicted answer marked in them."""
        return any(mark.kind != "label" for mark in self._marks())

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that have a colour, in the order of their colours."""
        return tuple(sorted({mark.label for mark in self._marks() if mark.kind == "label"}))

    def _marks(self) -> Iterator[Mark]:
        return (mark for one in self.evaluation.cases for part in one.case.parts for mark in part.marks)


def page_of_run(report: RunReport, errors_file: str, metrics_file: str) -> Page:
    """Collect what the page of a run shows.

    Args:
        report: The run.
        errors_file: As of `Page`.
        metrics_file: As of `Page`.

    Returns:
        The page.
    """
    evaluation = report.evaluation
    lines, changed = _settings(report.settings)
    return Page(
        title=report.output_dir.resolve().name,
        subtitle=f"{report.public_model} 모델을 {report.public_dataset} 데이터로 학습한 결과입니다. ({report.task})",
        quality=report.quality,
        published="" if report.verdict is None else report.verdict.text,
        evaluation=evaluation,
        rows=report.rows[evaluation.split],
        errors_file=errors_file,
        metrics_file=metrics_file,
        groups=(
            Group("데이터", _data_facts(report.background.data), _data_notes(report)),
            Group("학습", _training_facts(report)),
            Group("환경", _machine_facts(report)),
        ),
        settings=lines,
        changed=changed,
        next_steps=tuple(report.background.next_steps),
    )


def page_of_evaluation(
    name: str, task: Task, evaluation: EvaluationFacts, quality: Quality | None, background: Background,
    errors_file: str, metrics_file: str,
) -> Page:  # fmt: skip
    """Collect what the page of an evaluation by itself shows.

    Args:
        name: Name of the model's folder.
        task: The task.
        evaluation: The evaluation.
        quality: What its score is worth, or None where that is not known.
        background: The split and what may be done next.
        errors_file: As of `Page`.
        metrics_file: As of `Page`.

    Returns:
        The page, without what only training knows.
    """
    data = background.data[0]
    return Page(
        title=f"{name} · {evaluation.split}",
        subtitle=f"{name} 폴더의 모델을 {data.where} 데이터로 평가한 결과입니다. ({task.name})",
        quality=quality,
        published="",
        evaluation=evaluation,
        rows=data.rows,
        errors_file=errors_file,
        metrics_file=metrics_file,
        groups=(
            Group("데이터", _data_facts([data]), tuple(data.told)),
            Group("환경", tuple(library_versions().items())),
        ),
        settings=(),
        changed=0,
        next_steps=tuple(background.next_steps),
    )


def _data_facts(splits: Sequence[SplitFacts]) -> tuple[tuple[str, str], ...]:
    facts = []
    for one in splits:
        cut = f", 예제 {one.cut:,}개가 max_length에서 잘림" if one.cut else ""
        facts.append((one.name, f"{one.rows:,}행 ({one.where}){cut}"))
    labels = [f"{label} {count:,}" for one in splits[:1] for label, count in one.labels.items()]
    if labels:
        more = f" 외 {len(labels) - _MOST_LABELS:,}가지" if len(labels) > _MOST_LABELS else ""
        facts.append(("학습 데이터의 라벨", ", ".join(labels[:_MOST_LABELS]) + more))
    return tuple(facts)


def _data_notes(report: RunReport) -> tuple[str, ...]:
    told = [f"{one.where}: {line}" for one in report.background.data for line in one.told]
    return tuple(dict.fromkeys([*told, *report.background.notes]))


def _training_facts(report: RunReport) -> tuple[tuple[str, str], ...]:
    training, window = report.training, report.window
    metric = display_name(report.best_metric_name)
    return (
        ("스텝", f"{training.steps:,} (최대 {report.epochs} epoch)"),
        ("저장한 모델", f"스텝 {training.best_step:,} (검증 {metric} {training.best_metric:.4f})"),
        ("스텝당 예제", f"{window.examples:,} = batch_size {window.batch_size} × gradient_accumulation_steps "
                    f"{window.gradient_accumulation_steps} × 프로세스 {window.processes}"),
        ("learning rate", f"{report.learning_rate:g}"),
        ("seed", str(report.seed)),
        ("걸린 시간", duration(training.seconds)),
    )  # fmt: skip


def _machine_facts(report: RunReport) -> tuple[tuple[str, str], ...]:
    memory, hardware = report.memory, report.hardware
    precision = _PRECISIONS.get(hardware.precision, hardware.precision)
    return (
        ("장치", f"{hardware.device} (프로세스 {hardware.processes}개)"),
        ("정밀도", f"가중치 {report.dtype}, 계산 {precision}"),
        ("메모리", f"최대 {memory.peak / _GIB:.2f} GiB, 예상 {memory.estimated / _GIB:.2f} GiB, "
                 f"한도 {memory.limit / _GIB:.1f} GiB"),
        ("운영체제", report.system),
        *report.versions.items(),
    )  # fmt: skip


def _settings(settings: Settings) -> tuple[tuple[SettingLine, ...], int]:
    """Return all settings, those that differ from their defaults first, and how many these are."""
    changed, rest = list[SettingLine](), list[SettingLine]()
    for field in fields_of(type(settings)):
        value = value_at(settings, field.key)
        line = SettingLine(field.key, _as_text(value), _as_text(field.default), field.setting.korean.replace("`", ""))
        (rest if value == field.default else changed).append(line)
    return (*changed, *rest), len(changed)


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
