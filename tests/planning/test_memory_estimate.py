"""The memory estimate of every task against a real model, and the settings suggested when a run does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetuning.config.ladder import Abilities, suggested_variants, with_changes
from finetuning.config.schema import Settings
from finetuning.models.adapters import choose_trained
from finetuning.models.pissa import kept_bytes
from finetuning.ops import head_gradient
from finetuning.ops.dense_attention import without_padding
from finetuning.planning import estimate
from finetuning.planning.estimate import state_bytes, step_temporaries
from finetuning.planning.fit import Fitting, first_that_fits
from finetuning.planning.preview import memory_table, what_would_fit
from finetuning.planning.types import Count, Estimate
from finetuning.planning.workload import heaviest_cuts, make_workload, shares, shortened
from finetuning.tasks.registry import task_classes
from finetuning.training.optimizers import OPTIMIZERS, make_optimizer
from finetuning.windows.layouts import Padded
from finetuning.windows.order import Window, epoch_order, window_of, windows_per_epoch
from finetuning.windows.partition import COST_ON_CPU, partition
from tests.support.planning import fitting_for, fitting_of_prepared, prepared_for


def saved_bytes(fitting: Fitting, model: PreTrainedModel) -> int:
    """Bytes of the distinct storages that the real model's forward and loss keep for the backward pass."""
    model.train()
    if model.config.pad_token_id is None:
        model.config.pad_token_id = fitting.source.tokenizer.pad_token_id
    workload = make_workload(fitting.source, fitting.settings, fitting.runtime, fitting.layout)
    task, batch = workload.task, workload.steps[0].batch
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
def test_estimated_activations_match_those_of_a_real_model(
    task: str,
    flags_for: Callable[[str], list[str]],
) -> None:
    prepared, tokenizer, length = prepared_for([*flags_for(task), "--no-mixed_precision"])
    fitting = fitting_of_prepared(prepared, tokenizer, length)
    estimate = fitting.estimate(fitting.settings)
    model = prepared.session.models.load_model(prepared.label_names)
    assert estimate.counted
    assert estimate.parameters == estimate.trained == sum(p.numel() for p in model.parameters())
    assert estimate.weights == estimate.gradients == estimate.optimizer // 2 == 4 * estimate.parameters
    if fitting.runtime.is_cpu:  # a checkpoint is copied whole
        assert estimate.saving > 2 * (estimate.weights + estimate.optimizer)
    kept = saved_bytes(fitting, model)
    assert estimate.overhead > 0 or not fitting.runtime.is_cpu
    # a backward pass has temporaries besides, and gradients of later layers beside activations of earlier ones
    assert 0.9 * kept < estimate.activations + estimate.logits + estimate.gradients
    assert estimate.activations + estimate.logits < 2 * kept


