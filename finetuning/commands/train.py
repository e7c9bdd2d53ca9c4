"""train: fine-tune, keep the best model in output_dir, and report the result."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from config_manager import ConfigManager
from exceptions import ModelError, ResourceError
from finetuning.checkpoints.lock import only_run_in
from finetuning.commands.fitting import fitting_of
from finetuning.commands.foresight import known_of, scored_split
from finetuning.commands.machines import clear_copies, found_checkpoint, mark_end, model_for_all, tell_of_disks
from finetuning.commands.output_folder import (
    check_not_foreign,
    check_writable,
    prepare_output,
)
from finetuning.commands.references import compared
from finetuning.commands.refined_settings import as_asked, refined
from finetuning.commands.results import data_notes, result_files, results_in, split_facts, write_results
from finetuning.commands.run_folder import check_not_its_own_base
from finetuning.commands.session import Prepared, Session, prepare
from finetuning.commands.tokenizers import tokenizer_lines
from finetuning.commands.what_next import tell, words_for_more_epochs
from finetuning.config.ladder import remembered, with_changes
from finetuning.config.preset import KEYS
from finetuning.device.peers import is_elastic
from finetuning.files import discard
from finetuning.models.adapters import METHODS
from finetuning.models.chat_template import keep_template, kept_template
from finetuning.models.quantization import check_device
from finetuning.models.vocabulary_cache import keep, read_kept
from finetuning.planning.fit import choose
from finetuning.reporting.next_steps import NextStep, SavedModel, next_commands, trained_model
from finetuning.reporting.trackers import check_trackers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.commands.run_folder import RunFolder
    from finetuning.data.examples import Examples
    from finetuning.device.budget import TokenBudget
    from finetuning.device.disks import Disks
    from finetuning.device.runtime import Runtime
    from finetuning.device.sharding import Gathering
    from finetuning.inference.evaluator import Evaluator
    from finetuning.reporting.profile import PhaseTimes
    from finetuning.reporting.quality import Untrained
    from finetuning.reporting.run_report import CompiledFacts
    from finetuning.types import Checkpoint
    from training_manager import TrainingState

_log = logging.getLogger(__name__)
_COMPARED_ROWS = 200  # of validation, whose loss is compared before and after training


@dataclass(frozen=True)
class _Fitted:
    """A run under the settings that fit into memory.

    Attributes:
        prepared: The run under these settings.
        chosen: The settings that were chosen automatically, by dotted name.
        taken: Bytes in use before the model is loaded.
        estimated: The estimate of the peak in bytes.
    """

    prepared: Prepared
    chosen: dict[str, Any]
    taken: int
    estimated: int


@dataclass(frozen=True)
class _Trained:
    """The end of training.

    Attributes:
        state: The final state.
        ended: The report as it was, content by file, where a run that had ended was resumed and no step was left.
        memory: The memory manager.
        profile: The time by phase where it was measured.
        compiled: What became of compiled layers, where there were any.
        examples: Tokenised examples by split, as they were trained on.
        unsaved: Why the last checkpoint is not on the disk; None where it is.
        disks: The disks behind output_dir.
    """

    state: TrainingState
    ended: dict[str, bytes]
    memory: TokenBudget
    profile: PhaseTimes | None
    compiled: CompiledFacts | None
    examples: Mapping[str, Examples]
    unsaved: ResourceError | None
    disks: Disks


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Fine-tune, keep the best model in output_dir, evaluate it on held-out rows and write the report."""
    # others may have looked when its folder was there already, or on another disk
    arguments.run, arguments.resume = session.runtime.from_main((arguments.run, arguments.resume))
    is_again = any(session.runtime.by_process(session.runtime.is_again))
    session = replace(session, output_dir=arguments.run.path)
    check_trackers(session.settings.logging.trackers)
    check_writable(session.output_dir)
    check_not_its_own_base(session.settings.model.name, session.output_dir)
    check_not_foreign(session.output_dir)
    if arguments.run.note is not None:
        _log.info("%s", arguments.run.note)
    with only_run_in(session.output_dir) if session.runtime.is_main else nullcontext():
        _train(session, arguments, is_again)


