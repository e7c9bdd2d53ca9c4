"""The session of a command: its settings, task, runtime and managers, and the data that it prepares with them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exceptions import ModelError
from finetuning.config.ladder import with_changes
from finetuning.config.origins import Origins
from finetuning.config.preset import Row, Trained, kept, method_of, preset_values, row_for, sources
from finetuning.config.schema import Settings
from finetuning.config.value_types import bare_value
from finetuning.files import similar_name
from finetuning.models.agreement import TokenRows, fit_special_ids
from finetuning.models.quantization import check_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from data_manager import DataManager
    from finetuning.data.examples import Examples
    from finetuning.data.rows import Rows
    from finetuning.device.runtime import Runtime
    from finetuning.inference.evaluator import Evaluator
    from finetuning.models.vocabulary import Extension
    from finetuning.models.vocabulary_learning import Learned
    from finetuning.tasks.base import Task
    from model_manager import ModelManager

_log = logging.getLogger(__name__)


class StopSignal(Protocol):
    """Knows whether the user asked the run to stop."""

    patient: bool

    def pending(self) -> int | None:
        """Return the signal that asked for a stop, or None."""

    def check(self) -> None:
        """Raise StopRequested where a stop was asked for."""


@dataclass(frozen=True)
class Session:
    """What a command works with. `finetuning_app.build_session` builds it once from the settings.

    Attributes:
        settings: The settings in force.
        task: The task, under these settings.
        runtime: Device, precision, seeds and processes.
        data: Reads the data.
        models: Loads and saves the model.
        output_dir: The folder of the run.
        stop: Knows whether the user asked for a stop.
        origins: Where the settings come from.
    """

    settings: Settings
    task: Task
    runtime: Runtime
    data: DataManager
    models: ModelManager
    output_dir: Path
    stop: StopSignal
    origins: Origins = field(default_factory=Origins)

    @property
    def given(self) -> frozenset[str]:
        """Dotted names of the settings on the command line. Nothing else may choose them, even at their default."""
        return self.origins.flags

    def with_task(self, task: Task) -> Session:
        """Return the session for a task that the data showed to be meant, with the settings of that task."""
        model = task.settings.model.model_copy(update={"task": task.name})
        return self.with_settings(task.settings.model_copy(update={"model": model}), task)

    def with_settings(self, settings: Settings, task: Task) -> Session:
        """Return the session under other settings, for a task of the class of `task`."""
        from data_manager import DataManager
        from model_manager import ModelManager

        task = type(task)(settings)
        models = ModelManager(settings, task, self.models.extension)
        return replace(self, settings=settings, task=task, data=DataManager(settings, task), models=models)

    def with_extension(self, extension: Extension) -> Session:
        """Return the session for a model whose vocabulary is extended."""
        from model_manager import ModelManager

        return replace(self, models=ModelManager(self.settings, self.task, extension))

    def evaluator(
        self, load: Callable[[], PreTrainedModel], tokenizer: Any, label_names: Sequence[str], max_length: int
    ) -> Evaluator:
        """Load a model onto the device, whole or this process's part of it, and return what evaluates it."""
        from finetuning.inference.evaluator import Evaluator
        from finetuning.training.sharded import placed
        from memory_utils import MemoryManager

        model = placed(load, self.settings, self.runtime)
        memory = MemoryManager(self.settings, self.runtime.device, max_length)
        fit_special_ids(model, tokenizer)
        self.task.scores.fit_model(model, tokenizer)
        return Evaluator(self.task, model, tokenizer, label_names, max_length, self.runtime, memory, self.stop.check)

    def evaluator_to_train(self, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        """Load the model that a run begins with. The same seed gives a new head the same random weights."""
        from finetuning.ops.recompute import recompute_activations

        self.runtime.seed_model(self.settings.training.seed)
        load = partial(self.models.load_model, label_names, TokenRows.of(tokenizer))
        evaluator = self.evaluator(load, tokenizer, label_names, max_length)
        self.models.check_savable(evaluator.model, tokenizer)
        evaluator.memory.trains = True
        if self.settings.memory.gradient_checkpointing:
            recompute_activations(evaluator.model)
        return evaluator


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    Attributes:
        session: The session, for the task that the data showed to be meant.
        splits: Clean rows by split.
        label_names: Labels in the order of their ids; empty for a task without.
        examples: Tokenised examples by split.
        learned: Pieces that are new to the tokenizer, or None.
        preset: Settings that `training.preset` chose, by dotted name.
    """

    session: Session
    splits: dict[str, Rows]
    label_names: tuple[str, ...]
    examples: dict[str, Examples]
    learned: Learned | None
    preset: Mapping[str, Any] = field(default_factory=dict)

    def under(self, settings: Settings) -> Prepared:
        """Return the same data under other settings of training, which no example depends on."""
        if settings == self.session.settings:
            return self
        return replace(self, session=self.session.with_settings(settings, self.session.task))


def prepare(
    session: Session, tokenizer: PreTrainedTokenizerBase, max_length: int, earlier: Learned | None = None,
    earlier_preset: Mapping[str, Any] | None = None,
) -> Prepared:  # fmt: skip
    """Read the data of a run: source → splits → labels → (new pieces of the tokenizer) → examples.

    Args:
        session: The session.
        tokenizer: The model's tokenizer; it is changed where the vocabulary is extended.
        max_length: Upper bound of an example's tokens.
        earlier: Pieces that a resumed run began with.
        earlier_preset: Settings that were chosen when a resumed run began, by dotted name.

    Returns:
        The data, with the session for the task that it showed to be meant, under the preset if one is asked for.
    """
    from finetuning.commands.vocabulary import extend_vocabulary
    from finetuning.data.few_rows import warn_of_few
    from finetuning.models.vocabulary import check_tokenizer
    from finetuning.tasks.loss_settings import check_read, resolved_weights
    from finetuning.tasks.registry import refined_task

    if session.settings.model.extend_vocabulary is not None:
        check_tokenizer(tokenizer)
    check_read(session.task)
    splits = session.data.load_splits()
    asked = session.task.name
    session = session.with_task(refined_task(session.task, *session.data.label_profile(splits["train"])))
    if session.task.name != asked:
        splits = session.data.load_splits()  # the task decides which rows are good
        check_read(session.task)
    label_names, learned = session.data.label_names(splits), None
    warn_of_few(splits, session.settings.data.validation_split)
    if session.settings.model.extend_vocabulary is not None:
        session, learned = extend_vocabulary(session, tokenizer, splits, earlier)
    examples = {name: session.data.encode(rows, tokenizer, label_names, max_length) for name, rows in splits.items()}
    session.data.prune_cache()
    if session.settings.training.class_weights is not None:
        counts = examples["train"].label_counts(label_names)
        session = session.with_settings(resolved_weights(session.settings, counts, label_names), session.task)
    prepared = Prepared(session, splits, label_names, examples, learned)
    return prepared if session.settings.training.preset is None else _under_preset(prepared, earlier_preset or {})


def row_of(session: Session) -> Row:
    """Return the preset's values for what the session trains."""
    from finetuning.tasks.model_kind import kind_of

    kind = kind_of(session.models.load_config())
    return row_for(Trained(kind, method_of(session.settings), session.task.auto_class, session.task.objective))


def _under_preset(prepared: Prepared, earlier: Mapping[str, Any]) -> Prepared:
    """Choose the settings that the user left open by what is trained and by the number of examples."""
    session, settings = prepared.session, prepared.session.settings
    row = row_of(session)
    examples, processes = prepared.examples["train"].per_epoch, session.runtime.processes
    chosen = kept(preset_values(row, settings, session.origins.by_user, examples, processes), earlier)
    if chosen:
        shown = ", ".join(f"{key}: {bare_value(value)}" for key, value in chosen.items())
        _log.info("training.preset: %s (%s)", shown, row.source)
    else:
        _log.info("training.preset이 고를 값이 모두 직접 지정되어 있습니다.")
    told = sources(row, chosen, settings, session.origins.by_user, processes)
    origins = replace(session.origins, preset=told)
    session = replace(session.with_settings(with_changes(settings, chosen), session.task), origins=origins)
    return replace(prepared, session=session, preset=chosen)


def saved_model(session: Session, arguments: argparse.Namespace) -> Evaluator:
    """Load the fine-tuned model of --model_name, or else of output_dir."""
    check_device(session.settings, session.runtime.device)
    find_saved(session, arguments)
    return load_saved_model(session)


def load_saved_model(session: Session) -> Evaluator:
    """Load the fine-tuned model that the session's model manager names."""
    from finetuning.models.vocabulary import cover

    tokenizer = session.models.load_trained_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    label_names = session.models.label_names()

    def load() -> PreTrainedModel:
        model = session.models.load_saved()
        cover(model, TokenRows.of(tokenizer).all)
        return model

    return session.evaluator(load, tokenizer, label_names, max_length)


def find_saved(session: Session, arguments: argparse.Namespace) -> None:
    """Point the model manager at the fine-tuned model; raise ModelError where there is none yet."""
    if arguments.model_name is None:
        is_numbered = arguments.run.number > 1
        if is_numbered:
            _log.info(
                "가장 최근 학습의 모델을 씁니다: %s (이전 학습의 모델을 쓰려면 --model_name으로 그 폴더를 지정하세요)",
                session.output_dir,
            )
        session.models.name = str(session.output_dir)
        if not (session.output_dir / "config.json").is_file():
            raise ModelError(
                "아직 저장된 모델이 없습니다.",
                where=str(session.output_dir),
                remedy=("" if session.output_dir.exists() else similar_name(session.output_dir))
                + "먼저 학습을 실행하거나, --output_dir 또는 --model_name으로 모델 폴더를 지정하세요."
                + (" 이전 학습의 모델은 --model_name으로 그 폴더를 지정하면 쓸 수 있습니다." if is_numbered else ""),
            )
