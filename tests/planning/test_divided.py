"""What each of several processes holds and receives: the sums that FSDP's papers give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetuning.planning import paper
from finetuning.planning.divided import Division
from finetuning.planning.types import Estimate
from tests.support.paths import ROOT

ESTIMATE = Estimate(
    parameters=1000, trained=1000, weights=4000, gradients=4000, optimizer=8000, activations=2500, logits=0,
    counted=True, copy=12_000,
)  # fmt: skip
BLOCKS = (300, 300, 300)


def division(shards: int, passes: int = 1, is_halved: bool = False) -> Division:
    return Division(4, shards, BLOCKS, (0, 0, 0), 100, is_halved, passes)


def test_whole_models_hold_what_one_process_holds_and_sum_their_gradients_in_a_ring() -> None:
    assert division(1).held(ESTIMATE) == ESTIMATE
    assert division(1, passes=3).received(ESTIMATE) == 2 * 3 / 4 * 4000


def test_divided_models_hold_a_share_and_the_blocks_that_are_on_their_way() -> None:
    held = division(4).held(ESTIMATE)
    assert (held.weights, held.gradients, held.optimizer, held.copy) == (1000, 1000, 2000, 0)
    # two blocks and what lies outside, gathered; the gradient of one block
    assert held.activations == 2500 + 2 * 300 * 4 + 100 * 4 + 300 * 4
    assert division(4, passes=2).held(ESTIMATE).gradients == 4000  # whole until the last micro-batch


def test_bfloat16_halves_what_is_gathered_and_needs_no_copies_of_its_own() -> None:
    held = division(4, is_halved=True).held(ESTIMATE)
    assert held.activations == 2500 - 2 * 900 + 2 * 300 * 2 + 100 * 4 + 300 * 4


def test_weights_in_4_bits_are_gathered_as_they_lie_and_their_scales_are_whole_everywhere() -> None:
    packed = replace(division(4, is_halved=True), packed=(200, 200, 200))
    estimate = replace(ESTIMATE, trained=0, weights=400 * 4 + 312, gradients=0)  # 600 weights of 0.52 bytes
    held = packed.held(estimate)
    assert held.weights == (400 * 4 + 300) // 4 + 12
    assert held.activations == 2500 + 2 * (100 * 2 + 200 * 0.5) + 100 * 4
    assert packed.received(estimate) == int(3 / 4 * (2 * 3 * (100 * 2 + 200 * 0.5) + 100 * 4))


@pytest.mark.parametrize(("shards", "passes"), [(4, 1), (4, 3), (2, 2)])
def test_each_pass_gathers_the_blocks_twice_and_gradients_are_divided_once(shards: int, passes: int) -> None:
    gathered = passes * (2 * 900 * 4 + 100 * 4)
    assert division(shards, passes).received(ESTIMATE) == int((1 - 1 / shards) * (gathered + 4000))


def test_the_tables_of_the_docs_are_what_the_formula_gives() -> None:
    heading, *rows = paper.table()
    docs = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("many-cards.md", "many-cards.en.md")]
    assert heading in docs[0] and all("\n".join(rows) in text for text in docs)