def _train(session: Session, arguments: argparse.Namespace, is_again: bool) -> None:
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.device.disks import disks_behind
    from finetuning.training.resume import with_window_of

    started, output_dir, runtime = time.perf_counter(), session.output_dir, session.runtime
    check_device(session.settings, runtime.device)
    # the checkpoint to continue from, and the tokenizer
    disks = disks_behind(output_dir, runtime)
    store = CheckpointStore(output_dir, session.settings.training.save_total_limit, disks)
    if arguments.run.checkpoint is not None:  # before anything may fail, after which the group is started again
        arguments.run = _from_named(arguments.run, store, runtime, is_again)
    tell_of_disks(disks, session)
    clear_copies(output_dir, disks, runtime)
    path, checkpoint = found_checkpoint(store, arguments, runtime)
    if checkpoint is None and is_again:
        _log.info("저장된 체크포인트가 없어 처음부터 다시 학습합니다.")
    if checkpoint is not None and is_elastic():
        session = session.with_settings(
            with_window_of(checkpoint.fingerprint, session.settings, runtime.processes), session.task
        )
    folders = (path.parent.parent, output_dir) if path is not None else ()
    session = as_asked(session, folders)
    earlier, template = runtime.on_main(lambda: (read_kept(*folders), kept_template(*folders)))
    tokenizer = session.models.load_tokenizer() if template is None else session.models.load_trained_tokenizer(template)
    max_length = session.models.usable_length(tokenizer)
    # data: the main process reads and caches it first
    with runtime.main_first():
        prepared = prepare(session, tokenizer, max_length, earlier, _chosen_in(checkpoint))
    arguments.run = replace(arguments.run, refined=refined(session.settings, prepared))
    if prepared.session.runtime.is_main:
        for line in tokenizer_lines(prepared, tokenizer, max_length, others=()):  # warns where it does not fit
            _log.debug("%s", line)
    _log.info("데이터: %s", ", ".join(f"{name} {len(rows):,}행" for name, rows in prepared.splits.items()))
    # settings that fit, training, report
    fitted = _fitted(prepared, tokenizer, max_length, checkpoint)
    trained = _trained(fitted, tokenizer, max_length, store, checkpoint, arguments)
    trained.memory.clean_up()  # the trained model and its optimizer, before the best model is loaded beside them
    steps = next_commands(_left_by(fitted.prepared, trained.state, arguments))
    _report(fitted, trained, tokenizer, max_length, started, steps)
    mark_end(store, runtime)
    if arguments.run.earlier is not None:
        _log.info(
            "이번 학습은 %s 폴더에 있습니다. 이전 학습은 %s 폴더에 그대로 있습니다.", output_dir, arguments.run.earlier
        )
    if trained.unsaved is not None:
        raise trained.unsaved
    tell(steps)


def _from_named(run: RunFolder, store: CheckpointStore, runtime: Runtime, is_again: bool) -> RunFolder:
    """Return a run that began from a named checkpoint; started again, it goes on with what it has saved since."""
    if not is_again:
        has_own = store.disks.keeper == runtime.process and store.folder.is_dir()  # a disk with some of the checkpoints
        runtime.together(store.remember_newest if has_own or runtime.is_main else lambda: None)
        return run
    return replace(run, checkpoint=None) if runtime.on_main(store.has_gone_on) else run


def _fitted(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, max_length: int, checkpoint: Checkpoint | None,
) -> _Fitted:  # fmt: skip
    """Choose settings that fit into memory. A resumed run keeps those that were chosen when it began."""
    chosen = {key: value for key, value in _chosen_in(checkpoint).items() if key not in KEYS}  # the preset is in force
    prepared = prepared.under(remembered(prepared.session.settings, chosen, prepared.session.given))
    examples = prepared.examples
    fitting = fitting_of(
        prepared.session, tokenizer, prepared.label_names, max_length, examples["train"], examples["validation"]
    )
    changes, estimate = choose(fitting, exact=checkpoint is not None)
    settings = with_changes(prepared.session.settings, changes)
    return _Fitted(prepared.under(settings), {**prepared.preset, **chosen, **changes}, fitting.taken, estimate.total)


