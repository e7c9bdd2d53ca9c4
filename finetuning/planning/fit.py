"""Whether a run will fit into memory, and what would: the estimate for the data and model at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetuning.commands.session import Workbench
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.data.examples import Examples
    from finetuning.planning.estimate import Estimate, Workload
    from finetuning.planning.options import Option
    from finetuning.types import Batch
    from finetuning.windows.layouts import Way

_log = logging.getLogger(__name__)
_GIB = 1024**3
_PLENTY = 8  # where this many times a rough estimate fits, there is no need to count, which takes seconds


@dataclass(frozen=True)
class Fitting:
    """Estimates the memory of a run under one option or another; no weights are loaded.

    taken: bytes in use before the model is there (on a CPU the libraries'); limit: bytes that the run may use.
    """

    bench: Workbench
    tokenizer: PreTrainedTokenizerBase
    label_names: Sequence[str]
    max_length: int
    train: Examples
    validation: Examples
    taken: int
    limit: int

    @property
    def room(self) -> int:
        """Bytes that the model and its training may use."""
        return self.limit - self.taken

    def asked(self) -> Option:
        """The run as the settings have it."""
        from finetuning.planning.options import Option

        settings = self.bench.settings
        return Option(
            self.max_length, settings.data.batch_size, settings.memory.gradient_accumulation_steps,
            gradient_checkpointing=bool(settings.memory.gradient_checkpointing), dtype=settings.model.dtype,
            optimizer=settings.training.optimizer, adapter=settings.model.adapter.method,
        )  # fmt: skip

    def with_checkpointing(self) -> Option:
        """The same with gradient checkpointing."""
        from dataclasses import replace

        return replace(self.asked(), gradient_checkpointing=True)

    def settings_under(self, option: Option) -> Settings:
        """The run's settings as an option changes them."""
        whole = self.bench.settings
        adapter = whole.model.adapter.model_copy(update={"method": option.adapter})
        model = whole.model.model_copy(update={"adapter": adapter, "dtype": option.dtype})
        training = whole.training.model_copy(update={"optimizer": option.optimizer})
        recomputes = option.gradient_checkpointing or whole.memory.gradient_checkpointing
        memory = whole.memory.model_copy(update={"gradient_checkpointing": recomputes})
        return whole.model_copy(update={"model": model, "training": training, "memory": memory})

    def can_checkpoint(self) -> bool:
        """Whether the architecture has gradient checkpointing."""
        return bool(getattr(self._asked_for, "supports_gradient_checkpointing", False))

    def estimate(self, option: Option) -> Estimate:
        """The memory of a run under an option, counted."""
        from finetuning.planning.estimate import estimate_memory

        return estimate_memory(*self._run_under(option))

    def rough_estimate(self, option: Option) -> Estimate:
        """The same by a formula, without the seconds that the count takes."""
        from finetuning.planning.estimate import rough_estimate

        return rough_estimate(*self._run_under(option))

    def _run_under(self, option: Option) -> tuple[PreTrainedModel, Workload, Settings, bool]:
        """What an estimate is made of."""
        outline = self._outline(option)
        workload = self._workload(option, self._way(outline, option))
        return outline, workload, self.settings_under(option), option.gradient_checkpointing

    def way(self) -> Way:
        """How the run that was asked for keeps padding small, as far as a model without weights tells."""
        return self._way(self._asked_for, self.asked())

    @cached_property
    def _asked_for(self) -> PreTrainedModel:
        """The outline of the run that was asked for, to look at: an estimate, which changes its own, has another."""
        return self._outline(self.asked())

    def _way(self, outline: PreTrainedModel, option: Option) -> Way:
        from finetuning.models.probes import attends_within_sequences

        if not self.bench.task.encodes.packs():
            return "padded"
        return "one row" if attends_within_sequences(outline, option.max_length) else "packed"

    def _workload(self, option: Option, way: Way) -> Workload:
        import numpy as np

        from finetuning.inference.evaluator import BUDGET_FACTOR
        from finetuning.planning.estimate import Step, Workload, heaviest_cuts, largest_evaluation_batch

        task, accelerator, settings = self.bench.task, self.bench.accelerator, self.bench.settings
        window = option.batch_size * option.gradient_accumulation_steps * accelerator.num_processes
        cuts = heaviest_cuts(
            self.train.lengths.clip(max=option.max_length), settings.training.seed, window,
            accelerator.num_processes, option.max_length, option.token_budget, way,
            accelerator.device.type,
        )  # fmt: skip
        lengths = self.validation.lengths.clip(max=option.max_length)
        held_out = largest_evaluation_batch(lengths, BUDGET_FACTOR * option.token_budget)
        return Workload(
            task,
            steps=[Step(self._batch(self.train, cut.rows, option.max_length, way), cut.alone) for cut in cuts],
            evaluation=self._batch(
                self.validation, np.array_split(held_out, len(held_out)), option.max_length, "padded"
            ),
            autocast=accelerator.autocast,
            device=accelerator.device,
        )

    def _outline(self, option: Option) -> PreTrainedModel:
        from finetuning.ops.recompute import check_can_recompute
        from model_manager import ModelManager

        models = ModelManager(self.settings_under(option), self.bench.task, self.bench.models.extension)
        outline = models.outline(self.label_names)
        if outline.config.pad_token_id is None:
            outline.config.pad_token_id = self.tokenizer.pad_token_id
        self.bench.task.scores.fit_model(outline, self.tokenizer)
        if option.gradient_checkpointing:
            check_can_recompute(outline)
        return outline

    def _batch(self, examples: Examples, rows: Sequence[np.ndarray], max_length: int, way: Way) -> Batch:
        from finetuning.inference.evaluator import to_device
        from finetuning.planning.estimate import shortened
        from finetuning.types import RandomKey
        from finetuning.windows.layouts import one_row

        task, device = self.bench.task, self.bench.accelerator.device
        made = [[shortened(example, max_length) for example in examples.fetch(row)] for row in rows]
        if way == "one row":
            return to_device(one_row(task, made[0], self.tokenizer), device)
        if way == "packed":
            return to_device(task.encodes.collate_rows(made, self.tokenizer), device)
        key = RandomKey(self.bench.settings.training.seed, 0)
        together = [example for row in made for example in row]
        return to_device(task.encodes.collate(together, self.tokenizer, key), device)


def fitting_of(
    bench: Workbench, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int,
    train: Examples, validation: Examples,
) -> Fitting:  # fmt: skip
    """The run to come on this device, as it is before its model is loaded.

    Of several processes the one with the least memory counts for all: they have to train in one way.
    """
    from finetuning.training.step import over_processes
    from memory_utils import MemoryManager

    memory = MemoryManager(bench.settings, bench.accelerator.device, max_length)
    taken = memory.used() if bench.accelerator.device.type == "cpu" else 0
    most_taken = int(over_processes(bench.accelerator, float(taken), "max"))
    least_limit = -int(over_processes(bench.accelerator, -float(memory.limit()), "max"))
    return Fitting(bench, tokenizer, label_names, max_length, train, validation, most_taken, least_limit)


def automatic(fitting: Fitting, exact: bool) -> list[Option]:
    """What the program may choose by itself under the settings; exact: of that, what no loss differs by."""
    from dataclasses import replace

    from finetuning.planning.options import automatic_options
    from finetuning.training.optimizers import has_8bit_optimizer

    bench, asked = fitting.bench, fitting.asked()
    if not bench.settings.memory.optimize_memory_usage:
        return []
    can_checkpoint = bench.settings.memory.gradient_checkpointing is None and fitting.can_checkpoint()
    if exact:
        return [replace(asked, gradient_checkpointing=True)] if can_checkpoint else []
    can_round = bench.settings.model.quantization is None and bench.accelerator.mixed_precision != "fp16"
    return automatic_options(
        asked, can_checkpoint, has_8bit_optimizer(bench.accelerator.device),
        may_round_weights=can_round and "model.dtype" not in bench.given,
        may_change_optimizer="training.optimizer" not in bench.given,
    )  # fmt: skip


def choose(fitting: Fitting, exact: bool = False) -> tuple[Option, Estimate]:
    """How the run is made to fit, and the estimate; says what the run needs, what was chosen and why.

    exact: choose only what changes no loss, as for a run that goes on from a checkpoint. Of several processes the first
    one's choice is that of all.
    """
    from accelerate.utils import broadcast_object_list

    chosen = [_chosen_here(fitting, exact)]
    broadcast_object_list(chosen)
    return chosen[0]


def _chosen_here(fitting: Fitting, exact: bool) -> tuple[Option, Estimate]:
    from finetuning.planning.options import first_that_fits

    asked = fitting.asked()
    estimate = fitting.rough_estimate(asked)
    if _PLENTY * estimate.total > fitting.room:
        estimate = fitting.estimate(asked)
    log_short(fitting, estimate)
    if estimate.total <= fitting.room:
        return asked, estimate
    found = first_that_fits(automatic(fitting, exact), fitting.estimate, fitting.room)
    if found is None:
        _log.warning("이 설정은 메모리에 들어가지 않을 수 있습니다. plan 명령이 들어가는 설정을 찾아 줍니다.")
        return asked, estimate
    _log.info(
        "메모리가 %.2f GiB 모자라 스스로 고른 설정으로 학습합니다: %s (memory.optimize_memory_usage)",
        (estimate.total - fitting.room) / _GIB, found[0].changes_from(asked),
    )  # fmt: skip
    log_short(fitting, found[1])
    return found


def remembered(settings: Settings, chosen: Mapping[str, Any], given: Set[str]) -> Settings:
    """The settings with what a checkpoint's run had chosen by itself, where they are at their defaults now.

    chosen: values by dotted names; given: names of what the command line has, which is left as it is.
    """
    for key, value in chosen.items():
        if key in given:
            continue
        section, name = key.split(".")
        part = getattr(settings, section)
        if getattr(part, name) == type(part).model_fields[name].default:
            settings = settings.model_copy(update={section: part.model_copy(update={name: value})})
    return settings


def table(fitting: Fitting, estimate: Estimate) -> list[str]:
    """The estimate in GiB beside the limit, a line each."""
    way = "세어 본 값" if estimate.counted else "식으로 어림한 값"
    parts = [
        ("가중치", estimate.weights),
        ("기울기", estimate.gradients),
        ("옵티마이저", estimate.optimizer),
        ("활성값과 임시 메모리", estimate.activations),
        ("logits", estimate.logits),
        *([("힙의 빈틈과 라이브러리", estimate.heap)] if estimate.heap else []),
        *([("프로그램", fitting.taken)] if fitting.taken else []),
        ("합계", estimate.total + fitting.taken),
    ]
    fits = "들어갑니다" if estimate.total <= fitting.room else "들어가지 않습니다"
    return [
        f"파라미터: {estimate.parameters:,}개 (학습 {estimate.trained:,}개)",
        f"메모리 어림 (GiB, {way}):",
        *(f"  {name}: {size / _GIB:.2f}" for name, size in parts),
        *(
            [f"  체크포인트를 저장하는 동안: {(estimate.saving + fitting.taken) / _GIB:.2f} (사본을 둘 자리가 있을 때)"]
            if estimate.copy
            else []
        ),
        f"  한도: {fitting.limit / _GIB:.2f} → {fits}",
    ]


def what_would_fit(fitting: Fitting) -> str:
    """The cheapest settings that fit where those asked for do not, in one line."""
    from finetuning.planning.options import cheaper_options, first_that_fits

    asked, what = fitting.asked(), "학습할 때 스스로 고를 설정"
    found = first_that_fits(automatic(fitting, exact=False), fitting.estimate, fitting.room)
    if found is None:
        what = "들어가는 설정"
        found = first_that_fits(cheaper_options(asked, fitting.can_checkpoint()), fitting.estimate, fitting.room)
    if found is None:
        return "들어가는 설정을 찾지 못했습니다. 더 작은 모델을 고르세요."
    option, estimate = found
    total = (estimate.total + fitting.taken) / _GIB
    return f"{what} (약 {total:.2f} GiB): {option.changes_from(asked)}"


def log_short(fitting: Fitting, estimate: Estimate) -> None:
    """The estimate in one line of the log."""
    _log.info(
        "모델 파라미터 %s개 (학습 %s개), 메모리 어림%s %.2f GiB (가중치 %.2f, 기울기 %.2f, 옵티마이저 %.2f, "
        "활성값 %.2f, logits %.2f%s) / 한도 %.1f GiB",
        f"{estimate.parameters:,}", f"{estimate.trained:,}", "" if estimate.counted else "(넉넉하여 식으로)",
        *(size / _GIB for size in (estimate.total + fitting.taken, estimate.weights, estimate.gradients,
                                   estimate.optimizer, estimate.activations, estimate.logits)),
        f", 힙의 빈틈과 라이브러리 {estimate.heap / _GIB:.2f}" if estimate.heap else "", fitting.limit / _GIB,
    )  # fmt: skip