def test_a_heads_gradient_that_is_computed_later_is_not_beside_the_activations(
    tiny_causal: Path, flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(tiny_causal)
    config.update({"hidden_size": 256, "vocab_size": 2**13})
    wide = shutil.copytree(tiny_causal, tmp_path / "wide")
    AutoModelForCausalLM.from_config(config).save_pretrained(wide)
    flags = [*flags_for("text-generation"), "--model_name", str(wide), "--batch_size", "1", "--no-mixed_precision"]
    fitting = fitting_of_prepared(*prepared_for(flags))
    at_once = fitting.estimate(fitting.settings)
    monkeypatch.setattr(head_gradient, "_LARGE", 0)
    later = fitting.estimate(fitting.settings)
    assert at_once.counted and later.counted
    saved = at_once.activations + at_once.logits - later.activations - later.logits
    assert saved > 0.5 * 4 * 256 * 2**13, (at_once, later)


@pytest.mark.parametrize("task", ["token-classification", "text-generation"])
def test_each_cheaper_option_needs_less(task: str, flags_for: Callable[[str], list[str]]) -> None:
    """A classifier of two layers, the last of which computes first tokens alone, has nothing to gain."""
    fitting = fitting_for([*flags_for(task), "--set", "model.adapter.r=4"])
    options = [fitting.settings, *(variant.settings for variant in fitting.suggested())]
    estimates = [fitting.estimate(option) for option in options]
    assert all(estimate.counted for estimate in estimates)
    plain, checkpointed, lora = estimates[0], estimates[1], estimates[-1]
    assert checkpointed.activations + checkpointed.logits < plain.activations + plain.logits
    assert options[-1].model.adapter.method == "lora"
    assert lora.trained < plain.trained < lora.parameters
    assert lora.total < plain.total


def test_the_suggested_settings_fit(flags_for: Callable[[str], list[str]]) -> None:
    fitting = fitting_for(flags_for("text-generation"))
    plain = fitting.estimate(fitting.settings)
    lean = fitting.estimate(with_changes(fitting.settings, {"memory.gradient_checkpointing": True}))
    assert lean.total < plain.total
    tight = replace(fitting, limit=fitting.taken + lean.total)
    named, *costs = what_would_fit(tight)
    assert named.endswith("): --set memory.gradient_checkpointing=true")
    assert len(costs) == 1 and "느려집니다" in costs[0]
    assert "GiB, 부족합니다" in "\n".join(memory_table(tight, plain))
    assert "GiB, 충분합니다" in "\n".join(memory_table(tight, lean))


def test_the_heaviest_micro_batch_is_the_largest_of_all_windows() -> None:
    lengths, layout = np.random.default_rng(0).integers(2, 60, 37).astype(np.int32), Padded(COST_ON_CPU, 64)
    order = epoch_order(37, 1, 0)
    cut = heaviest_cuts(layout, lengths, (layout.cut(mine, lengths, 100) for mine in shares(lengths, order, 8, 1)))[0]
    windows: list[Window] = [window_of(order, 8, 0, number) for number in range(windows_per_epoch(37, 8))]
    padded = [len(c) * int(lengths[c].max()) for window in windows for c in partition(window.indices, lengths, 100)]
    assert len(cut.cut) * max(int(lengths[row].max()) for row in cut.cut) == max(padded)
    assert not cut.alone
    even = np.full(37, 20, dtype=np.int32)
    assert heaviest_cuts(layout, even, (layout.cut(mine, even, 10**6) for mine in shares(even, order, 8, 1)))[0].alone


def test_shortening_cuts_every_list_with_one_entry_per_token() -> None:
    example = {"input_ids": [1, 2, 3], "trained": [False, True, True], "row": 7, "label": "가"}
    assert shortened(example, 2) == {"input_ids": [1, 2], "trained": [False, True], "row": 7, "label": "가"}


def test_the_first_that_fits_is_found() -> None:
    asked = Settings.model_validate({"data": {"batch_size": 4, "max_length": 256}})
    variants = suggested_variants(asked, Abilities())

    def estimate_of(settings: Settings) -> Estimate:
        return Estimate(1, 1, 0, 0, 0, settings.data.batch_size * settings.data.max_length, 0, counted=True)

    found = first_that_fits(variants, estimate_of, 300)
    assert found is not None
    assert found[0] == variants[2]
    assert first_that_fits(variants, estimate_of, 10) is None


@pytest.mark.parametrize("method", ["none", "pissa"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_optimizer_takes_its_stated_bytes(optimizer: str, method: str, tiny_causal: Path) -> None:
    settings = with_changes(Settings(), {"training.optimizer": optimizer, "model.adapter.method": method})
    model = AutoModelForCausalLM.from_pretrained(tiny_causal)
    choose_trained(model, settings.model.adapter, set())
    made = make_optimizer(model, settings.training, in_backward=False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    made.step()
    states = [tensor for state in made.state.values() for name, tensor in state.items() if name != "step"]
    assert state_bytes(model, settings) == sum(tensor.numel() * tensor.element_size() for tensor in states)
    kept = [tensor for name, tensor in model.named_buffers() if "pissa" in name]
    assert kept_bytes(model) == sum(tensor.numel() * tensor.element_size() for tensor in kept)
    assert bool(kept) == (method == "pissa")


def test_rounded_weights_take_two_more_temporaries(tiny_causal: Path) -> None:
    model, settings, cpu = AutoModelForCausalLM.from_pretrained(tiny_causal), Settings(), torch.device("cpu")
    rounded = step_temporaries(model, with_changes(settings, {"model.dtype": "bfloat16"}), cpu)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    plain = step_temporaries(model, settings, cpu)
    assert rounded == {name: plain[name] + 2 * size for name, size in sizes.items()}


def test_a_large_matrix_takes_temporaries_of_some_rows() -> None:
    """An embedding of 262,144 pieces, which would take three of its size in float32."""
    with torch.device("meta"):
        model = torch.nn.Embedding(262_144, 640, dtype=torch.bfloat16)
    adafactor = {"model.dtype": "bfloat16", "training.optimizer": "adafactor"}
    for changes in (adafactor, {"model.dtype": "bfloat16"}):
        (numbers,) = step_temporaries(model, with_changes(Settings(), changes), torch.device("cuda")).values()
        assert numbers < model.weight.numel() / 3


def test_every_optimizer_states_its_bytes() -> None:
    names = get_args(type(Settings().training).model_fields["optimizer"].annotation)
    assert set(names) == set(OPTIMIZERS)


def test_what_is_not_alive_at_once_is_not_added_up(
    flags_for: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With checkpointing the logits are most of the peak, and the gradients of the layers come after them."""
    fitting = fitting_for(flags_for("text-generation"))
    gradients = fitting.rough_estimate(fitting.settings).gradients
    peak = Count(total=gradients + 300, logits=gradients)
    monkeypatch.setattr(estimate, "count_step", lambda *_: peak)
    monkeypatch.setattr(estimate, "count_evaluation", lambda *_: Count(0, 0))
    found = fitting.estimate(fitting.settings)
    assert found.counted
    assert found.gradients + found.activations + found.logits == peak.total
