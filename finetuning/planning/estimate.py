"""How much memory a run will need: by counting one step of it on tensors without data, or roughly by a formula."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetuning.config.schema import Settings
from finetuning.data.examples import batches_by_length
from finetuning.ops.recompute import recompute_activations
from finetuning.tasks.base import Task
from finetuning.types import Batch
from finetuning.windows.layouts import Way, cut_window
from finetuning.windows.order import epoch_order, share_of, window_of, windows_per_epoch
from finetuning.windows.packing import pack_window

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_SAMPLED_WINDOWS = 100
_CHUNK_LOGITS = {"cpu": 2**23}  # the most that the loss over a vocabulary has at once; 2**26 elsewhere
_LIBRARIES = 100 * 2**20  # what a CPU's first steps load and compile beside their tensors: measured, 70 to 130 MiB
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")


@dataclass(frozen=True)
class StateBytes:
    """Bytes that a trained parameter keeps through a run; frozen: those of one that is not trained."""

    weight: float
    gradient: float
    optimizer: float
    frozen: float


_OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "adafactor": 0.0}  # Adafactor's are a row and a column a matrix
_QUANTIZED_BYTES = {"4bit": 0.52, "8bit": 1.0}  # NF4 with double quantisation: half a byte and the scales of its blocks


def state_bytes(settings: Settings) -> StateBytes:
    """What a parameter costs under the settings; quantised weights are those of the blocks, nearly all."""
    weight = 2.0 if settings.model.dtype == "bfloat16" else 4.0
    optimizer = _OPTIMIZER_BYTES[settings.training.optimizer]
    frozen = _QUANTIZED_BYTES.get(settings.model.quantization or "", weight)
    return StateBytes(weight, gradient=weight, optimizer=optimizer, frozen=frozen)


def step_temporaries(settings: Settings) -> int:
    """How many float32 tensors of a parameter's size its step makes at once, besides its states.

    Adafactor has the update twice; bfloat16 weights are stepped as float32 ones, out of a float32 gradient.
    """
    is_stepped_apart = settings.model.dtype == "bfloat16"
    return 2 * (settings.training.optimizer == "adafactor") + 2 * is_stepped_apart


@dataclass(frozen=True)
class Estimate:
    """A run's memory at its peak, in bytes.

    heap: on a CPU, holes of the heap between tensors, and what libraries load with the first step; logits: what has the
    width of the vocabulary; activations: all else, such as temporaries and autocast's copies of the weights; counted:
    whether they are a count, or a formula's; copy: on a CPU, of what a checkpoint keeps, so that training goes on while
    it is written. It is no part of what is needed: where there is no room for it the run waits for the disk.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    counted: bool
    heap: int = 0
    copy: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.heap

    @property
    def saving(self) -> int:
        """Bytes in use, on a CPU, while a checkpoint is written out of a copy between two steps."""
        return self.weights + self.optimizer + self.copy + _LIBRARIES


# --- which micro-batch is the largest ---


@dataclass(frozen=True)
class Cut:
    """A micro-batch as positions: of each row its examples; alone: whether it is the whole of its window."""

    rows: list[np.ndarray]
    alone: bool


