"""Compiled layers: the same loss and gradients, compiled once for every shape, and a model that is left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
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
from tests.support.runs import StopAfter, losses, run_train


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
    with without_padding(model, replace(dense_tokens(mask), embeds=True)):  # as BERT's embeddings are found to allow
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
    ("name", "recomputes", "backend"),
    [
        *((name, recomputes, "eager") for name, recomputes in (("llama", False), ("llama", True), ("bert", False))),
        # the same guards, without half a minute of C++; and with it
        *(
            pytest.param(*case, "inductor", marks=pytest.mark.soak)
            for case in (("llama", False), ("llama", True), ("bert", False))
        ),
    ],
)
def test_compiled_once_for_every_shape(
    name: str, recomputes: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of 2 to 12 sequences: the loss and the gradients of layers that are not compiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
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
    assert compiled.take_uncompiled() == 0
    one = examples_of(9, 1)  # a single sequence, which the code does not hold for
    with compiled.in_use():
        found = loss_of(model, one)
    assert compiled.take_uncompiled() >= len(compiled.layers)  # once more where activations are recomputed
    torch.testing.assert_close(found, loss_of(model, one), rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == names
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.fixture
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile to graphs, and not to code, which takes long."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()


def test_a_layer_that_cannot_be_compiled_whole_is_told(graphs_alone: None, caplog: pytest.LogCaptureFixture) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Breaking(GradientCheckpointingLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * 2
            torch._dynamo.graph_break()
            return x.sin()

    model = torch.nn.Sequential(Breaking())
    compiled = CompiledLayers(model)
    with caplog.at_level("INFO", "finetuning"):
        compiled.compile(lambda: model(torch.ones(3, 2, requires_grad=True)).sum().backward())
    assert compiled.graph_breaks >= 1
    assert "나뉘었습니다(graph break)" in caplog.text and "graph_break()" in caplog.text


def test_layers_that_run_uncompiled_are_counted(
    graphs_alone: None, flags_for: Callable[[str], list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The code is of rows of two sequences, and does not hold for one."""
    flags = [*flags_for("text-generation"), "--set", "training.torch_compile=true", "--output_dir", str(tmp_path)]
    flags += ["--batch_size", "1", "--gradient_accumulation_steps", "1", "--epochs", "1"]
    with caplog.at_level("INFO", "finetuning"):
        run_train(flags, StopAfter())
    compiled = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["compiled"]
    counted = [line.get("uncompiled", 0) for line in losses(tmp_path)]
    assert compiled == {"graphs": 1, "graph_breaks": 0, "uncompiled_layer_calls": sum(counted)}
    assert f"컴파일 없이 계산한 층 {max(counted)}번" in caplog.text and max(counted) > 0


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
