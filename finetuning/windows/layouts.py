"""Layouts: how a window's sequences become tensors. Each cuts a window, collates a micro-batch and counts its tokens.

The training run, `plan` and the memory estimate use the same object, so they cannot disagree. A new layout is a class
and a line in `choose_layout`.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetuning.models.attention import AttentionWay
from finetuning.models.attention_trial import usable_way
from finetuning.models.probes import (
    attends_within_sequences,
    drops_padding,
    embeds_without_padding,
    isolates,
    reads_first_tokens,
)
from finetuning.ops.attention_ways import Attend, flash
from finetuning.ops.dense_attention import branching_tokens, causal_tokens, dense_tokens, filled_tokens, grouped_tokens
from finetuning.tasks.base import Task
from finetuning.types import NO_CARD, Batch, Card, DenseTokens, RandomKey
from finetuning.windows.packing import pack_window
from finetuning.windows.partition import COST_ON_CPU, FEWEST, micro_batch_cost, partition, runs_of_like_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
# Without padding, layers compute only real tokens; attention still runs on padded rows. A padded token costs about an
# eighth of a real one there, so one more micro-batch, or one more group of rows within it, has to save eight times as
# much padding. Measured on BERT-base in bfloat16 on a CPU.
_REAL_FOR_PADDED = 8
# Embeddings that are not looked up for the dense row run on padded rows. On BERT-base on a CPU, four places in five
# padding took 2% of a step's time and no memory at its peak; on e5-small one long text among short ones took 5%.
_REAL_FOR_EMBEDDED = 64
_EMBEDDED = 4
# Tokens that a dense row's length is a multiple of, so that lengths come back: oneDNN makes a kernel for each one, and
# keeps some hundred; cuBLAS chooses one anew for each product, which took as long as two launches more on an H200.
_MULTIPLES = {"cpu": 32, "cuda": 64}

_WIDTHS = 32  # tokens that padded rows are a multiple of where shapes come back; only the embeddings compute padding
_FINENESS = 5  # bits: where shapes come back, a dense row is filled up by a sixteenth at most

Cut = list[np.ndarray]  # a micro-batch as rows; each row holds the positions of its examples, int64


Rows = Sequence[Sequence[Mapping[str, Any]]]  # a micro-batch's rows of sequences


@dataclass(frozen=True)
class Layout(ABC):
    """How the sequences of a window are arranged in tensors.

    A window is cut between sequences (`Examples.sequences_of`): an example that has several may be divided. A layout
    without padding sets `has_padding` to False, and its layers compute real tokens alone.

    Attributes:
        label: Korean phrase for `plan`.
        message: Korean line for the log of a run.
        has_padding: Whether the layers compute padded tokens.
        fixed_cost: Cost of one more micro-batch, in tokens (see partition.py).
        max_length: Upper bound of an example's tokens.
        attention: How a layout without padding computes attention.
    """

    label: ClassVar[str]
    message: ClassVar[str]
    has_padding: ClassVar[bool] = True

    fixed_cost: int
    max_length: int
    attention: AttentionWay = AttentionWay()  # noqa: RUF009 (frozen)

    def cut(self, indices: np.ndarray, lengths: np.ndarray, token_budget: int) -> list[Cut]:
        """Cut examples into micro-batches within a budget of padded tokens.

        Args:
            indices: Positions of the examples, int64, shape (n,), not empty.
            lengths: Tokens of every example of the split, int32.
            token_budget: Upper bound of rows × longest row, except for a single longer example.

        Returns:
            The micro-batches.
        """
        return [self.together(cut) for cut in partition(indices, lengths, token_budget, self.fixed_cost)]

    def together(self, indices: np.ndarray) -> Cut:
        """Arrange these examples as one micro-batch, whatever it costs: one example a row."""
        return list(indices.reshape(-1, 1))

    @abstractmethod
    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make the tensors of one micro-batch.

        Args:
            task: Encodes; knows the labels.
            rows: The sequences of each row.
            tokenizer: Gives the padding id.
            key: What random choices are drawn from; None draws nothing.

        Returns:
            The tensors, on the CPU.
        """

    def joined(self, task: Task, rows: Rows) -> Rows:
        """Return the sequences of each row, those that share a beginning as one with `branches`."""
        return rows

    def computed_tokens(self, cut: Cut, lengths: np.ndarray) -> int:
        """Return how many tokens the model's layers compute for a micro-batch, padding included."""
        tokens = [int(lengths[row].sum()) for row in cut]
        return len(cut) * max(tokens) if self.has_padding else sum(tokens)


