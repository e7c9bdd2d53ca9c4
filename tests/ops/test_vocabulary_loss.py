"""The loss over a vocabulary without logits: its value and gradients are those of plain cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode

from finetuning.config.schema import Settings
from finetuning.ops import vocabulary_blocks
from finetuning.ops.model_head import as_identity, plain_head
from finetuning.ops.vocabulary_loss import vocabulary_loss_sum, vocabulary_losses
from finetuning.tasks.registry import find_task
from finetuning.tasks.vocabulary import vocabulary_batch
from finetuning.types import IGNORED, Batch

ITEMS, WIDTH, VOCABULARY = 37, 16, 211
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64, "max_position_embeddings": 64}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five items in float32 and of two in float64, in tiles of 75 pieces and of 187."""
    monkeypatch.setattr(vocabulary_blocks, "_BLOCK_BYTES_ON_CPU", 5 * VOCABULARY * 4)
    monkeypatch.setitem(vocabulary_blocks._TILE_LOGITS, "cpu", 5 * 75)


def parts(dtype: torch.dtype, has_bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(ITEMS, WIDTH, generator=random, dtype=dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=random, dtype=dtype).requires_grad_()
    bias = torch.randn(VOCABULARY, generator=random, dtype=dtype).requires_grad_() if has_bias else None
    return hidden, weight, bias, torch.randint(VOCABULARY, (ITEMS,), generator=random)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_loss_and_gradients_are_those_of_cross_entropy(dtype: torch.dtype, tolerance: float, has_bias: bool) -> None:
    hidden, weight, bias, labels = parts(dtype, has_bias)
    wanted = [part for part in (hidden, weight, bias) if part is not None]
    reference = cross_entropy(linear(hidden, weight, bias), labels, reduction="sum")
    expected = torch.autograd.grad(reference / 7, wanted)
    loss = vocabulary_loss_sum(hidden, weight, bias, labels)
    assert loss.dtype == dtype
    torch.testing.assert_close(loss, reference, rtol=tolerance, atol=0)
    for made, right in zip(torch.autograd.grad(loss / 7, wanted), expected, strict=True):
        torch.testing.assert_close(made, right, rtol=tolerance, atol=tolerance)
    each = cross_entropy(linear(hidden, weight, bias), labels, reduction="none")
    torch.testing.assert_close(vocabulary_losses(hidden, weight, bias, labels), each.detach())


@pytest.mark.usefixtures("small_chunks")
def test_under_autocast_products_are_bfloat16_and_the_sum_is_float32() -> None:
    hidden, weight, bias, labels = parts(torch.float32, has_bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        reference = cross_entropy(linear(hidden, weight, bias).float(), labels, reduction="sum")
        expected = torch.autograd.grad(reference, (hidden, weight))
        loss = vocabulary_loss_sum(hidden, weight, bias, labels)
        each = vocabulary_losses(hidden, weight, bias, labels)
    assert loss.dtype == each.dtype == torch.float32
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=0)
    torch.testing.assert_close(each.sum(), reference.detach(), rtol=1e-6, atol=0)
    for made, right in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        assert made.dtype == torch.float32
        assert float((made - right).norm() / right.norm()) < 1e-2


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _, labels = parts(torch.float32, has_bias=False)
    weight.requires_grad_(False)
    vocabulary_loss_sum(hidden, weight, None, labels).backward()
    assert weight.grad is None
    assert hidden.grad is not None


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("trains_head", [True, False])
def test_weighted_losses_have_the_gradients_of_cross_entropy(trains_head: bool) -> None:
    """As a loss of whole answers has them: each item's weight is known after all losses."""
    hidden, weight, bias, labels = parts(torch.float64, has_bias=True)
    assert bias is not None
    weight.requires_grad_(trains_head), bias.requires_grad_(trains_head)
    wanted = [part for part in (hidden, weight, bias) if part.requires_grad]

    def weighted(each: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(each[::2].sum() - each[1::2].sum()) + (each * torch.arange(ITEMS)).mean()

    reference = weighted(cross_entropy(linear(hidden, weight, bias), labels, reduction="none"))
    expected = torch.autograd.grad(reference, wanted)
    found = weighted(vocabulary_losses(hidden, weight, bias, labels))
    torch.testing.assert_close(found, reference, rtol=1e-12, atol=0)
    for made, right in zip(torch.autograd.grad(found, wanted), expected, strict=True):
        torch.testing.assert_close(made, right, rtol=1e-12, atol=1e-12)


def test_no_items_give_no_losses() -> None:
    hidden, weight, _, labels = parts(torch.float32, has_bias=False)
    assert vocabulary_losses(hidden[:0], weight, None, labels[:0]).shape == (0,)


# --- whole models ---


def models() -> dict[str, tuple[str, str, Any]]:
    """(task, auto class, config) of architectures whose logits are their head's outputs."""
    import transformers as t

    grouped = {**WIDE, "num_key_value_heads": 2}
    causal, seq2seq = ("text-generation", "AutoModelForCausalLM"), ("text2text-generation", "AutoModelForSeq2SeqLM")
    return {
        "llama": (*causal, t.LlamaConfig(**grouped)),
        "llama, tied": (*causal, t.LlamaConfig(**grouped, tie_word_embeddings=True)),
        "qwen2": (*causal, t.Qwen2Config(**grouped)),
        "gpt_neox": (*causal, t.GPTNeoXConfig(**WIDE)),
        "gpt2": (*causal, t.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
        "exaone4": (*causal, t.Exaone4Config(**grouped)),
        "granite": (*causal, t.GraniteConfig(**grouped, logits_scaling=4.0)),  # scaling commutes with the head
        "t5": (*seq2seq, t.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                                    decoder_start_token_id=0)),
        "bert": ("fill-mask", "AutoModelForMaskedLM", t.BertConfig(**WIDE)),
        "roberta": ("fill-mask", "AutoModelForMaskedLM", t.RobertaConfig(**WIDE)),
    }  # fmt: skip


def made(auto_class: str, config: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, auto_class).from_config(config).eval()


def batch_of() -> Batch:
    random = np.random.default_rng(0)
    ids, labels = (torch.from_numpy(random.integers(3, VOCABULARY, (4, 9))) for _ in range(2))
    labels[torch.from_numpy(random.random((4, 9)) < 0.4)] = IGNORED
    return vocabulary_batch({"input_ids": ids}, labels, ids.numel())


class _LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor of logits: its last dimension is the vocabulary, or a tile of it."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            is_of_tokens = isinstance(tensor, torch.Tensor) and tensor.shape[:1] != (32,)  # the weight, turned
            if is_of_tokens and len(tensor.shape) and tensor.shape[-1] in (VOCABULARY, 75, VOCABULARY % 75):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", models())
def test_training_without_stored_logits_gives_the_same_weights(name: str) -> None:
    task_name, auto_class, config = models()[name]
    model, batch = made(auto_class, config), batch_of()
    task: Any = find_task(Settings.model_validate({"model": {"task": task_name}}))

    def train() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        loss = task.scores.training_loss(model, batch)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    with_logits = train()
    assert plain_head(model) is not None
    model.has_plain_head = True
    with _LargestTensor() as largest:
        without = train()
    assert largest.numbers == 5 * 75
    torch.testing.assert_close(without[0], with_logits[0], rtol=1e-6, atol=0)
    assert float((without[1] - with_logits[1]).norm() / with_logits[1].norm()) < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(
            task.scores.loss_sum(task.scores.forward(model, batch), batch), with_logits[0], rtol=1e-6, atol=0
        )


def test_a_head_whose_logits_are_changed_is_not_plain() -> None:
    import transformers as t

    capped = t.Gemma2Config(**WIDE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=1.0)
    assert plain_head(made("AutoModelForCausalLM", capped)) is None
    added_to = t.BartConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
    )  # fmt: skip
    assert plain_head(made("AutoModelForSeq2SeqLM", added_to)) is None


def test_a_head_with_an_adapter_is_not_plain() -> None:
    import transformers as t
    from peft import LoraConfig

    model = made("AutoModelForCausalLM", t.LlamaConfig(**WIDE))
    model.add_adapter(LoraConfig(target_modules=["lm_head"]))
    assert plain_head(model) is None


def test_a_head_is_restored_after_as_identity() -> None:
    head = torch.nn.Linear(3, 5)
    hidden = torch.randn(2, 3)
    with pytest.raises(RuntimeError, match="inside"), as_identity(head):
        assert torch.equal(head(hidden), hidden)
        raise RuntimeError("inside")
    assert head(hidden).shape == (2, 5)
