"""Tensors that tasks share: padded inputs, and logits in the precision of a loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.types import OF_TOKENS, Lists

if TYPE_CHECKING:
    import numpy as np
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
    ids = [example["input_ids"] for example in examples]
    inputs = {
        "input_ids": torch.from_numpy(padded(ids, pad_id)),
        "attention_mask": torch.from_numpy(padded([[1] * len(row) for row in ids], 0)),
    }
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = torch.from_numpy(padded([example["token_type_ids"] for example in examples], 0))
    return inputs, sum(map(len, ids))


def padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """Return rows of numbers as an array (rows, longest) int64 whose ends hold `fill`. All are written at once."""
    import numpy as np

    lengths = np.array([len(row) for row in rows])
    found = np.full((len(rows), lengths.max()), fill, dtype=np.int64)
    numbers = itertools.chain.from_iterable(rows)
    found[np.arange(found.shape[1]) < lengths[:, None]] = np.fromiter(numbers, dtype=np.int64, count=lengths.sum())
    return found


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32, or in float64 if the model computes in that."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))
