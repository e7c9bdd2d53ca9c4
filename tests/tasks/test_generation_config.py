"""How texts are generated: the model's generation config, what the settings say over it, and draws of a row's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetuning.config.schema import GenerationSettings
from finetuning.tasks.generation.decoding import Decoding, decoding_of

OWN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "max_new_tokens": 32_768,
       "repetition_penalty": 1.05}  # fmt: skip


@pytest.fixture
def model(tiny_causal: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_causal).eval()


def test_what_the_settings_leave_open_is_the_models_own(model: Any) -> None:
    model.generation_config.update(**OWN)
    found = decoding_of(GenerationSettings(), model, is_measured=False)
    assert dict(found.narrowing) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert (found.samples, found.repetition_penalty) == (True, 1.05)
    assert found.max_new_tokens == 128  # half of the model's 256 positions, so that a prompt has room
    said = decoding_of(GenerationSettings(temperature=0.0, max_new_tokens=200), model, is_measured=False)
    assert (said.samples, said.max_new_tokens, said.of_model) == (False, 200, {"repetition_penalty"})


def test_validation_draws_nothing_unless_it_is_asked_to(model: Any) -> None:
    model.generation_config.update(**OWN)
    assert not decoding_of(GenerationSettings(), model, is_measured=True).samples
    asked = decoding_of(GenerationSettings(temperature=0.5, top_k=0), model, is_measured=True)
    assert dict(asked.narrowing) == {"temperature": 0.5, "top_p": 0.95}


def test_a_model_that_says_nothing_is_greedy(model: Any) -> None:
    found = decoding_of(GenerationSettings(), model, is_measured=False)
    assert found == Decoding(128)


def test_draws_have_the_probabilities_that_transformers_would_draw_with(model: Any) -> None:
    """One token after one prompt, drawn 4,000 times, against the softmax of transformers' own warpers."""
    from transformers.generation import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper

    ids, times = torch.tensor([[5, 6, 7]]), 4000
    with torch.inference_mode():
        logits = model(ids).logits[:, -1].float()
    warped = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(4)])(ids, logits)  # type: ignore[arg-type]
    decoding = Decoding(1, samples=True, narrowing={"temperature": 0.7, "top_k": 4})
    numbers = decoding.numbers(0, [[5, 6, 7]] * times, range(times))
    processors = decoding.arguments(3, numbers)["logits_processor"]
    drawn = processors(ids.expand(times, -1), logits.expand(times, -1)).argmax(-1)
    counts = np.bincount(drawn.numpy(), minlength=logits.shape[1]) / times
    np.testing.assert_allclose(counts, warped.softmax(-1)[0].numpy(), atol=0.03)


def test_a_row_draws_the_same_numbers_in_every_batch_and_others_for_another_answer() -> None:
    decoding = Decoding(6, samples=True)
    alone = decoding.numbers(1, [[3, 4]], [1])
    among = decoding.numbers(1, [[9], [3, 4], [3, 4]], [0, 0, 1])
    assert alone is not None and among is not None
    assert (among[2] == alone[0]).all() and not (among[1] == alone[0]).any()
