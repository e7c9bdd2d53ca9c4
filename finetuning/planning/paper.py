"""What models of 8 and 70 billion parameters would need on several cards, for docs/many-cards.md; none was measured.

`python -m finetuning.planning.paper` prints the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from finetuning.config.schema import Settings
from finetuning.planning.divided import Division
from finetuning.planning.estimate import rough_estimate
from finetuning.planning.types import Estimate, Step, Workload
from finetuning.tasks.registry import find_task
from finetuning.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 8192  # of a micro-batch, one a step in each process
_CARDS = (2, 8, 64)
_GIB = 1024**3
_SHAPES = {  # those of Llama 3: hidden units, of the MLP, layers, heads
    "8B": (4096, 14_336, 32, 32),
    "70B": (8192, 28_672, 80, 64),
}
_HEADING = ("모델", "카드 수", "`none`: 카드마다 GiB", "`full`: 카드마다 GiB", "`full`: 한 스텝에 받는 양 GiB")


def table() -> list[str]:
    """Return the lines of the table: AdamW in float32 under bfloat16, gradient checkpointing, all parameters."""
    lines = [f"| {' | '.join(_HEADING)} |", "|---|--:|--:|--:|--:|"]
    for name in _SHAPES:
        model, estimate = _on_paper(name)
        for cards in _CARDS:
            division = Division.of(model, cards, cards, "bf16", passes=1)
            sizes = (estimate.total, division.held(estimate).total, division.received(estimate))
            lines.append(f"| {name} | {cards} | {' | '.join(f'{size / _GIB:,.0f}' for size in sizes)} |")
    return lines


def _on_paper(name: str) -> tuple[PreTrainedModel, Estimate]:
    """Return a model on the meta device, and the formula's estimate of its training in one process on a GPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers, heads = _SHAPES[name]
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
    memory = {"gradient_checkpointing": True}
    settings = Settings.model_validate({"model": {"task": "text-generation"}, "memory": memory})
    batch = Batch({"input_ids": ids}, labels=ids, items=TOKENS, tokens=TOKENS)
    model.has_plain_head = True  # type: ignore[assignment]
    work = Workload(find_task(settings), [Step(batch, is_window=True)], batch, torch.no_grad, torch.device("cuda"))
    return model, rough_estimate(model, work, settings)


if __name__ == "__main__":
    print("\n".join(table()))
