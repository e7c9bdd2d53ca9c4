"""Decide whether a run will fit into memory, and choose cheaper settings where it will not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetuning.config.ladder import Abilities, Variant, automatic_variants, suggested_variants
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetuning.device.runtime import Runtime
    from finetuning.planning.divided import Division
    from finetuning.planning.types import Estimate, Workload
    from finetuning.planning.workload import Source
    from finetuning.windows.layouts import Layout

_log = logging.getLogger(__name__)
_GIB = 1024**3
_PLENTY = 8  # where the rough estimate fits this many times, it is not worth the seconds that the count takes


@dataclass(frozen=True)
class Fitting:
    """Estimates the memory of a run under one variant of its settings or another. No weights are loaded.

    Attributes:
        settings: What the user asked for; data.max_length must not exceed the model's longest input.
        given: Dotted names of the settings on the command line, which stay as they are.
        source: The data of the run.
        outline: Builds the run's model under some settings on the meta device.
        runtime: The run's device, autocast and processes.
        taken: Bytes in use before the model is loaded: on a CPU those of the libraries.
        limit: Bytes that the run may use.
    """

    settings: Settings
    given: frozenset[str]
    source: Source
    outline: Callable[[Settings], PreTrainedModel]
    runtime: Runtime
    taken: int
    limit: int

    @property
    def room(self) -> int:
        """Bytes that the model and its training may use."""
        return self.limit - self.taken

    def estimate(self, settings: Settings) -> Estimate:
        """Estimate the memory of a process of the run under these settings by counting."""
        from finetuning.planning.estimate import estimate_memory

        outline, workload = self._run_under(settings)
        division = self._division(outline, workload, settings)  # before the count changes the outline
        return division.held(estimate_memory(outline, workload, settings))

    def rough_estimate(self, settings: Settings) -> Estimate:
        """Estimate the same by a formula, without the seconds that the count takes."""
        from finetuning.planning.estimate import rough_estimate

        outline, workload = self._run_under(settings)
        return self._division(outline, workload, settings).held(rough_estimate(outline, workload, settings))

    def division(self, processes: int, shards: int) -> Division:
        """Describe how so many processes would divide the run asked for."""
        from finetuning.planning.divided import Division

        passes = self.settings.memory.gradient_accumulation_steps
        quantization = self.settings.model.quantization
        return Division.of(self._asked, processes, shards, self.runtime.precision, passes, quantization)

    def automatic(self) -> list[Variant]:
        """List what `memory.optimize_memory_usage` may choose, the least costly first."""
        return automatic_variants(self.settings, self._abilities, self.given)

    def suggested(self) -> list[Variant]:
        """List what `plan` may suggest, the least costly first."""
        return suggested_variants(self.settings, self._abilities)

    def stepping_lines(self) -> list[str]:
        """Return a line for each way in which some parameters are stepped otherwise than the rest."""
        from finetuning.training.optimizers import stepping_lines

        return stepping_lines(self._asked, self.settings.training)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the run asked for, as far as a model without weights shows it."""
        return self._layout(self._asked, self.settings)

    @cached_property
    def _asked(self) -> PreTrainedModel:
        """The outline of the run asked for, to look at. Estimates change theirs, so they make their own."""
        return self.outline(self.settings)

    @cached_property
    def _abilities(self) -> Abilities:
        from finetuning.ops.recompute import can_recompute
        from finetuning.training.optimizers import has_8bit_optimizer

        return Abilities(
            checkpointing=can_recompute(self._asked),
            optimizer_8bit=has_8bit_optimizer(self.runtime.device),
            rounded_weights=self.settings.model.quantization is None and self.runtime.precision != "fp16",
            whole_weights=self.settings.distributed.shard == "none",
        )

    def _run_under(self, settings: Settings) -> tuple[PreTrainedModel, Workload]:
        from finetuning.ops.recompute import check_can_recompute
        from finetuning.planning.workload import make_workload

        outline = self.outline(settings)
        if settings.memory.gradient_checkpointing:
            check_can_recompute(outline)
        return outline, make_workload(self.source, settings, self.runtime, self._layout(outline, settings))

    def _division(self, outline: PreTrainedModel, workload: Workload, settings: Settings) -> Division:
        from finetuning.planning.divided import Division

        runtime, shard = self.runtime, settings.distributed.shard
        shards = {"none": 1, "full": runtime.processes, "hybrid": runtime.processes_here}[shard]
        is_one = all(step.is_window for step in workload.steps)
        passes = 1 if is_one else max(2, settings.memory.gradient_accumulation_steps)
        quantization = settings.model.quantization
        return Division.of(outline, runtime.processes, shards, runtime.precision, passes, quantization)

    def _layout(self, outline: PreTrainedModel, settings: Settings) -> Layout:
        from finetuning.windows.layouts import choose_layout
        from finetuning.windows.partition import FEWEST, micro_batch_cost

        cost = FEWEST if settings.memory.optimizer_in_backward else micro_batch_cost(self.runtime.device.type)
        return choose_layout(self.source.task, outline, settings.data.max_length, cost, self.runtime.card)


