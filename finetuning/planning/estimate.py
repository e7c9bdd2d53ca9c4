"""Estimate the memory of a run: counted on tensors without data, or roughly by a formula."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from finetuning.config.schema import Settings
from finetuning.models.attention import attention_dropout
from finetuning.models.dtypes import base_dtype, trained_dtype
from finetuning.models.pissa import kept_bytes
from finetuning.models.quantization import quantized_weights
from finetuning.ops.recompute import recompute_activations
from finetuning.ops.vocabulary_blocks import loss_bytes
from finetuning.planning.count import count_evaluation, count_step
from finetuning.planning.types import Count, Estimate, Workload
from finetuning.training.chunked import stretch_of
from finetuning.training.optimizers import rows_of
from finetuning.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_LIBRARIES = 100 * 2**20  # bytes that libraries load and compile in the first steps on a CPU; measured, 70 to 130 MiB
# What a CPU's allocator holds beside live tensors: a part that does not depend on them, and a share of their bytes, as
# glibc's heap keeps freed blocks that are too small for the next tensors. Fitted to the peaks of e5-small and
# SmolLM2-135M, each trained plainly, with gradient checkpointing, with LoRA and with both, in bfloat16 on one thread:
# measured growth of 1,374 to 4,831 MiB, and estimates of 0.83 to 1.06 times that.
_SLACK, _SLACK_SHARE = 400 * 2**20, 0.3
# On a GPU, cuBLAS keeps a workspace for each thread that calls it, the forward and the backward thread: 32 MiB each
# since Hopper, 8 MiB before (torch's documentation of CUBLAS_WORKSPACE_CONFIG). The allocator gives memory in blocks;
# the share that their unused parts take is an estimate, not measured.
_WORKSPACES, _BLOCKS_SHARE = 2 * 32 * 2**20, 0.05
_DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0}
_QUANTIZED_BYTES = {"4bit": 0.52, "8bit": 1.0}  # NF4 with double quantisation: half a byte, and scales of the blocks


@dataclass(frozen=True)
class ParameterBytes:
    """Bytes that one parameter takes through a run.

    Attributes:
        weight: Of a trained parameter.
        gradient: Its gradient.
        frozen: Of a parameter that is neither trained nor quantised.
    """

    weight: float
    gradient: float
    frozen: float


def parameter_bytes(settings: Settings) -> ParameterBytes:
    """Return the bytes of a parameter, by the dtypes that weights are trained and loaded in."""
    weight, frozen = _DTYPE_BYTES[trained_dtype(settings)], _DTYPE_BYTES[base_dtype(settings)]
    return ParameterBytes(weight, gradient=weight, frozen=frozen)


def state_bytes(model: torch.nn.Module, settings: Settings) -> int:
    """Return the bytes of the optimizer's states of all trained parameters."""
    rows = rows_of(model, settings.training.optimizer)
    return int(sum(p.numel() * rows[name].state_bytes for name, p in model.named_parameters() if name in rows))


def step_temporaries(model: torch.nn.Module, settings: Settings, device: torch.device) -> dict[str, int]:
    """Return how many float32 numbers the optimizer makes at once for a trained parameter's step, by its name.

    A bfloat16 weight is stepped as a float32 one, with a float32 gradient: as many numbers twice more.
    """
    rounded = 2 * (trained_dtype(settings) == "bfloat16")
    rows, parameters = rows_of(model, settings.training.optimizer), dict(model.named_parameters())
    return {
        name: (row.temporaries + rounded)
        * (stretch_of(parameters[name], device) if row.is_by_rows else parameters[name].numel())
        for name, row in rows.items()
    }


