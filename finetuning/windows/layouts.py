"""Windows made ready for the device: cut into micro-batches, collated, and planned ahead in the background."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetuning.data.examples import Examples
from finetuning.models.probes import attends_within_sequences, drops_padding, isolates
from finetuning.ops.dense_attention import causal_tokens, dense_tokens
from finetuning.tasks.base import Task
from finetuning.types import Batch, RandomKey
from finetuning.windows.order import Window, epoch_order, micro_batch_cost, partition, share_of
from finetuning.windows.packing import pack_window

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_AHEAD = 2
# Without padding the layers compute no padded token, but attention (of encoders embeddings, too) does: about an eighth
# of a real one's work, so that a further micro-batch has to save eight times the padding. Measured on BERT-base in
# bfloat16 on a CPU.
_REAL_FOR_PADDED = 8

Way = Literal["one row", "packed", "dense", "padded"]
_SAID: dict[Way, str] = {
    "one row": "micro-batch의 예제를 한 행에 이어 붙여 패딩을 없앱니다.",
    "packed": "짧은 예제를 한 행에 모아 패딩을 줄입니다.",
    "dense": "인코더의 층에서 패딩을 빼고 계산합니다.",
    "padded": "길이가 비슷한 예제끼리 나누어 패딩을 줄입니다.",
}


def choose_way(task: Task, model: PreTrainedModel, max_length: int) -> Way:
    """How this run keeps padding small, by what `data.packing` allows and the model was seen to do; says so."""
    asked = task.settings.data.packing
    way: Way = "padded"
    if task.encodes.packs():
        if attends_within_sequences(model, max_length):
            way = "one row"
        elif isolates(model):
            way = "packed"
    elif asked is not False:
        way = "dense" if drops_padding(model) else "padded"
    if way == "padded" and (asked or task.encodes.packs()):
        _log.warning("이 모델은 이어 붙인 예제를 서로 떼어 놓지 못해 data.packing 없이 학습합니다.")
    _log.info("%s (data.packing)", _SAID[way])
    return way


def cut_window(indices: np.ndarray, lengths: np.ndarray, budget: int, device_type: str, way: Way) -> list[np.ndarray]:
    """Positions as micro-batches within a budget of padded tokens, as is fastest on a kind of device."""
    cost = micro_batch_cost(device_type) * (1 if way == "padded" else _REAL_FOR_PADDED)
    return partition(indices, lengths, budget, cost)


def one_row(task: Task, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Examples of a causal model as a micro-batch of one row, attention kept within each."""
    lengths = [len(example["input_ids"]) for example in examples]
    return dataclasses.replace(task.encodes.collate_rows([examples], tokenizer), dense=causal_tokens(lengths))


@dataclass(frozen=True)
class ReadyWindow:
    """A window and this process's micro-batches of it; token_budget: what they were cut to."""

    window: Window
    batches: list[Batch]
    token_budget: int


@dataclass(frozen=True)
class WindowPlanner:
    """Cuts and collates windows: a pure function of the window and the token budget, so that any thread may do it.

    max_length: tokens of an example at most; device_type: torch's name for where the tensors go; those for a GPU are
    pinned, where it copies from without waiting; as_few_as_fit: padding counts for nothing beside another micro-batch.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    max_length: int
    way: Way
    seed: int
    process: int
    processes: int
    device_type: str
    as_few_as_fit: bool = False

    def plan(self, window: Window, token_budget: int) -> ReadyWindow:
        """This process's share of a window as micro-batches within the budget of padded tokens."""
        mine = share_of(window, self.examples.lengths, self.process, self.processes)
        batches = self._micro_batches(mine, RandomKey(self.seed, window.epoch), token_budget) if len(mine) else []
        if self.device_type == "cuda":
            batches = [batch.mapped(_pinned) for batch in batches]
        return ReadyWindow(window, batches, token_budget)

    def _micro_batches(self, indices: np.ndarray, key: RandomKey, budget: int) -> list[Batch]:
        lengths, fetch = self.examples.lengths, self.examples.fetch
        if self.way == "packed":
            packed = pack_window(indices, lengths, self.max_length, budget)
            return [self.task.encodes.collate_rows([fetch(row) for row in rows], self.tokenizer) for rows in packed]
        if self.as_few_as_fit:
            cuts = partition(indices, lengths, budget, budget * len(indices))
        else:
            cuts = cut_window(indices, lengths, budget, self.device_type, self.way)
        return [self._micro_batch(fetch(cut), key) for cut in cuts]

    def _micro_batch(self, examples: Sequence[Mapping[str, Any]], key: RandomKey) -> Batch:
        if self.way == "one row":
            return one_row(self.task, examples, self.tokenizer)
        batch = self.task.encodes.collate(examples, self.tokenizer, key)
        return _without_padding(batch) if self.way == "dense" else batch

    def sample(self) -> Batch:
        """Two examples as a micro-batch of what a run's are like: the same two in every run of these examples."""
        lengths, order = self.examples.lengths, epoch_order(len(self.examples), self.seed, 0)
        others = order[lengths[order] != lengths[order[0]]]  # of another length, so that there is padding to deal with
        two = self.examples.fetch([order[0], (others if len(others) else order)[-1]])
        if self.way == "packed":
            return self.task.encodes.collate_rows([[one] for one in two], self.tokenizer)
        return self._micro_batch(two, RandomKey(self.seed, 0))


def planned_ahead(
    plan: Callable[[Window], ReadyWindow], windows: Iterable[Window], ahead: int = _AHEAD
) -> Iterator[ReadyWindow]:
    """The windows in their order, planned by one thread while the window before is computed.

    An error of the plan is raised where its window would have come.
    """
    waiting: deque[Future[ReadyWindow]] = deque()
    with ThreadPoolExecutor(1, "windows") as pool:
        try:
            for window in windows:
                waiting.append(pool.submit(plan, window))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _without_padding(batch: Batch) -> Batch:
    return dataclasses.replace(batch, dense=dense_tokens(batch.inputs["attention_mask"]))


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory()
