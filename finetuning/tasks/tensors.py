"""Tensors that tasks share: padded inputs, and logits in the precision of a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.types import OF_TOKENS, Lists

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def sequences_of(examples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the sequences of examples that own several, one behind the other: `sizes` has the tokens of each."""
    for example in examples:
        start = 0
        for size in example["sizes"]:
            yield {name: example[name][start : start + size] for name in OF_TOKENS if name in example}
            start += size


def lists_of(examples: Sequence[Mapping[str, Any]]) -> Lists:
    """Return which sequences are of one example."""
    import torch

    sizes = [len(example["sizes"]) for example in examples]
    return Lists(tuple(sizes), torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))


def pad(
    examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, torch.Tensor], int]:
    """Pad the examples' token columns to the longest one.

    Args:
        examples: Examples with `input_ids` and perhaps `token_type_ids`.
        tokenizer: Tokenizer whose pad token fills the rest, or token 0 if it has none.

    Returns:
        The model's inputs, (examples, longest) int64 each, and the number of real tokens.
    """
    import torch

    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    lengths = [len(example["input_ids"]) for example in examples]
    shape = (len(examples), max(lengths))
    inputs = {"input_ids": torch.full(shape, pad_id), "attention_mask": torch.zeros(shape, dtype=torch.long)}
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.long)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        inputs["attention_mask"][row, :length] = 1
        for column in inputs.keys() - {"attention_mask"}:
            inputs[column][row, :length] = torch.tensor(example[column])
    return inputs, sum(lengths)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32, or in float64 if the model computes in that."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))