def estimate_memory(model: PreTrainedModel, workload: Workload, settings: Settings) -> Estimate:
    """Estimate the peak over a training step and a pass without gradients by counting both.

    All of the optimizer's states are counted. Text generation is not, since its batches are halved until they fit. If
    fake tensors cannot run the model (it branches on computed values, or an operator has no shape rule), the formula
    is used instead.

    Args:
        model: The model to train, on the meta device. It is changed.
        workload: The batches to count.
        settings: The settings of the run.

    Returns:
        The estimate.
    """
    rough = rough_estimate(model, workload, settings)
    if settings.memory.gradient_checkpointing:
        recompute_activations(model)
    try:
        temporaries = step_temporaries(model, settings, workload.device)
        step = count_step(model, workload, settings.memory.optimizer_in_backward, temporaries)
        counts = [step, count_evaluation(model, workload)]
    except Exception as error:  # libraries raise errors of any type for what fake tensors cannot follow
        _log.debug("활성값을 세지 못해 식으로 추정합니다: %s", error)
        return rough
    most = max(counts, key=lambda count: count.total)
    beside = max(0, most.total - rough.gradients)  # gradients come as logits and activations go: not all are alive
    logits = min(most.logits, beside)
    return replace(rough, activations=beside - logits, logits=logits, slack=_slack(most, workload.device), counted=True)


def rough_estimate(model: PreTrainedModel, workload: Workload, settings: Settings) -> Estimate:
    """Estimate the same by a formula, which takes no time; arguments as of estimate_memory, without a change."""
    parameters = model.num_parameters()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    quantized = sum(quantized_weights(model, settings.model.quantization).values())
    frozen = parameters - trained - quantized
    each, on_cpu, states = parameter_bytes(settings), workload.device.type == "cpu", state_bytes(model, settings)
    kept = kept_bytes(model)
    in_backward = settings.memory.optimizer_in_backward and all(step.is_window for step in workload.steps)
    count = _by_formula(model, workload.steps[0].batch, bool(settings.memory.gradient_checkpointing))
    return Estimate(
        parameters, trained,
        weights=int(
            trained * each.weight + frozen * each.frozen
            + kept + quantized * _QUANTIZED_BYTES.get(settings.model.quantization or "", 0)
        ),
        gradients=0 if in_backward else int(trained * each.gradient),
        optimizer=states,
        activations=count.total - count.logits, logits=count.logits, counted=False,
        libraries=_LIBRARIES if on_cpu else _WORKSPACES, slack=_slack(count, workload.device),
        copy=int(trained * each.weight) + kept + states if on_cpu else 0,
    )  # fmt: skip


def _slack(count: Count, device: torch.device) -> int:
    return _SLACK + int(_SLACK_SHARE * count.total) if device.type == "cpu" else int(_BLOCKS_SHARE * count.total)


def _by_formula(model: PreTrainedModel, batch: Batch, gradient_checkpointing: bool) -> Count:
    """Compute a transformer's activations in float32, without gradients: 68 bytes a token, hidden unit and layer.

    The number is of Korthikanti et al. 2022. Fused attention keeps no probabilities; with dropout a CPU has none, and
    keeps 9 bytes for each pair of tokens. With checkpointing a layer keeps its input.
    """
    config, input_ids = model.config.get_text_config(), batch.inputs["input_ids"]
    hidden, layers = getattr(config, "hidden_size", 768), getattr(config, "num_hidden_layers", 12)
    tokens, (rows, longest) = input_ids.numel(), (input_ids if batch.dense is None else batch.dense.spread).shape
    drops = attention_dropout(config) > 0
    pairs = getattr(config, "num_attention_heads", 12) * rows * longest**2
    layer = 68 * tokens * hidden + (9 * pairs if drops and input_ids.device.type == "cpu" else 0)
    activations = layer + layers * 4 * tokens * hidden if gradient_checkpointing else layer * layers
    has_logits = batch.labels is not None and batch.labels.shape == input_ids.shape
    logits = 12 * batch.items * config.vocab_size if has_logits else 0
    if getattr(model, "has_plain_head", False):  # computed a block at a time
        logits = min(logits, loss_bytes(input_ids.device.type))
    return Count(activations + logits, logits)
