"""Compiled layers: the same loss and gradients, compiled once for every shape, and a model that is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.ops.dense_attention import dense_tokens, without_padding
from finetuning.tasks.registry import find_task
from finetuning.training.compile import CompiledLayers, is_worth_compiling
from finetuning.windows.layouts import Dense, Layout, OneRow, Padded
from tests.support.causal import PadToken, causal_architectures, examples_of


def encoder() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config).train()


def causal(name: str) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(causal_architectures()[name]).train()


def encoder_loss(model: Any, examples: list[dict[str, Any]]) -> torch.Tensor:
    width = max(len(example["input_ids"]) for example in examples)
    ids = torch.tensor([example["input_ids"] + [0] * (width - len(example["input_ids"])) for example in examples])
    mask = (ids != 0).long()
    with without_padding(model, dense_tokens(mask)):
        logits = model(input_ids=ids, attention_mask=mask).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(ids)) % 2, reduction="sum")
        loss.backward()
    return loss.detach()


def causal_loss(model: Any, examples: list[dict[str, Any]]) -> torch.Tensor:
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    batch = OneRow(0, 64).collate(task, [examples], PadToken(), None)  # type: ignore[arg-type]
    with without_padding(model, batch.dense):
        loss = task.scores.training_loss(model, batch)
        loss.backward()
    return loss.detach()


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize(
    ("name", "recomputes"),
    [
        ("llama", False),
        pytest.param("llama", True, marks=pytest.mark.soak),
        pytest.param("bert", False, marks=pytest.mark.soak),
    ],
)
def test_compiled_once_for_every_shape(name: str, recomputes: bool) -> None:
    """Micro-batches of 2 to 12 sequences: the loss and the gradients of layers that are not compiled."""
    model, loss_of = (encoder(), encoder_loss) if name == "bert" else (causal(name), causal_loss)
    if recomputes:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    names = set(model.state_dict())
    torch._dynamo.reset()  # what other tests compiled is not taken
    compiled = CompiledLayers(model)
    compiled.compile(lambda: loss_of(model, examples_of(0, 2)))
    assert compiled.graphs == 1  # the layers differ in their weights alone
    for seed, count in enumerate((3, 12, 5, 2), 1):
        examples = examples_of(seed, count)
        model.zero_grad()
        expected, plain = loss_of(model, examples), gradients(model)
        model.zero_grad()
        with compiled.in_use(), torch.compiler.set_stance("fail_on_recompile"):
            found = loss_of(model, examples)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradients(model), plain, rtol=1e-4, atol=1e-5)
    one = examples_of(9, 1)  # a single sequence, which the code does not hold for
    with compiled.in_use():
        found = loss_of(model, one)
    torch.testing.assert_close(found, loss_of(model, one), rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == names
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_failed_compilation_is_reported() -> None:
    with pytest.raises(SettingsError, match=r"training\.torch_compile"):
        CompiledLayers(torch.nn.Linear(2, 2))

    def fails() -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(fails, RuntimeError("no compiler"), None)

    with pytest.raises(SettingsError, match=r"no compiler(.|\n)*g\+\+"):
        CompiledLayers(causal("llama")).compile(fails)


MANY = 10**12


@pytest.mark.parametrize(
    ("layout", "precision", "settings", "tokens", "is_worth_it"),
    [
        (OneRow, "bf16", {}, MANY, True),
        (OneRow, "bf16", {}, 1000, False),
        (OneRow, "no", {}, MANY, False),
        (Dense, "bf16", {}, MANY, False),
        (OneRow, "bf16", {"model": {"adapter": {"method": "lora"}}}, MANY, False),
        (OneRow, "bf16", {"training": {"torch_compile": False}}, MANY, False),
        (Padded, "no", {"training": {"torch_compile": True}}, 1000, True),
    ],
)
def test_layers_are_compiled_only_where_it_was_measured_to_pay(
    layout: type[Layout], precision: str, settings: dict[str, Any], tokens: int, is_worth_it: bool
) -> None:
    found = is_worth_compiling(Settings.model_validate(settings), causal("llama"), precision, layout(0, 64), tokens)
    assert found == is_worth_it