def heaviest_cuts(
    lengths: np.ndarray, seed: int, window_size: int, processes: int, max_length: int, token_budget: int, way: Way,
    device_type: str,
) -> list[Cut]:  # fmt: skip
    """The micro-batches of most padded tokens in windows that are one, and in those of several, the most first.

    The gradients of a window of several are there while activations are at their most; so a smaller one may need more.

    lengths: tokens of each example, int32. A hundred windows are looked at, evenly spaced.
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
    """The batch of most padded tokens in a pass without gradients."""
    return max(batches_by_length(lengths, token_budget), key=lambda cut: len(cut) * int(lengths[cut].max()))


def shortened(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """An example with what it has for each token cut to max_length: one of a run with a shorter max_length."""
    tokens = len(example["input_ids"])
    return {
        name: value[:max_length] if isinstance(value, list) and len(value) == tokens else value
        for name, value in example.items()
    }


# --- the count ---


@dataclass(frozen=True)
class Count:
    """Bytes at a peak besides weights and optimizer: all (gradients included), and those of vocabulary width.

    heap: what the heap has for them at its own peak, at least the total.
    """

    total: int
    logits: int
    heap: int


@dataclass(frozen=True)
class Step:
    """A micro-batch to count; is_window: whether its window has no other, so that no gradients are there before it."""

    batch: Batch
    is_window: bool


@dataclass(frozen=True)
class Workload:
    """What of a run is counted: its largest micro-batches, and its largest batch without gradients, on their device.

    steps: the largest first; autocast: the context in which the run computes.
    """

    task: Task
    steps: Sequence[Step]
    evaluation: Batch
    autocast: Callable[[], AbstractContextManager[Any]]
    device: torch.device


def estimate_memory(
    model: PreTrainedModel, workload: Workload, settings: Settings, gradient_checkpointing: bool
) -> Estimate:
    """The peak over a step and a pass without gradients, counted; the optimizer's states are there in full.

    model: on the meta device, as it will be trained; it is changed. Generation is not counted: its batches are halved
    where they must be. Where an architecture does something that fake tensors cannot follow (a branch on computed
    values, an operator without a shape rule), the formula stands in for the count.
    """
    from finetuning.planning.count import count_evaluation, count_step

    rough = rough_estimate(model, workload, settings, gradient_checkpointing)
    if gradient_checkpointing:
        recompute_activations(model)
    try:
        step = count_step(model, workload, settings.memory.optimizer_in_backward, step_temporaries(settings))
        counts = [step, count_evaluation(model, workload)]
    except Exception as error:  # what a library raises for what fake tensors cannot follow is of any kind
        _log.debug("활성값을 세지 못해 식으로 어림합니다: %s", error)
        return rough
    most = max(counts, key=lambda count: count.heap)
    activations = max(0, most.total - most.logits - rough.gradients)
    heap = most.heap - most.total + _libraries(workload.device)
    return replace(rough, activations=activations, logits=most.logits, heap=heap, counted=True)


def rough_estimate(
    model: PreTrainedModel, workload: Workload, settings: Settings, gradient_checkpointing: bool
) -> Estimate:
    """The same by a formula, at once: for architectures that cannot be counted, and where there is plenty of memory."""
    parameters = model.num_parameters()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = state_bytes(settings)
    in_backward = settings.memory.optimizer_in_backward and all(step.is_window for step in workload.steps)
    count = _by_formula(model, workload.steps[0].batch, gradient_checkpointing)
    return Estimate(
        parameters, trained,
        weights=int(trained * each.weight + (parameters - trained) * each.frozen),
        gradients=0 if in_backward else int(trained * each.gradient),
        optimizer=int(trained * each.optimizer),
        activations=count.total - count.logits, logits=count.logits, counted=False,
        heap=_libraries(workload.device),
        copy=int(trained * (each.weight + each.optimizer)) if workload.device.type == "cpu" else 0,
    )  # fmt: skip


def _libraries(device: torch.device) -> int:
    return _LIBRARIES if device.type == "cpu" else 0


def _by_formula(model: PreTrainedModel, batch: Batch, gradient_checkpointing: bool) -> Count:
    """Activations of a transformer in float32: 68 bytes a token, hidden unit and layer (Korthikanti et al. 2022).

    Fused attention keeps no probabilities; a CPU has none with dropout, and keeps 9 bytes for each pair of tokens. With
    checkpointing a layer keeps its input.
    """
    config, input_ids = model.config.get_text_config(), batch.inputs["input_ids"]
    hidden, layers = getattr(config, "hidden_size", 768), getattr(config, "num_hidden_layers", 12)
    tokens, (rows, longest) = input_ids.numel(), (input_ids if batch.dense is None else batch.dense.spread).shape
    drops = any(getattr(config, name, None) for name in _ATTENTION_DROPOUTS)  # some have it as None
    pairs = getattr(config, "num_attention_heads", 12) * rows * longest**2
    layer = 68 * tokens * hidden + (9 * pairs if drops and input_ids.device.type == "cpu" else 0)
    activations = layer + layers * 4 * tokens * hidden if gradient_checkpointing else layer * layers
    has_logits = batch.labels is not None and batch.labels.shape == batch.inputs["input_ids"].shape
    logits = 12 * batch.items * config.vocab_size if has_logits else 0
    if getattr(model, "has_plain_head", False):  # a chunk of them at a time
        logits = min(logits, 12 * _CHUNK_LOGITS.get(batch.inputs["input_ids"].device.type, 2**26))
    return Count(activations + logits, logits, activations + logits)
