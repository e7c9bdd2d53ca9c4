"""Trials of models: which architectures pass, and that neither the verdict nor the run depends on the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.models.probes import (
    attends_within_sequences,
    drops_padding,
    embeds_without_padding,
    isolates,
    trial_conditions,
)
from finetuning.tasks.registry import find_task
from finetuning.windows.layouts import Dense, choose_layout
from tests.support.causal import causal_architectures
from tests.support.encoders import config_of

PRODUCTS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def encoder(**options: Any) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, **options))


def causal() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2))


TRIALS = pytest.mark.parametrize(
    ("make", "trial"),
    [(encoder, drops_padding), (causal, lambda model: attends_within_sequences(model, 64)), (causal, isolates)],
    ids=["drops_padding", "attends_within_sequences", "isolates"],
)


@pytest.fixture
def in_tf32() -> Iterator[None]:
    """Set TF32 products, as a run in mixed precision does on a GPU."""
    before = [product.fp32_precision for product in PRODUCTS]
    for product in PRODUCTS:
        product.fp32_precision = "tf32"
    yield
    for product, precision in zip(PRODUCTS, before, strict=True):
        product.fp32_precision = precision


def precisions() -> list[str]:
    return [product.fp32_precision for product in PRODUCTS]


@TRIALS
def test_a_trial_runs_in_full_float32_without_autocast(
    make: Callable[[], Any], trial: Callable[[Any], bool], in_tf32: None
) -> None:
    """With TF32, rounding alone exceeds the limit, so each trial would fail on every GPU that has it."""
    model, seen = make().train(), []

    def watch(module: Any, _inputs: Any, _output: Any) -> None:
        seen.append((precisions(), torch.is_autocast_enabled("cpu"), module.training, torch.is_grad_enabled()))

    model.base_model.register_forward_hook(watch)
    with torch.autocast("cpu", torch.bfloat16):
        assert trial(model)
        assert torch.is_autocast_enabled("cpu")
    assert len(seen) >= 3
    assert all(one == (["ieee", "ieee"], False, False, False) for one in seen)
    assert precisions() == ["tf32", "tf32"] and model.training


@TRIALS
def test_out_of_memory_in_a_trial_is_raised(make: Callable[[], Any], trial: Callable[[Any], bool]) -> None:
    """Otherwise a resumed run on a machine with more memory would choose another layout."""
    model = make()

    def fail(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model.base_model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="allocate memory"):
        trial(model)


@TRIALS
@pytest.mark.parametrize("error", [RuntimeError, ZeroDivisionError])
def test_settings_are_put_back_after_a_failure(
    make: Callable[[], Any], trial: Callable[[Any], bool], error: type[Exception], in_tf32: None
) -> None:
    """A refusal means no; any other error is raised. Both restore the settings of before the trial."""
    model = make().train()

    def fail(*_: Any) -> None:
        raise error("not this way")

    model.base_model.register_forward_hook(fail)
    if error is RuntimeError:
        assert not trial(model)
    else:
        with pytest.raises(error):
            trial(model)
    assert precisions() == ["tf32", "tf32"] and model.training


@TRIALS
def test_a_trial_neither_depends_on_the_random_state_nor_changes_it(
    make: Callable[[], Any], trial: Callable[[Any], bool]
) -> None:
    """This holds even if a model draws random numbers in evaluation mode."""
    model, drawn = make(), []
    model.base_model.register_forward_hook(lambda *_: drawn.append(float(torch.rand(()))))
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        assert trial(model)
        assert torch.equal(torch.get_rng_state(), state)
        seen.append(drawn.copy())
        drawn.clear()
    assert seen[0] == seen[1]


def test_float32_that_is_rounded_to_bfloat16_exceeds_the_limit() -> None:
    """Rounding only one of the two compared results exceeds the limit."""
    model = encoder()
    forward, calls = model.forward, []

    def rounding(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        found = forward(*args, **kwargs)
        if len(calls) > 1:
            found.last_hidden_state = found.last_hidden_state.bfloat16().float()
        return found

    model.forward = rounding
    assert not drops_padding(model)


def test_conditions_end_with_the_block() -> None:
    model = encoder().train()
    with trial_conditions(model):
        assert not model.training and not torch.is_grad_enabled()
    assert model.training and torch.is_grad_enabled()


# --- architectures ---


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_weights_in_bfloat16_drop_padding_too(kind: str) -> None:
    import transformers

    torch.manual_seed(0)
    assert drops_padding(transformers.AutoModel.from_config(config_of(kind)).bfloat16())


@pytest.mark.parametrize("kind", ["deberta-v2", "longformer", "mpnet", "bart", "t5", "llama"])
def test_an_unsupported_architecture_stays_padded(kind: str) -> None:
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config_of(kind))
    assert not drops_padding(model)


def test_embeddings_that_are_no_look_up_keep_their_padded_rows() -> None:
    """Here a text's embeddings share something, which one row of all texts would mix up."""
    model = encoder()
    assert embeds_without_padding(model)
    model.embeddings.register_forward_hook(lambda _module, _inputs, out: out + out[:, :1])
    assert drops_padding(model) and not embeds_without_padding(model)
    layout = choose_layout(find_task(Settings()), model, 64)
    assert isinstance(layout, Dense) and not layout.embeds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_caps_attention_scores_is_not_laid_out_in_one_row(dtype: torch.dtype) -> None:
    """A trial on small scores, or in bfloat16, would not show the cap, which torch's attention lacks."""
    from transformers import AutoModelForCausalLM, Gemma2Config

    torch.manual_seed(0)
    wide = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    config = Gemma2Config(**wide, num_key_value_heads=2, intermediate_size=64)
    assert not attends_within_sequences(AutoModelForCausalLM.from_config(config, dtype=dtype), 64)


def test_a_model_that_drops_the_sequences_argument_is_not_laid_out_in_one_row() -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()["llama"])
    forward = model.model.forward

    def deaf(**inputs: Any) -> Any:
        return forward(**{name: value for name, value in inputs.items() if name != "sequences"})

    model.model.forward = deaf
    assert not attends_within_sequences(model, 64)


def test_a_model_that_leaks_between_sequences_is_detected() -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()["llama"])
    forward = model.forward

    def leaking(**inputs: Any) -> Any:
        return forward(**{**inputs, "use_cache": True})  # with a cache transformers does not isolate

    model.forward = leaking
    assert not isolates(model)
