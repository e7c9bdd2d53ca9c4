"""Find the parts of a run that need the most memory: its largest micro-batches and its largest evaluation batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.data.examples import Examples, batches_by_length
from finetuning.data.table import list_lengths
from finetuning.device.runtime import Runtime
from finetuning.inference.evaluator import BUDGET_FACTOR
from finetuning.planning.types import Step, Workload
from finetuning.tasks.base import Task
from finetuning.training.recorded import are_recorded
from finetuning.types import OF_TOKENS, Batch, RandomKey
from finetuning.windows.layouts import Cut, Layout, Padded
from finetuning.windows.order import Order, order_of, place_of, share_of, window_of, windows_per_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLED_WINDOWS = 100


@dataclass(frozen=True)
class Source:
    """The data of a run.

    Attributes:
        task: Encodes and collates.
        tokenizer: The model's tokenizer, fitted to the task.
        train: Examples to train on.
        validation: Examples to evaluate on.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    train: Examples
    validation: Examples


@dataclass(frozen=True)
class HeavyCut:
    """A micro-batch and whether it fills its window.

    Attributes:
        cut: Its rows.
        alone: Whether it is the only micro-batch of its window.
    """

    cut: Cut
    alone: bool


def make_workload(source: Source, settings: Settings, runtime: Runtime, layout: Layout) -> Workload:
    """Collate the largest batches of a run.

    Args:
        source: The data of the run.
        settings: The settings of the run; data.max_length must not exceed the model's longest input.
        runtime: The run's device, autocast and processes.
        layout: The layout of the run's windows.

    Returns:
        The batches, on the runtime's device.
    """
    max_length, token_budget = settings.data.max_length, settings.data.batch_size * settings.data.max_length
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * runtime.processes
    longest = max_length * (2 if source.task.encodes.shares_beginnings else _most_sequences(source.train))
    train, seed = source.train, settings.training.seed
    lengths, order = train.sequence_lengths.clip(max=longest), order_of(train, seed, 0)

    def cut(examples: np.ndarray) -> list[Cut]:
        return layout.cut(train.sequences_of(examples), lengths, token_budget)

    heavy = heaviest_cuts(layout, lengths, map(cut, shares(train.lengths, order, window, runtime.processes)))
    evaluated = source.validation.sequence_lengths.clip(max=longest)
    held_out = largest_evaluation_batch(evaluated, BUDGET_FACTOR * token_budget)
    padded = Padded(layout.fixed_cost, max_length)

    def batch(examples: Examples, cut: Cut, layout: Layout) -> Batch:
        rows = [[shortened(example, max_length) for example in examples.fetch_sequences(row)] for row in cut]
        return runtime.on_device(layout.collate(source.task, rows, source.tokenizer, RandomKey(seed, 0)))

    may_be_recorded = are_recorded(settings, source.task, layout, runtime)

    def step(heavy: HeavyCut) -> Step:
        made = batch(source.train, heavy.cut, layout)
        keeps_gradients = may_be_recorded and not made.scores_places
        return Step(made, is_window=heavy.alone and not keeps_gradients)

    return Workload(
        source.task,
        steps=[step(one) for one in heavy],
        evaluation=batch(source.validation, padded.together(held_out), padded),
        autocast=runtime.autocast,
        device=runtime.device,
    )


def shares(lengths: np.ndarray, order: Order, window_size: int, processes: int) -> Iterator[np.ndarray]:
    """Yield the first process's examples of a hundred evenly spaced windows, and of that of the longest example.

    Args:
        lengths: Tokens of each example, int32.
        order: Positions of the examples of the first epoch.
        window_size: Examples of a window, over all processes.
        processes: Number of processes.

    Yields:
        Positions of the examples, int64.
    """
    windows = windows_per_epoch(len(order), window_size)
    place = place_of(order, int(lengths.argmax()))  # none where a mixture draws it in a later epoch
    longest = (int(lengths[order[:]].argmax()) if place is None else place) // window_size
    numbers = {longest, *np.linspace(0, windows - 1, min(windows, _SAMPLED_WINDOWS)).astype(int).tolist()}
    for number in sorted(numbers):
        yield share_of(window_of(order, window_size, 0, number), lengths, 0, processes)


def heaviest_cuts(layout: Layout, lengths: np.ndarray, windows: Iterable[Sequence[Cut]]) -> list[HeavyCut]:
    """Find the largest micro-batch among windows with one micro-batch, and among windows with several.

    A window with several keeps gradients while activations are at their peak, so its smaller micro-batches may need
    more memory.

    Args:
        layout: What cut them.
        lengths: Tokens of each sequence, int32.
        windows: The micro-batches of each window.

    Returns:
        One or two micro-batches, largest first.
    """
    heaviest: dict[bool, tuple[tuple[int, int], HeavyCut]] = {}
    for cuts in windows:
        for cut in cuts:
            width = max(int(lengths[row].sum()) for row in cut)
            alone, weight = len(cuts) == 1, (layout.computed_tokens(cut, lengths), width)
            if alone not in heaviest or weight > heaviest[alone][0]:
                heaviest[alone] = weight, HeavyCut(cut, alone)
    return [heavy for _, heavy in sorted(heaviest.values(), key=lambda one: one[0], reverse=True)]


def largest_evaluation_batch(lengths: np.ndarray, token_budget: int) -> np.ndarray:
    """Return the positions of the batch of most padded tokens in a pass without gradients."""
    return max(batches_by_length(lengths, token_budget), key=lambda cut: len(cut) * int(lengths[cut].max()))


def shortened(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Truncate an example: every list with one entry per token is cut to max_length entries.

    A pair of answers is cut so that each of its two sequences has that many tokens, and so are several sequences.
    """
    tokens = len(example["input_ids"])
    if example.get("branches"):
        return _shortened_pair(example, max_length)
    if example.get("sizes"):
        return _shortened_list(example, max_length)
    return {
        name: value[:max_length] if isinstance(value, list) and len(value) == tokens else value
        for name, value in example.items()
    }


def _shortened_pair(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    shared, first, second = example["branches"]
    kept = min(shared, max_length - 1)
    sizes = [kept, min(first, max_length - kept), min(second, max_length - kept)]
    starts = (0, shared, shared + first)
    places = [start + place for start, size in zip(starts, sizes, strict=True) for place in range(size)]
    cut = {name: [example[name][place] for place in places] for name in ("input_ids", "trained")}
    return {**example, **cut, "branches": sizes}


def _shortened_list(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    ends = np.cumsum(example["sizes"]).tolist()
    spans = [(end - size, min(size, max_length)) for end, size in zip(ends, example["sizes"], strict=True)]
    places = [start + place for start, size in spans for place in range(size)]
    names = [name for name in OF_TOKENS if name in example]
    return {**example, **{name: [example[name][place] for place in places] for name in names},
            "sizes": [size for _, size in spans]}  # fmt: skip


def _most_sequences(examples: Examples) -> int:
    """Return the number of sequences of the example that has most."""
    has_several = "sizes" in examples.table.column_names
    return int(list_lengths(examples.table, "sizes").max()) if has_several else 1
