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
    from transformers import PreTrainedTokenizerBase

    from data_manager import DataManager
    from finetuning.data.examples import Examples
    from finetuning.data.rows import Rows
    from finetuning.device.runtime import Runtime
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
class Session:
    """Everything that a command needs, built once from the settings.

    given: the settings that the command line has, which nothing else may choose, even where they are the defaults.
    """

    settings: Settings
    task: Task
    runtime: Runtime
    data: DataManager
    models: ModelManager
    output_dir: Path
    stop: StopSignal
    given: frozenset[str] = frozenset()

    def with_task(self, task: Task) -> Session:
        """The same with a task that the data showed to be meant more exactly, its settings to be kept."""
        model = task.settings.model.model_copy(update={"task": task.name})
        return self.with_settings(task.settings.model_copy(update={"model": model}), task)

    def with_settings(self, settings: Settings, task: Task) -> Session:
        """The same under other settings, for a task of the kind of `task`."""
        from data_manager import DataManager
        from model_manager import ModelManager

        task = type(task)(settings)
        models = ModelManager(settings, task, self.models.extension)
        return replace(self, settings=settings, task=task, data=DataManager(settings, task), models=models)

    def with_extension(self, extension: Extension) -> Session:
        """The same for a model whose vocabulary is extended."""
        from model_manager import ModelManager

        return replace(self, models=ModelManager(self.settings, self.task, extension))

    def evaluator(self, model: Any, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        from finetuning.inference.evaluator import Evaluator
        from memory_utils import MemoryManager

        memory = MemoryManager(self.settings, self.runtime.device, max_length)
        if model.config.pad_token_id is None:  # a classifier on a causal model finds each text's end by it
            model.config.pad_token_id = tokenizer.pad_token_id
        model.to(self.runtime.device)
        self.task.scores.fit_model(model, tokenizer)
        return Evaluator(self.task, model, tokenizer, label_names, max_length, self.runtime, memory, self.stop.check)

    def evaluator_to_train(self, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        """The model that a run begins with; the same seed gives a new head the same random weights."""
        from finetuning.ops.recompute import recompute_activations

        self.runtime.seed_model(self.settings.training.seed)
        evaluator = self.evaluator(self.models.load_model(label_names), tokenizer, label_names, max_length)
        evaluator.memory.trains = True
        if self.settings.memory.gradient_checkpointing:
            recompute_activations(evaluator.model)
        return evaluator


def build(settings: Settings, stop: StopSignal, given: frozenset[str] = frozenset()) -> Session:
    """Settings → task, device, precision, processes and managers; given: as the session has it."""
    from finetuning.device.allocator import prepare_allocator
    from finetuning.device.precision import allow_tf32, autocast_precision

    check_combination(settings)
    prepare_allocator(settings)
    if not all(Path(name).expanduser().exists() for name in (settings.model.name, settings.data.dataset_name)):
        from finetuning.data.hub import notice_offline

        notice_offline()
    from data_manager import DataManager
    from finetuning.device.runtime import start_runtime
    from finetuning.models.vocabulary import check_task
    from finetuning.reporting.log import quiet_libraries, set_up_logging
    from finetuning.tasks.registry import find_task
    from model_manager import ModelManager

    runtime = start_runtime(autocast_precision(settings))
    allow_tf32(runtime.precision)
    set_up_logging(settings.logging, runtime.is_main)
    quiet_libraries()
    task = find_task(settings)
    check_task(task)
    output_dir = Path(settings.model.output_dir).expanduser()
    return Session(
        settings, task, runtime, DataManager(settings, task), ModelManager(settings, task), output_dir, stop, given
    )


@dataclass(frozen=True)
class Prepared:
    """The data of a run, and the session whose task it showed to be meant; learned: pieces new to the tokenizer."""

    session: Session
    splits: dict[str, Rows]
    label_names: tuple[str, ...]
    examples: dict[str, Examples]
    learned: Learned | None

    def under(self, settings: Settings) -> Prepared:
        """The same under other settings of how it is trained, which no example depends on."""
        if settings == self.session.settings:
            return self
        return replace(self, session=self.session.with_settings(settings, self.session.task))


def prepare(
    session: Session, tokenizer: PreTrainedTokenizerBase, max_length: int, earlier: Learned | None = None
) -> Prepared:
    """Source → splits, the task that they are for, labels, new pieces of the tokenizer, and examples.

    earlier: the pieces that the run was begun with, where it is resumed.
    """
    from finetuning.commands.vocabulary import extend_vocabulary
    from finetuning.models.vocabulary import check_tokenizer
    from finetuning.tasks.registry import refined_task

    if session.settings.model.extend_vocabulary is not None:
        check_tokenizer(tokenizer)
    splits = session.data.load_splits()
    asked = session.task.name
    session = session.with_task(refined_task(session.task, *session.data.label_profile(splits["train"])))
    if session.task.name != asked:
        splits = session.data.load_splits()  # what a good row is, is the task's to say
    label_names, learned = session.data.label_names(splits), None
    if session.settings.model.extend_vocabulary is not None:
        session, learned = extend_vocabulary(session, tokenizer, splits, earlier)
    examples = {name: session.data.encode(rows, tokenizer, label_names, max_length) for name, rows in splits.items()}
    session.data.prune_cache()
    return Prepared(session, splits, label_names, examples, learned)


def saved_model(session: Session, arguments: argparse.Namespace) -> Evaluator:
    """The model that was fine-tuned: that of --model_name, or else of output_dir."""
    check_device(session.settings, session.runtime.device)
    find_saved(session, arguments)
    tokenizer = session.models.load_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    label_names = session.models.label_names()
    return session.evaluator(session.models.load_saved(), tokenizer, label_names, max_length)


def find_saved(session: Session, arguments: argparse.Namespace) -> None:
    """Points the model manager at the model that was fine-tuned; ModelError where there is none yet."""
    if arguments.model_name is None:
        session.models.name = str(session.output_dir)
        if not (session.output_dir / "config.json").is_file():
            raise ModelError(
                "아직 저장된 모델이 없습니다.",
                where=str(session.output_dir),
                remedy="먼저 학습을 실행하거나, --output_dir 또는 --model_name으로 모델 폴더를 지정하세요.",
            )
