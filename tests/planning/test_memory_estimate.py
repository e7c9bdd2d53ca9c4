"""The estimate beside what a real model keeps, for every task, and what is suggested where it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetuning.ops.dense_attention import without_padding
from finetuning.planning.estimate import Estimate, heaviest_cuts, shortened
from finetuning.planning.fit import Fitting, table, what_would_fit
from finetuning.planning.options import Option, cheaper_options, first_that_fits
from finetuning.tasks.registry import task_classes
from finetuning.windows.order import Window, epoch_order, partition, window_of, windows_per_epoch
from tests.support.planning import fitting_for


def saved_bytes(fitting: Fitting) -> int:
    """Bytes of the distinct storages that the real model's forward and loss keep for the backward pass."""
    option, task = fitting.asked(), fitting.bench.task
    model = fitting.bench.models.load_model(fitting.label_names).train()
    if model.config.pad_token_id is None:
        model.config.pad_token_id = fitting.tokenizer.pad_token_id
    window = option.batch_size * option.gradient_accumulation_steps
    way = fitting.way()
    cut = heaviest_cuts(fitting.train.lengths, 42, window, 1, option.max_length, option.token_budget, way, "cpu")[0]
    batch = fitting._batch(fitting.train, cut.rows, option.max_length, way)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, without_padding(model, batch.dense):
        task.scores.loss_sum(task.scores.forward(model, batch), batch)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("task", sorted(task_classes()))
def test_activations_of_every_task_are_what_a_real_model_keeps(
    task: str,
    flags_for: Callable[[str], list[str]],
) -> None:
    fitting = fitting_for([*flags_for(task), "--no-mixed_precision"])
    estimate = fitting.estimate(fitting.asked())
    model = fitting.bench.models.load_model(fitting.label_names)
    assert estimate.counted
    assert estimate.parameters == estimate.trained == sum(p.numel() for p in model.parameters())
    assert estimate.weights == estimate.gradients == estimate.optimizer // 2 == 4 * estimate.parameters
    if fitting.bench.accelerator.device.type == "cpu":  # a checkpoint is copied whole
        assert estimate.saving > 2 * (estimate.weights + estimate.optimizer)
    kept = saved_bytes(fitting)
    assert estimate.heap > 0 or fitting.bench.accelerator.device.type != "cpu"
    # a backward pass has temporaries besides, and gradients of later layers beside activations of earlier ones
    assert 0.9 * kept < estimate.activations + estimate.logits + estimate.gradients
    assert estimate.activations + estimate.logits < 2 * kept


@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_each_cheaper_option_needs_less(task: str, flags_for: Callable[[str], list[str]]) -> None:
    fitting = fitting_for([*flags_for(task), "--set", "model.adapter.r=4"])
    asked = fitting.asked()
    options = [asked, *cheaper_options(asked, fitting.can_checkpoint())]
    estimates = [fitting.estimate(option) for option in options]
    assert all(estimate.counted for estimate in estimates)
    plain, checkpointed, lora = estimates[0], estimates[1], estimates[-1]
    assert checkpointed.activations + checkpointed.logits < plain.activations + plain.logits
    assert options[-1].adapter == "lora"
    assert lora.trained < plain.trained < lora.parameters
    assert lora.total < plain.total


def test_what_would_fit_is_named_and_fits(flags_for: Callable[[str], list[str]]) -> None:
    fitting = fitting_for(flags_for("text-generation"))
    asked = fitting.asked()
    plain, lean = fitting.estimate(asked), fitting.estimate(fitting.with_checkpointing())
    assert lean.total < plain.total
    tight = replace(fitting, limit=fitting.taken + lean.total)
    assert fitting.with_checkpointing().changes_from(asked) in what_would_fit(tight)
    assert "→ 들어가지 않습니다" in "\n".join(table(tight, plain))
    assert "→ 들어갑니다" in "\n".join(table(tight, lean))


def test_the_heaviest_micro_batch_is_that_of_the_cut() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 37).astype(np.int32)
    cut = heaviest_cuts(lengths, 1, 8, 1, 64, 100, "padded", "cpu")[0]
    order = epoch_order(37, 1, 0)
    windows: list[Window] = [window_of(order, 8, 0, number) for number in range(windows_per_epoch(37, 8))]
    padded = [len(c) * int(lengths[c].max()) for window in windows for c in partition(window.indices, lengths, 100)]
    assert len(cut.rows) * max(int(lengths[row].max()) for row in cut.rows) == max(padded)
    assert not cut.alone
    even = np.full(37, 20, dtype=np.int32)
    assert heaviest_cuts(even, 1, 8, 1, 64, 10**6, "padded", "cpu")[0].alone


def test_an_example_is_shortened_with_what_it_has_for_each_token() -> None:
    example = {"input_ids": [1, 2, 3], "trained": [False, True, True], "row": 7, "label": "가"}
    assert shortened(example, 2) == {"input_ids": [1, 2], "trained": [False, True], "row": 7, "label": "가"}


def test_options_come_in_the_order_of_their_cost_and_keep_the_window() -> None:
    asked = Option(256, 4, 2, gradient_checkpointing=False, dtype="float32", optimizer="adamw", adapter="none")
    options = cheaper_options(asked, can_checkpoint=True)
    assert [option.changes_from(asked) for option in options[:2]] == [
        "--set memory.gradient_checkpointing=true",
        "--set memory.gradient_checkpointing=true --set data.batch_size=2 --set memory.gradient_accumulation_steps=4",
    ]
    assert [option.dtype for option in options] == ["float32"] * 3 + ["bfloat16"] * 5
    assert [option.optimizer for option in options] == ["adamw"] * 4 + ["adafactor"] * 4
    assert [option.adapter for option in options] == ["none"] * 5 + ["lora"] * 3
    assert [option.max_length for option in options] == [256] * 6 + [128, 64]
    assert {option.batch_size * option.gradient_accumulation_steps for option in options} == {8}

    def estimate_of(option: Option) -> Estimate:
        return Estimate(1, 1, 0, 0, 0, option.token_budget, 0, counted=True)

    found = first_that_fits(options, estimate_of, 300)
    assert found is not None
    assert found[0] == options[2]
    assert first_that_fits(options, estimate_of, 10) is None
