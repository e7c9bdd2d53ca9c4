"""Find the parts of a run that need the most memory: its largest micro-batches and its largest evaluation batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.data.examples import Examples, batches_by_length
from finetuning.device.runtime import Runtime
from finetuning.inference.evaluator import BUDGET_FACTOR
from finetuning.planning.types import Step, Workload
from finetuning.tasks.base import Task
from finetuning.types import Batch, RandomKey
from finetuning.windows.layouts import Cut, Layout, Padded
from finetuning.windows.order import epoch_order, share_of, window_of, windows_per_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLED_WINDOWS = 100


@dataclass(frozen=True)
class Source:
    """What a run reads.

    Attributes:
        task: Encodes and collates.
        tokenizer: The task's.
        train: Examples to train on.
        validation: Examples to evaluate on.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    train: Examples
    validation: Examples


@dataclass(frozen=True)
class HeavyCut:
    """A micro-batch.

    Attributes:
        cut: Its rows.
        alone: It is the whole of its window.
    """

    cut: Cut
    alone: bool


def make_workload(source: Source, settings: Settings, runtime: Runtime, layout: Layout) -> Workload:
    """Collate the largest batches of a run.

    Args:
        source: What the run reads.
        settings: Those of the run; data.max_length within what the model can read.
        runtime: The run's device, autocast and processes.
        layout: The layout of the run's windows.
    """
    max_length, token_budget = settings.data.max_length, settings.data.batch_size * settings.data.max_length
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * runtime.processes
    lengths, seed = source.train.lengths.clip(max=max_length), settings.training.seed
    heavy = heaviest_cuts(lengths, seed, window, runtime.processes, token_budget, layout)
    held_out = largest_evaluation_batch(source.validation.lengths.clip(max=max_length), BUDGET_FACTOR * token_budget)
    padded = Padded(layout.fixed_cost, max_length)

    def batch(examples: Examples, cut: Cut, layout: Layout) -> Batch:
        rows = [[shortened(example, max_length) for example in examples.fetch(row)] for row in cut]
        return runtime.on_device(layout.collate(source.task, rows, source.tokenizer, RandomKey(seed, 0)))

    return Workload(
        source.task,
        steps=[Step(batch(source.train, one.cut, layout), one.alone) for one in heavy],
        evaluation=batch(source.validation, padded.together(held_out), padded),
        autocast=runtime.autocast,
        device=runtime.device,
    )


def heaviest_cuts(
    lengths: np.ndarray, seed: int, window_size: int, processes: int, token_budget: int, layout: Layout
) -> list[HeavyCut]:
    """Return the largest micro-batch among whole windows, and the largest among parts of windows, largest first.

    A window in parts keeps its gradients while activations are at their peak. So a smaller micro-batch of it may need
    more memory. A hundred windows of the first epoch are looked at, evenly spaced, and that of the longest example.

    Args:
        lengths: Tokens of each example, int32.
        seed: Seed of the order.
        window_size: Examples of a window, over all processes.
        processes: Number of processes.
        token_budget: Upper bound of a micro-batch's padded tokens.
        layout: The layout of the windows.
    """
    order = epoch_order(len(lengths), seed, 0)
    windows = windows_per_epoch(len(lengths), window_size)
    longest = int(np.flatnonzero(order == int(lengths.argmax()))[0]) // window_size
    numbers = {longest, *np.linspace(0, windows - 1, min(windows, _SAMPLED_WINDOWS)).astype(int).tolist()}
    heaviest: dict[bool, tuple[tuple[int, int], HeavyCut]] = {}
    for number in sorted(numbers):
        mine = share_of(window_of(order, window_size, 0, number), lengths, 0, processes)
        cuts = layout.cut(mine, lengths, token_budget)
        for cut in cuts:
            width = max(int(lengths[row].sum()) for row in cut)
            alone, weight = len(cuts) == 1, (len(cut) * width, width)
            if alone not in heaviest or weight > heaviest[alone][0]:
                heaviest[alone] = weight, HeavyCut(cut, alone)
    return [heavy for _, heavy in sorted(heaviest.values(), key=lambda one: one[0], reverse=True)]


def largest_evaluation_batch(lengths: np.ndarray, token_budget: int) -> np.ndarray:
    """Return the positions of the batch of most padded tokens in a pass without gradients."""
    return max(batches_by_length(lengths, token_budget), key=lambda cut: len(cut) * int(lengths[cut].max()))


def shortened(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Return an example as a run with a shorter max_length has it: each list of one entry a token is cut."""
    tokens = len(example["input_ids"])
    return {
        name: value[:max_length] if isinstance(value, list) and len(value) == tokens else value
        for name, value in example.items()
    }