def _chosen_in(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the settings that were chosen when a run began, by dotted name."""
    chosen: dict[str, Any] = checkpoint.state.get("chosen", {}) if checkpoint is not None else {}
    return chosen


def _trained(
    fitted: _Fitted, tokenizer: PreTrainedTokenizerBase, max_length: int, store: CheckpointStore,
    checkpoint: Checkpoint | None, arguments: argparse.Namespace,
) -> _Trained:  # fmt: skip
    """Train, from a checkpoint or from the start."""
    from finetuning.reporting.run_report import CompiledFacts
    from finetuning.training.trial import try_model
    from training_manager import TrainingManager

    prepared = fitted.prepared
    session, output_dir = prepared.session, prepared.session.output_dir
    evaluator = session.evaluator_to_train(tokenizer, prepared.label_names, max_length)
    evaluator.memory.chosen = fitted.chosen
    evaluator.tell_decoding(is_measured=True)
    try_model(evaluator, prepared.examples["train"], session.settings.training.seed)
    examples = compared(session, evaluator, prepared.examples, starts_here=True)
    manager = TrainingManager(
        session.settings, evaluator, examples["train"], examples["validation"], store,
        save_best=lambda model, weights: _keep_model(session, model, tokenizer, weights),
        stop_signal=session.stop.pending,
        data_keys={name: prepared.splits[name].key for name in ("train", "validation")},
        output_dir=output_dir,
    )  # fmt: skip
    if checkpoint is not None:
        later = [folder.name for folder in store.later_than(checkpoint.progress.step)]
        if later:
            _log.warning("이보다 뒤의 체크포인트는 다음에 저장할 때 삭제합니다: %s", ", ".join(later))
        has_best = session.runtime.from_main((output_dir / "config.json").exists())
        manager.restore(checkpoint, has_best, arguments.allow_changed)
        _log.info("스텝 %s까지 마친 체크포인트에서 이어서 학습합니다.", f"{manager.state.step:,}")
    elif session.task.scores.best_metric == "loss":
        manager.state.untrained_loss = _loss_of_first_rows(evaluator, examples["validation"])
    if session.runtime.is_main:
        prepare_output(arguments.run, starts_anew=checkpoint is None)
        keep(prepared.learned, output_dir)
        keep_template(tokenizer, output_dir)
    ended = {} if checkpoint is None else results_in(output_dir)
    session.stop.patient = True
    unsaved = None
    try:
        state = manager.run()
    except ResourceError as error:
        if not manager.is_complete():
            raise
        unsaved, state = error, manager.state  # the best model is there: it is evaluated and reported first
        manager.best.check(state)
    if state.best_metric is None:
        raise ModelError(
            "검증 손실이나 지표가 NaN 또는 Inf여서 쓸 수 있는 모델이 나오지 않았습니다.",
            where=f"{output_dir}, 스텝 {state.step:,}",
            remedy="training.learning_rate를 낮추고(예: 10분의 1) 다른 --output_dir에서 다시 학습하세요.",
        )
    is_as_it_was = checkpoint is not None and checkpoint.progress.step == state.step
    report = ended if is_as_it_was else {}
    layers = manager.stepper.compiled
    compiled = None if layers is None else CompiledFacts(layers.graphs, layers.graph_breaks, state.uncompiled)
    return _Trained(state, report, evaluator.memory, manager.profile.times(), compiled, examples, unsaved, store.disks)


def _report(
    fitted: _Fitted, trained: _Trained, tokenizer: PreTrainedTokenizerBase, max_length: int, started: float,
    steps: Sequence[NextStep],
) -> None:  # fmt: skip
    """Evaluate the best model as it was saved, build the run's report and render it: the log and files."""
    from finetuning.inference.evaluator import columns_of
    from finetuning.reporting.cases import Said, ranked_cases
    from finetuning.reporting.metrics_file import records_in, validation_losses
    from finetuning.reporting.quality import Scored, quality_of
    from finetuning.reporting.run_report import (
        Background,
        EvaluationFacts,
        Hardware,
        MemoryFacts,
        TrainingFacts,
        build_report,
        log_lines,
    )
    from finetuning.reporting.samples import sample_lines, samples_of

    prepared, state, memory = fitted.prepared, trained.state, trained.memory
    session, examples, label_names = prepared.session, trained.examples, prepared.label_names
    split, task, runtime = scored_split(examples), session.task, session.runtime
    best = _saved_best(session, tokenizer, label_names, max_length, trained.disks)
    best.memory.token_budget = memory.token_budget  # what did not fit in training would not fit now
    evaluate = best.evaluate_again if split == "validation" else best.evaluate
    evaluation = evaluate(examples[split], session.settings.training.seed, task.scores.final_texts)
    untrained = _beside_untrained(state.untrained_loss, best, examples["validation"])
    if not runtime.is_main or state.best_metric is None:
        return
    said = Said(task, prepared.splits[split], examples[split].rows, evaluation.predictions, label_names, tokenizer)
    samples = list[str]()
    if not task.scores.final_texts:  # otherwise the details show generated texts
        samples = sample_lines(samples_of(task, said.rows, said.predictions, label_names, tokenizer))
    evidence = task.shows.evidence(said.predictions, columns_of(examples[split]), label_names)
    cases = ranked_cases(said, evidence) if session.settings.logging.report else ()
    scored = Scored(
        split, columns_of(examples[split]), evaluation.predictions, evaluation.metrics, label_names,
        session.data.label_counts(prepared.splits["train"]),
    )  # fmt: skip
    losses, known = validation_losses(session.output_dir), known_of(prepared, max_length)
    quality = quality_of(task, scored, state.step, losses, known, untrained)
    seconds = time.perf_counter() - started
    report = build_report(
        session.settings,
        task,
        {name: len(rows) for name, rows in prepared.splits.items()},
        training=TrainingFacts(
            state.step, state.best_step, state.best_metric, state.last_metrics, seconds, trained.profile,
            trained.compiled,
        ),
        evaluation=EvaluationFacts(split, evaluation.metrics, evaluation.details, samples, evidence, cases),
        hardware=Hardware(runtime.device_name, runtime.processes, runtime.precision),
        memory=MemoryFacts(memory.peak(), memory.limit(), fitted.taken, fitted.estimated),
        quality=quality,
        background=Background(split_facts(prepared), data_notes(prepared), records_in(session.output_dir), steps),
    )  # fmt: skip
    for line in log_lines(report):
        _log.info("%s", line)
    write_results(report, said, trained.ended)


def _saved_best(
    session: Session, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int, disks: Disks
) -> Evaluator:
    """Load the best model as it was saved, divided among the processes as in training."""
    with model_for_all(session.output_dir, disks, session.runtime) as folder:
        session.models.name = str(folder)
        return session.evaluator(session.models.load_saved, tokenizer, label_names, max_length)


def _beside_untrained(before: float | None, best: Evaluator, validation: Examples) -> Untrained | None:
    """Return the loss on the first validation rows before training and now; None where it was not computed before."""
    from finetuning.reporting.quality import Untrained

    if before is None:
        return None
    rows = len(validation.of_first_rows(_COMPARED_ROWS).rows)
    return Untrained(before, _loss_of_first_rows(best, validation), rows)


def _loss_of_first_rows(evaluator: Evaluator, validation: Examples) -> float:
    """Return the loss of the model, as it is now, on the first validation rows."""
    uninterrupted, seed = replace(evaluator, check_stop=lambda: None), evaluator.task.settings.training.seed
    return uninterrupted.evaluate(validation.of_first_rows(_COMPARED_ROWS), seed, generated_rows=0).metrics["loss"]


def _left_by(prepared: Prepared, state: TrainingState, arguments: argparse.Namespace) -> SavedModel:
    """Describe the model that the run has left, for the commands that use it."""
    session, settings = prepared.session, prepared.session.settings
    # more of the same does not help where the model was better before the end
    more = words_for_more_epochs(arguments, settings.training.epochs) if state.best_step == state.step else ()
    is_adapter = METHODS[settings.model.adapter.method].adds_weights
    split = scored_split(prepared.examples)
    return trained_model(settings, session.task.name, session.output_dir, split, is_adapter, more)


def _keep_model(
    session: Session, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    weights: Gathering | None,
) -> None:  # fmt: skip
    """Save the model and its settings as the result of the run; remove the card and metrics of the model before."""
    ConfigManager.save(session.settings, session.output_dir / "settings.yaml")  # first: no model without its settings
    session.models.save(model, tokenizer, session.output_dir, weights)
    for path in result_files(session.output_dir):
        discard(path)  # Windows keeps one that a program has open, and the end of the run writes it anew
