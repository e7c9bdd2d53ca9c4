"""What every command works with: task, device, data and model managers, built once from the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exceptions import ModelError
from finetuning.config.schema import Settings
from finetuning.models.quantization import check_combination, check_device

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from data_manager import DataManager
    from finetuning.data.examples import Examples
    from finetuning.data.rows import Rows
    from finetuning.inference.evaluator import Evaluator
    from finetuning.models.vocabulary import Extension
    from finetuning.models.vocabulary_learning import Learned
    from finetuning.tasks.base import Task
    from model_manager import ModelManager


class StopSignal(Protocol):
    """Tells whether the user asked the run to stop."""

    patient: bool

    def pending(self) -> int | None:
        """The signal that asked for a stop, or None."""

    def check(self) -> None:
        """Raises StopRequested where a stop was asked for."""


@dataclass(frozen=True)
class Workbench:
    """Everything that a command needs, built once from the settings.

    given: the settings that the command line has, which nothing else may choose, even where they are the defaults.
    """

    settings: Settings
    task: Task
    accelerator: Accelerator
    data: DataManager
    models: ModelManager
    output_dir: Path
    stop: StopSignal
    given: frozenset[str] = frozenset()

    def with_task(self, task: Task) -> Workbench:
        """The same with a task that the data showed to be meant more exactly, its settings to be kept."""
        model = task.settings.model.model_copy(update={"task": task.name})
        return self.with_settings(task.settings.model_copy(update={"model": model}), task)

    def with_settings(self, settings: Settings, task: Task) -> Workbench:
        """The same under other settings, for a task of the kind of `task`."""
        from data_manager import DataManager
        from model_manager import ModelManager

        task = type(task)(settings)
        models = ModelManager(settings, task, self.models.extension)
        return replace(self, settings=settings, task=task, data=DataManager(settings, task), models=models)

    def with_extension(self, extension: Extension) -> Workbench:
        """The same for a model whose vocabulary is extended."""
        from model_manager import ModelManager

        return replace(self, models=ModelManager(self.settings, self.task, extension))

    def evaluator(self, model: Any, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        from finetuning.inference.evaluator import Evaluator
        from memory_utils import MemoryManager

        memory = MemoryManager(self.settings, self.accelerator.device, max_length)
        if model.config.pad_token_id is None:  # a classifier on a causal model finds each text's end by it
            model.config.pad_token_id = tokenizer.pad_token_id
        model.to(self.accelerator.device)
        self.task.scores.fit_model(model, tokenizer)
        return Evaluator(
            self.task, model, tokenizer, label_names, max_length, self.accelerator, memory, self.stop.check
        )

    def evaluator_to_train(self, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        """The model that a run begins with; the same seed gives a new head the same random weights."""
        import torch

        from finetuning.ops.recompute import recompute_activations

        torch.manual_seed(self.settings.training.seed)
        evaluator = self.evaluator(self.models.load_model(label_names), tokenizer, label_names, max_length)
        evaluator.memory.trains = True
        if self.settings.memory.gradient_checkpointing:
            recompute_activations(evaluator.model)
        return evaluator


def build(settings: Settings, stop: StopSignal, given: frozenset[str] = frozenset()) -> Workbench:
    """Settings → task, device, precision, processes and managers; given: as the workbench has it."""
    from finetuning.device.allocator import prepare_allocator
    from finetuning.device.precision import allow_tf32, autocast_precision

    check_combination(settings)
    prepare_allocator(settings)
    if not all(Path(name).expanduser().exists() for name in (settings.model.name, settings.data.dataset_name)):
        from finetuning.data.hub import notice_offline

        notice_offline()
    import torch
    from accelerate import Accelerator

    from data_manager import DataManager
    from finetuning.models.vocabulary import check_task
    from finetuning.reporting.log import quiet_libraries, set_up_logging
    from finetuning.tasks.registry import find_task
    from model_manager import ModelManager

    on_cpu = not torch.accelerator.is_available()  # said outright, so that several processes find each other on CPUs
    accelerator = Accelerator(mixed_precision=autocast_precision(settings), cpu=on_cpu)
    allow_tf32(accelerator.mixed_precision)
    set_up_logging(settings.logging, accelerator.is_main_process)
    quiet_libraries()
    task = find_task(settings)
    check_task(task)
    output_dir = Path(settings.model.output_dir).expanduser()
    return Workbench(
        settings, task, accelerator, DataManager(settings, task), ModelManager(settings, task), output_dir, stop, given
    )


@dataclass(frozen=True)
class Prepared:
    """The data of a run, and the workbench whose task it showed to be meant; learned: pieces new to the tokenizer."""

    bench: Workbench
    splits: dict[str, Rows]
    label_names: tuple[str, ...]
    examples: dict[str, Examples]
    learned: Learned | None

    def under(self, settings: Settings) -> Prepared:
        """The same under other settings of how it is trained, which no example depends on."""
        if settings == self.bench.settings:
            return self
        return replace(self, bench=self.bench.with_settings(settings, self.bench.task))


def prepare(
    bench: Workbench, tokenizer: PreTrainedTokenizerBase, max_length: int, earlier: Learned | None = None
) -> Prepared:
    """Source → splits, the task that they are for, labels, new pieces of the tokenizer, and examples.

    earlier: the pieces that the run was begun with, where it is resumed.
    """
    from finetuning.commands.vocabulary import extend_vocabulary
    from finetuning.models.vocabulary import check_tokenizer
    from finetuning.tasks.registry import refined_task

    if bench.settings.model.extend_vocabulary is not None:
        check_tokenizer(tokenizer)
    splits = bench.data.load_splits()
    asked = bench.task.name
    bench = bench.with_task(refined_task(bench.task, *bench.data.label_profile(splits["train"])))
    if bench.task.name != asked:
        splits = bench.data.load_splits()  # what a good row is, is the task's to say
    label_names, learned = bench.data.label_names(splits), None
    if bench.settings.model.extend_vocabulary is not None:
        bench, learned = extend_vocabulary(bench, tokenizer, splits, earlier)
    examples = {name: bench.data.encode(rows, tokenizer, label_names, max_length) for name, rows in splits.items()}
    bench.data.prune_cache()
    return Prepared(bench, splits, label_names, examples, learned)


def saved_model(bench: Workbench, arguments: argparse.Namespace) -> Evaluator:
    """The model that was fine-tuned: that of --model_name, or else of output_dir."""
    check_device(bench.settings, bench.accelerator.device)
    find_saved(bench, arguments)
    tokenizer = bench.models.load_tokenizer()
    max_length = bench.models.usable_length(tokenizer)
    label_names = bench.models.label_names()
    return bench.evaluator(bench.models.load_saved(), tokenizer, label_names, max_length)


def find_saved(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Points the model manager at the model that was fine-tuned; ModelError where there is none yet."""
    if arguments.model_name is None:
        bench.models.name = str(bench.output_dir)
        if not (bench.output_dir / "config.json").is_file():
            raise ModelError(
                "아직 저장된 모델이 없습니다.",
                where=str(bench.output_dir),
                remedy="먼저 학습을 실행하거나, --output_dir 또는 --model_name으로 모델 폴더를 지정하세요.",
            )
