"""A run's facts in one typed object: the end of the log, summary.json, the model card and the page all render it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetuning.config.schema import ExpectationSettings, Settings
from finetuning.korean.durations import duration
from finetuning.models.adapters import METHODS
from finetuning.reporting.cases import RankedCase
from finetuning.reporting.metric_names import metrics_line
from finetuning.reporting.next_steps import NextStep
from finetuning.reporting.profile import PhaseTimes
from finetuning.reporting.published import Verdict, judge, public_name
from finetuning.reporting.quality import Quality, lines_of
from finetuning.tasks.base import Task
from finetuning.tasks.evidence import Evidence

_GIB = 2**30


@dataclass(frozen=True)
class WindowSize:
    """Examples of one optimizer step, over all processes."""

    batch_size: int
    gradient_accumulation_steps: int
    processes: int

    @property
    def examples(self) -> int:
        return self.batch_size * self.gradient_accumulation_steps * self.processes


@dataclass(frozen=True)
class Loading:
    """How the saved model is loaded and used, for the model card.

    Attributes:
        auto_class: Name of the transformers class that loads the model.
        pipeline: Name of the transformers pipeline, or None if there is none.
        usage: Python lines that use `model` and `tokenizer`, where no pipeline does the same.
        is_adapter: Whether the folder holds an adapter without its base model.
    """

    auto_class: str
    pipeline: str | None
    usage: str
    is_adapter: bool


@dataclass(frozen=True)
class Hardware:
    """The hardware of the run.

    Attributes:
        device: Name of the main process's device, such as `cpu` or `NVIDIA H100`.
        processes: Number of processes, one device each.
        precision: Precision of autocast: `no`, `bf16` or `fp16`.
    """

    device: str
    processes: int
    precision: str


@dataclass(frozen=True)
class MemoryFacts:
    """Memory of the main process in bytes, on its GPU or, without one, in main memory.

    Attributes:
        peak: The most that was in use.
        limit: How much the run may use.
        before_model: In use before the model was loaded.
        estimated: The estimate of the peak, made before training.
    """

    peak: int
    limit: int
    before_model: int
    estimated: int


@dataclass(frozen=True)
class CompiledFacts:
    """What became of `training.torch_compile`.

    Attributes:
        graphs: Number of graphs that were compiled.
        graph_breaks: How often the code of a layer or of its parts was split, so that Python runs in between.
        uncompiled_layer_calls: How often a layer ran its Python code, since the compiled code did not hold.
    """

    graphs: int
    graph_breaks: int
    uncompiled_layer_calls: int


@dataclass(frozen=True)
class TrainingFacts:
    """How training ended.

    Attributes:
        steps: Optimizer steps taken.
        best_step: The step of the saved model.
        best_metric: Its validation metric, by which it was chosen.
        last_validation: Metrics of the last validation.
        seconds: Wall clock time of the command, from reading data to the final evaluation.
        profile: Time by phase, where `logging.profile` asked for it.
        compiled: What became of `training.torch_compile`, where layers were compiled.
    """

    steps: int
    best_step: int
    best_metric: float
    last_validation: Mapping[str, float]
    seconds: float
    profile: PhaseTimes | None
    compiled: CompiledFacts | None = None


@dataclass(frozen=True)
class EvaluationFacts:
    """The final evaluation of the best model, as it was saved.

    Attributes:
        split: `test`, or `validation` where the data has no test split.
        metrics: Metrics by name.
        details: Further lines about the evaluation, such as a confusion matrix.
        samples: Lines that show a few rows with their predictions.
        evidence: What the task shows of it on the page.
        cases: The first rows of the evidence's ranking.
    """

    split: str
    metrics: Mapping[str, float]
    details: Sequence[str] = ()
    samples: Sequence[str] = ()
    evidence: Evidence = field(default_factory=Evidence)
    cases: Sequence[RankedCase] = ()


@dataclass(frozen=True)
class SplitFacts:
    """A split of the data.

    Attributes:
        name: Its name.
        where: Its source, as messages name it.
        rows: Its number of rows.
        cut: Number of its examples that were cut at max_length.
        told: What cleaning found, a sentence each.
        labels: Count of each label, the commonest first.
    """

    name: str
    where: str
    rows: int
    cut: int = 0
    told: Sequence[str] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Background:
    """What only the page shows of a run.

    Attributes:
        data: The splits, train first.
        notes: Further sentences about the data, such as how many texts are repeated.
        records: The records of metrics.jsonl.
        next_steps: What may be done next with the model.
    """

    data: Sequence[SplitFacts] = ()
    notes: Sequence[str] = ()
    records: Sequence[Mapping[str, Any]] = ()
    next_steps: Sequence[NextStep] = ()


@dataclass(frozen=True)
class RunReport:
    """All facts of a finished run.

    Attributes:
        output_dir: The folder of the run.
        task: Name of the task.
        model: Name or path of the base model, as in the settings.
        dataset: Name or path of the data, as in the settings.
        public_model: The base model's name for other people: a local path is cut to its last part.
        public_dataset: The same of the data.
        loading: How to load the saved model.
        rows: Number of rows of each split.
        window: Examples of one optimizer step.
        epochs: Epochs asked for.
        learning_rate: The highest learning rate of the schedule.
        dtype: Type of the weights in training: `float32` or `bfloat16`.
        seed: The run's seed.
        best_metric_name: The metric that chooses the best model.
        training: How training ended.
        evaluation: The final evaluation.
        hardware: Device, processes and precision.
        memory: Memory used.
        quality: What the score is worth, beside answers that need no training.
        expectation: The published score, where the settings name one.
        verdict: Whether the run reproduced it, or None without one.
        versions: Versions of Python and of the libraries that results depend on.
        system: The operating system.
        settings: The settings in force, with automatic choices applied.
        background: What only the page shows.
    """

    output_dir: Path
    task: str
    model: str
    dataset: str
    public_model: str
    public_dataset: str
    loading: Loading
    rows: Mapping[str, int]
    window: WindowSize
    epochs: int
    learning_rate: float
    dtype: str
    seed: int
    best_metric_name: str
    training: TrainingFacts
    evaluation: EvaluationFacts
    hardware: Hardware
    memory: MemoryFacts
    quality: Quality
    expectation: ExpectationSettings
    verdict: Verdict | None
    versions: Mapping[str, str]
    system: str
    settings: Settings
    background: Background


def build_report(
    settings: Settings,
    task: Task,
    rows: Mapping[str, int],
    *,
    training: TrainingFacts,
    evaluation: EvaluationFacts,
    hardware: Hardware,
    memory: MemoryFacts,
    quality: Quality,
    background: Background,
) -> RunReport:
    """Build the report of a run from its settings and its measurements.

    Args:
        settings: The settings in force, with automatic choices applied.
        task: The task.
        rows: Number of rows of each split.
        training: How training ended.
        evaluation: The final evaluation.
        hardware: Device, processes and precision.
        memory: Memory used.
        quality: What the score is worth.
        background: What only the page shows.

    Returns:
        The report, with the verdict on the published score and the library versions.
    """
    data, model = settings.data, settings.model
    return RunReport(
        output_dir=Path(model.output_dir).expanduser(),
        task=task.name,
        model=model.name,
        dataset=data.shown_name(),
        public_model=public_name(model.name),
        public_dataset=", ".join(map(public_name, data.names())),
        loading=Loading(
            task.auto_class, task.pipeline, task.usage, is_adapter=METHODS[model.adapter.method].adds_weights
        ),
        rows=dict(rows),
        window=WindowSize(data.batch_size, settings.memory.gradient_accumulation_steps, hardware.processes),
        epochs=settings.training.epochs,
        learning_rate=settings.training.learning_rate,
        dtype=model.dtype,
        seed=settings.training.seed,
        best_metric_name=task.scores.best_metric,
        training=training,
        evaluation=evaluation,
        hardware=hardware,
        memory=memory,
        quality=quality,
        expectation=settings.expectation,
        verdict=judge(settings, rows, evaluation.metrics),
        versions=library_versions(),
        system=platform.platform(),
        settings=settings,
        background=background,
    )


def summary(report: RunReport) -> dict[str, Any]:
    """Render a report as the content of summary.json."""
    training, evaluation = report.training, report.evaluation
    found: dict[str, Any] = {
        "task": report.task,
        "model": report.model,
        "dataset": report.dataset,
        "rows": dict(report.rows),
        "window": {**asdict(report.window), "examples": report.window.examples},
        "epochs": report.epochs,
        "learning_rate": report.learning_rate,
        "steps": training.steps,
        "best_step": training.best_step,
        f"best_validation_{report.best_metric_name}": training.best_metric,
        "last_validation": dict(training.last_validation),
        evaluation.split: dict(evaluation.metrics),
        "seconds": round(training.seconds, 1),
        "peak_memory_bytes": report.memory.peak,
        "memory_before_model_bytes": report.memory.before_model,
        "estimated_memory_bytes": report.memory.estimated,
        "device": report.hardware.device,
        "dtype": report.dtype,
        "precision": report.hardware.precision,
        "seed": report.seed,
    }
    if training.profile is not None:
        found["profile"] = asdict(training.profile)
    if training.compiled is not None:
        found["compiled"] = asdict(training.compiled)
    quality = asdict(report.quality)
    found["quality"] = {**quality, **{name: list(quality[name]) for name in ("interval", "findings") if quality[name]}}
    if report.verdict is not None:
        found["expectation"] = {
            **report.expectation.model_dump(),
            "measured": report.verdict.measured,
            "verdict": report.verdict.outcome,
        }
    return {**found, "versions": dict(report.versions)}


def log_lines(report: RunReport) -> list[str]:
    """Render a report as the last lines of a run's log."""
    evaluation, training, memory = report.evaluation, report.training, report.memory
    lines = [*evaluation.samples, *evaluation.details]
    lines.append(evaluation_line(evaluation.split, report.rows[evaluation.split], evaluation.metrics))
    if report.verdict is not None:
        lines.append(report.verdict.text)
    lines.extend(lines_of(report.quality))
    lines.append(
        f"소요 시간 {duration(training.seconds)}, "
        f"메모리 최대 {memory.peak / _GIB:.2f} GiB (한도 {memory.limit / _GIB:.1f} GiB)"
    )
    lines.append(f"가장 좋은 모델(스텝 {training.best_step:,})을 저장했습니다: {report.output_dir}")
    return lines


def evaluation_line(split: str, rows: int, metrics: Mapping[str, float]) -> str:
    """Format a split's metrics as one line: `test 20행: 손실 0.3120, 정확도 0.8712`."""
    return f"{split} {rows:,}행: {metrics_line(metrics)}"


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    import accelerate
    import datasets
    import torch
    import transformers

    modules = (accelerate, datasets, torch, transformers)
    return {"python": sys.version.split()[0], **{module.__name__: str(module.__version__) for module in modules}}