def first_that_fits(
    variants: Iterable[Variant], estimate_of: Callable[[Settings], Estimate], room: int
) -> tuple[Variant, Estimate] | None:
    """Return the first variant whose estimate is within `room` bytes, and that estimate; None if no variant is."""
    for variant in variants:
        estimate = estimate_of(variant.settings)
        if estimate.total <= room:
            return variant, estimate
    return None


def choose(fitting: Fitting, exact: bool = False) -> tuple[Mapping[str, Any], Estimate]:
    """Make the run fit into memory; log its estimate and the settings that were chosen.

    Args:
        fitting: The run.
        exact: Choose only what changes no loss, as for a run that is resumed from a checkpoint.

    Returns:
        The changed settings by dotted name, and the estimate with them. Of several processes each gets the first one's.
    """
    return fitting.runtime.from_main(_choose_here(fitting, exact))


def _choose_here(fitting: Fitting, exact: bool) -> tuple[Mapping[str, Any], Estimate]:
    estimate = fitting.rough_estimate(fitting.settings)
    if _PLENTY * estimate.total > fitting.room:
        estimate = fitting.estimate(fitting.settings)
    log_estimate(fitting, estimate)
    if estimate.total <= fitting.room:
        return {}, estimate
    variants = (variant for variant in fitting.automatic() if variant.is_exact or not exact)
    found = first_that_fits(variants, fitting.estimate, fitting.room)
    if found is None:
        _log.warning("이 설정으로는 메모리가 부족할 수 있습니다. plan 명령으로 메모리에 맞는 설정을 찾을 수 있습니다.")
        return {}, estimate
    variant, cheaper = found
    _log.info(
        "메모리가 %.2f GiB 부족하여 다음 설정을 자동으로 적용합니다: %s (memory.optimize_memory_usage)",
        (estimate.total - fitting.room) / _GIB, variant.flags(),
    )  # fmt: skip
    log_estimate(fitting, cheaper)
    return variant.changes, cheaper


def log_estimate(fitting: Fitting, estimate: Estimate) -> None:
    """Log the estimate beside the limit in one line; its parts go to the debug log."""
    total, limit = (estimate.total + fitting.taken) / _GIB, fitting.limit / _GIB
    trained = f" (학습 {estimate.trained:,}개)" if estimate.trained < estimate.parameters else ""
    _log.info(
        "모델 파라미터 %s개%s, 예상 메모리 %.2f GiB%s, 한도 %.1f GiB",
        f"{estimate.parameters:,}", trained, total, "" if estimate.counted else "(간이 계산)", limit,
    )  # fmt: skip
    sizes = (
        estimate.weights, estimate.gradients, estimate.optimizer, estimate.activations, estimate.logits,
        estimate.overhead,
    )  # fmt: skip
    _log.debug(
        "가중치 %.2f, 기울기 %.2f, 옵티마이저 %.2f, 활성값 %.2f, logits %.2f, 라이브러리와 할당자의 여유 %.2f GiB",
        *(size / _GIB for size in sizes),
    )
