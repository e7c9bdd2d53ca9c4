"""Find the parts of a run that need the most memory: its largest micro-batches and its largest evaluation batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.data.examples import Examples, batches_by_length
from finetuning.inference.evaluator import BUDGET_FACTOR, to_device
from finetuning.planning.types import Step, Workload
from finetuning.tasks.base import Task
from finetuning.types import Batch, RandomKey
from finetuning.windows.layouts import Way, cut_window, one_row
from finetuning.windows.order import epoch_order, share_of, window_of, windows_per_epoch
from finetuning.windows.packing import pack_window

if TYPE_CHECKING:
    from accelerate import Accelerator
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
class Cut:
    """A micro-batch as positions of examples.

    Attributes:
        rows: The examples of each row, int64.
        alone: It is the whole of its window.
    """

    rows: list[np.ndarray]
    alone: bool


def make_workload(source: Source, settings: Settings, accelerator: Accelerator, way: Way) -> Workload:
    """Collate the largest batches of a run.

    Args:
        source: What the run reads.
        settings: Those of the run; data.max_length within what the model can read.
        accelerator: The run's device, autocast and processes.
        way: The layout of the run's windows.
    """
    max_length, token_budget = settings.data.max_length, settings.data.batch_size * settings.data.max_length
    processes, device = accelerator.num_processes, accelerator.device
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * processes
    cuts = heaviest_cuts(
        source.train.lengths.clip(max=max_length), settings.training.seed, window, processes, max_length, token_budget,
        way, device.type,
    )  # fmt: skip
    held_out = largest_evaluation_batch(source.validation.lengths.clip(max=max_length), BUDGET_FACTOR * token_budget)

    def batch(examples: Examples, rows: Sequence[np.ndarray], layout: Way) -> Batch:
        return to_device(_collate(source, examples, rows, settings, layout), device)

    return Workload(
        source.task,
        steps=[Step(batch(source.train, cut.rows, way), cut.alone) for cut in cuts],
        evaluation=batch(source.validation, np.array_split(held_out, len(held_out)), "padded"),
        autocast=accelerator.autocast,
        device=device,
    )


def _collate(
    source: Source, examples: Examples, rows: Sequence[np.ndarray], settings: Settings, way: Way
) -> Batch:  # fmt: skip
    made = [[shortened(example, settings.data.max_length) for example in examples.fetch(row)] for row in rows]
    if way == "one row":
        return one_row(source.task, made[0], source.tokenizer)
    if way == "packed":
        return source.task.encodes.collate_rows(made, source.tokenizer)
    key = RandomKey(settings.training.seed, 0)
    return source.task.encodes.collate([example for row in made for example in row], source.tokenizer, key)


def heaviest_cuts(
    lengths: np.ndarray, seed: int, window_size: int, processes: int, max_length: int, token_budget: int, way: Way,
    device_type: str,
) -> list[Cut]:  # fmt: skip
    """Return the largest micro-batch among whole windows, and the largest among parts of windows, largest first.

    A window in parts keeps its gradients while activations are at their peak. So a smaller micro-batch of it may need
    more memory. A hundred windows of the first epoch are looked at, evenly spaced, and that of the longest example.

    Args:
        lengths: Tokens of each example, int32.
        seed: Seed of the order.
        window_size: Examples of a window, over all processes.
        processes: Number of processes.
        max_length: Upper bound of an example's tokens.
        token_budget: Upper bound of a micro-batch's padded tokens.
        way: The layout of the windows.
        device_type: torch's name for the kind of device.
    """
    order = epoch_order(len(lengths), seed, 0)
    windows = windows_per_epoch(len(lengths), window_size)
    longest = int(np.flatnonzero(order == int(lengths.argmax()))[0]) // window_size
    numbers = {longest, *np.linspace(0, windows - 1, min(windows, _SAMPLED_WINDOWS)).astype(int).tolist()}
    heaviest: dict[bool, tuple[tuple[int, int], Cut]] = {}
    for number in sorted(numbers):
        mine = share_of(window_of(order, window_size, 0, number), lengths, 0, processes)
        if way == "packed":
            batches = pack_window(mine, lengths, max_length, token_budget)
        else:
            cuts = cut_window(mine, lengths, token_budget, device_type, way)
            batches = [[cut] if way == "one row" else [np.array([index]) for index in cut] for cut in cuts]
        for rows in batches:
            width = max(int(lengths[row].sum()) for row in rows)
            alone, weight = len(batches) == 1, (len(rows) * width, width)
            if alone not in heaviest or weight > heaviest[alone][0]:
                heaviest[alone] = weight, Cut(rows, alone)
    return [cut for _, cut in sorted(heaviest.values(), key=lambda one: one[0], reverse=True)]


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