class Padded(Layout):
    """One sequence a row, padded to the longest of the micro-batch."""

    label = "길이별로 나눔"
    message = "길이가 비슷한 예제끼리 나누어 패딩을 줄입니다."

    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make padded tensors; see `Layout.collate`."""
        return task.encodes.collate(list(itertools.chain.from_iterable(rows)), tokenizer, key)


@dataclass(frozen=True)
class Dense(Padded):
    """Padded rows for an encoder's head; its layers, and where it can its embeddings, compute one row of real tokens.

    Attributes:
        multiple: The row's length is a multiple of it, so that lengths come back.
        embeds: Whether the embeddings compute it, too.
    """

    label = "인코더의 층에서 패딩을 뺌"
    message = "인코더의 층에서 패딩을 빼고 계산합니다."
    has_padding = False

    multiple: int = 1
    embeds: bool = False

    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make padded tensors and the map of their real tokens; see `Layout.collate`."""
        batch = super().collate(task, rows, tokenizer, key)
        return self._mapped(batch, self._maps(batch))

    def _maps(self, batch: Batch) -> DenseTokens:
        return dense_tokens(batch.inputs["attention_mask"], self.attention.attend, self.multiple)

    def _mapped(self, batch: Batch, tokens: DenseTokens) -> Batch:
        return dataclasses.replace(batch, dense=dataclasses.replace(tokens, embeds=self.embeds))


@dataclass(frozen=True)
class Grouped(Dense):
    """A dense row for which attention on padded rows pads groups of rows of like length.

    So texts of all lengths may share a micro-batch, in which products of matrices are larger.

    Attributes:
        firsts: Whether the last layer computes each text's first token alone, since the head reads no other.
    """

    firsts: bool = False

    def cut(self, indices: np.ndarray, lengths: np.ndarray, token_budget: int) -> list[Cut]:
        """Cut examples into micro-batches within a budget of real tokens, and four times as many padded ones."""
        cuts = partition(indices, lengths, token_budget, self.fixed_cost, padded=_EMBEDDED)
        return [self.together(cut) for cut in cuts]

    def _maps(self, batch: Batch) -> DenseTokens:
        mask = batch.inputs["attention_mask"]
        groups = runs_of_like_length(mask.sum(1).numpy(), _real(COST_ON_CPU))
        tokens = grouped_tokens(mask, groups, self.multiple) if len(groups) > 1 else super()._maps(batch)
        return dataclasses.replace(tokens, firsts=self.firsts)


class Filled(Dense):
    """The dense row and the padded rows in lengths that come back, for passes that are recorded and repeated.

    Labels of places keep the rows as they are: what is scored of them has another shape in each micro-batch.
    """

    message = "인코더의 층에서 패딩을 빼고, 같은 크기가 다시 나오도록 길이를 맞추어 계산합니다."

    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make padded tensors and the map of their real tokens, both rounded up; see `Layout.collate`."""
        batch = Padded.collate(self, task, rows, tokenizer, key)
        if batch.scores_places:
            return self._mapped(batch, self._maps(batch))
        longest = batch.inputs["input_ids"].shape[1]
        width = max(longest, min(_rounded(longest, _WIDTHS), self.max_length))
        batch = _widened(batch, width - longest, tokenizer.pad_token_id or 0)
        mask = batch.inputs["attention_mask"]
        multiple = max(self.multiple, 1 << max(0, int(mask.sum()).bit_length() - _FINENESS))
        return self._mapped(batch, filled_tokens(mask, self.attention.attend, multiple))


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _widened(batch: Batch, columns: int, pad_id: int) -> Batch:
    """Return a batch of padded rows with more padding behind them."""
    import torch

    wider = {
        name: torch.nn.functional.pad(tensor, (0, columns), value=pad_id if name == "input_ids" else 0)
        for name, tensor in batch.inputs.items()
    }
    return dataclasses.replace(batch, inputs=wider)


class OneRow(Layout):
    """All sequences of a causal model's micro-batch in one row; attention stays within each sequence."""

    label = "한 행에 이어 붙임"
    message = "micro-batch의 예제를 한 행에 이어 붙여 패딩을 없앱니다."
    has_padding = False

    def together(self, indices: np.ndarray) -> Cut:
        """Arrange these examples as one micro-batch, in one row."""
        return [indices]

    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make one row and the map of its sequences; see `Layout.collate`."""
        (row,) = rows
        batch = task.encodes.collate_rows([row], tokenizer, key)
        if batch.others is not None:
            lengths = [len(sequence["other"]) for sequence in row]
            dense = causal_tokens(lengths, self.attention.attend)
            batch = dataclasses.replace(batch, others=dataclasses.replace(batch.others, dense=dense))
        return dataclasses.replace(batch, dense=_sequences_in(row, self.attention.attend))

    def joined(self, task: Task, rows: Rows) -> Rows:
        """Join examples that begin alike, where attention is by padded rows; see `Layout.joined`.

        The bounds of sequences, which kernels take, do not say which keys they share.
        """
        return [task.encodes.joined(row) for row in rows] if self.attention.attend is None else rows


def _sequences_in(row: Sequence[Mapping[str, Any]], attend: Attend | None) -> DenseTokens:
    """Return the index maps of a row. Sequences with `branches` (shared tokens, and those of each branch) fork.

    An example with `sizes` is several sequences, one behind the other.
    """
    if row[0].get("branches"):
        return branching_tokens([(one["branches"][0], one["branches"][1:]) for one in row])
    return causal_tokens([size for one in row for size in one.get("sizes") or [len(one["input_ids"])]], attend)


class Packed(Layout):
    """Several sequences a row, rows padded to the longest; attention is masked by position ids that restart."""

    label = "packing"
    message = "짧은 예제를 한 행에 이어 붙여 패딩을 줄입니다."

    def cut(self, indices: np.ndarray, lengths: np.ndarray, token_budget: int) -> list[Cut]:
        """Pack examples into rows and rows into micro-batches (see packing.py)."""
        return pack_window(indices, lengths, self.max_length, token_budget)

    def collate(self, task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None) -> Batch:
        """Make rows of several sequences; see `Layout.collate`."""
        return task.encodes.collate_rows(rows, tokenizer, key)


def choose_layout(
    task: Task, model: PreTrainedModel, max_length: int, fixed_cost: int | None = None, card: Card = NO_CARD
) -> Layout:
    """Choose the layout with the least padding that the task, the settings and the model allow.

    A model on its device is tried on a few tokens. For an outline on the meta device the architecture decides.

    Args:
        task: The task; its settings hold `data.packing`.
        model: The model, on its device or on the meta device.
        max_length: Upper bound of an example's tokens.
        fixed_cost: Cost of one more micro-batch in tokens; None for the default of the model's device.
        card: The GPU that the run computes on, by which attention's kernels are chosen.

    Returns:
        The layout.
    """
    cost = micro_batch_cost(model.device.type) if fixed_cost is None else fixed_cost
    if task.encodes.packs():
        in_one_row = partial(attends_within_sequences, model, max_length)
        if in_one_row():
            if task.encodes.shares_beginnings:  # the bounds of sequences do not say which keys they share
                return OneRow(_real(cost), max_length)
            return OneRow(_real(cost), max_length, usable_way(model, max_length, card, in_one_row))
        packs = not task.encodes.shares_beginnings and isolates(model)
        return Packed(cost, max_length) if packs else Padded(cost, max_length)
    if task.settings.data.packing is not False and drops_padding(model):
        multiple = _MULTIPLES.get(model.device.type, 1)
        way = usable_way(model, max_length, card, partial(drops_padding, model))
        embeds = embeds_without_padding(model, way.attend)
        is_on_cpu = card.capability is None and cost in (COST_ON_CPU, FEWEST)  # groups were measured there alone
        if way.attend is None and is_on_cpu and not task.settings.training.torch_compile:  # compiled for one group
            firsts = reads_first_tokens(model)
            return Grouped(cost * _REAL_FOR_EMBEDDED, max_length, way, multiple, embeds, firsts)
        kind = Filled if way.attend is flash else Dense
        return kind(_real(cost), max_length, way, multiple, embeds)
    return Padded(cost, max_length)


def _real(cost: int) -> int:
    return cost * _REAL_FOR_PADDED


def log_layout(layout: Layout, task: Task) -> None:
    """Log how the run reduces padding; warn if the model cannot do what `data.packing` asks for."""
    if type(layout) is Padded and (task.settings.data.packing or task.encodes.packs()):
        _log.warning("이 모델은 이어 붙인 예제를 서로 구분하지 못하므로 data.packing 없이 학습합니다.")
    _log.info("%s (data.packing)", layout.message)
    if line := layout.attention.line():
        _log.info("%s", line)
