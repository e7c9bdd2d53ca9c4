"""What the tasks over a vocabulary share: batches with labelled positions, and a loss that needs no full logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import IGNORED, Batch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class VocabularyScorer(Scorer):
    """Cross-entropy of token ids at some positions. The head runs on the hidden states of these positions only."""

    reads = frozenset({"label_smoothing"})

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out whether the loss can be computed from hidden states and the head's weight, without logits.

        The weight of a sharded head is whole only inside it, where a scale behind it is not known yet.
        """
        from finetuning.device.sharding import is_sharded, run_in_parts
        from finetuning.ops.model_head import plain_head, scales_logits

        with run_in_parts(model):
            is_plain = plain_head(model) is not None
        model.has_plain_head = is_plain and not (is_sharded(model) and scales_logits(model))  # type: ignore[assignment]

    @abstractmethod
    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the output of the model's head at the labelled positions, (items, vocabulary)."""

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the logits at the labelled positions, (items, vocabulary)."""
        return self.project(model, batch)

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over the labelled positions."""
        return _cross_entropy_sum(outputs, batch)

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss, smoothed as the settings say, in chunks of the vocabulary loss if the head is plain."""
        from finetuning.ops.head_gradient import later_gradient_of
        from finetuning.ops.vocabulary_loss import vocabulary_loss_sum

        head, smoothing, labels = plain_head_of(model), self.settings.training.label_smoothing, chosen_labels(batch)
        if head is None:
            return _cross_entropy_sum(self.project(model, batch), batch, smoothing)

        def loss_sum(hidden: torch.Tensor) -> torch.Tensor:
            return vocabulary_loss_sum(hidden, head.weight, head.bias, labels, smoothing, later_gradient_of(head))

        return self.from_hidden(model, batch, head, loss_sum)

    def from_hidden(
        self, model: PreTrainedModel, batch: Batch, head: torch.nn.Linear,
        compute: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:  # fmt: skip
        """Return what a function computes from the hidden states of the labelled positions, (items, hidden size).

        Models may scale logits behind their head, which the hidden states undergo as well. A sharded one whose config
        does not say so is refused.

        Args:
            model: The model; its head is plain.
            batch: A batch on its device.
            head: Its head.
            compute: From hidden states to values.

        Returns:
            The values.

        Raises:
            ModelError: The model is sharded and changes logits behind its head.
        """
        from finetuning.device.sharding import is_sharded
        from finetuning.ops.model_head import as_identity, computing

        if not is_sharded(model):
            with as_identity(head):
                hidden = self.project(model, batch)
            return compute(hidden)
        made = list[Any]()

        def kept(hidden: torch.Tensor) -> torch.Tensor:
            made.append(compute(hidden))
            result: torch.Tensor = made[-1]
            return result

        with computing(head, kept):
            values = self.project(model, batch)
        if not bool((values.detach().flatten() == made[-1].detach().flatten()).all()):
            raise ModelError(
                "이 모델은 logit의 크기를 head 뒤에서 바꾸므로, 가중치를 나누어 학습할 수 없습니다.",
                remedy="distributed.shard를 none으로 두세요.",
            )
        return values.reshape(made[-1].shape)


def vocabulary_batch(
    inputs: dict[str, torch.Tensor], labels: torch.Tensor, tokens: int, sequences: int | None = None
) -> Batch:
    """Build a batch whose items are the labelled positions.

    Args:
        inputs: Keyword arguments of the model's forward.
        labels: Token ids, -100 without a label, (rows, tokens) int64.
        tokens: Number of real tokens.
        sequences: Number of examples, if a row may hold several.

    Returns:
        The batch with the positions of its labels as `places`.
    """
    places = (labels.flatten() != IGNORED).nonzero().squeeze(1)
    return Batch(inputs, labels, len(places), tokens, sequences, places=places)


def chosen_labels(batch: Batch) -> torch.Tensor:
    """Return the labels at the batch's places, (items,) int64."""
    assert batch.labels is not None and batch.places is not None
    return batch.labels.flatten().index_select(0, batch.places)


def plain_head_of(model: PreTrainedModel) -> torch.nn.Linear | None:
    """Return the model's head if `fit_model` found that its outputs are the logits, or else None."""
    return model.get_output_embeddings() if getattr(model, "has_plain_head", False) else None


def late_head_of(model: PreTrainedModel) -> torch.nn.Linear | None:
    """Return the plain head whose gradient is worth computing once a CPU's backward pass has ended, or else None."""
    from finetuning.ops.head_gradient import is_worth_computing_later

    head = plain_head_of(model)
    return head if head is not None and is_worth_computing_later(head) else None


def losses_by_example(losses: torch.Tensor, batch: Batch) -> list[tuple[float, int]]:
    """Sum losses by example.

    Args:
        losses: Loss of each labelled position, (items,).
        batch: Their batch, with one example in each row.

    Returns:
        (loss sum, items) of each row.
    """
    import torch

    sums = torch.zeros(len(batch.inputs["input_ids"]), 2, dtype=torch.float64, device=losses.device)
    sums.index_add_(0, rows_of_places(batch), torch.stack([losses, torch.ones_like(losses)], 1).double())
    return [(loss_sum, int(items)) for loss_sum, items in sums.tolist()]  # one wait for the device


def rows_of_places(batch: Batch) -> torch.Tensor:
    """Return the row of each of the batch's places, (items,) int64."""
    assert batch.labels is not None and batch.places is not None
    return batch.places // batch.labels.shape[1]


@contextmanager
def only_positions(module: torch.nn.Module, batch: Batch) -> Iterator[None]:
    """Cut the hidden states that a module returns to the batch's places, as (1, items, hidden).

    The vocabulary is then projected for the labelled tokens instead of all, whatever the architecture's head is.

    Args:
        module: The model without its head.
        batch: A batch with `places`.

    Yields:
        Nothing. The cut ends with the block.
    """
    assert batch.places is not None
    places = batch.places

    def select(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1).index_select(0, places).unsqueeze(0)
        return output

    handle = module.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def only_head_positions(model: PreTrainedModel, batch: Batch) -> Iterator[None]:
    """Cut the hidden states that go into a causal model's head to the batch's places, as (1, items, hidden).

    The module before the head is not the same in all of them: OPT calls its decoder, Llama 4 has no base model.

    Args:
        model: The model.
        batch: A batch with `places`.

    Yields:
        Nothing. The cut ends with the block.
    """
    assert batch.places is not None
    places, head = batch.places, model.get_output_embeddings()

    def select(_module: torch.nn.Module, inputs: Any) -> Any:
        return (inputs[0].flatten(0, 1).index_select(0, places).unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _cross_entropy_sum(logits: torch.Tensor, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(
        at_least_float32(logits), chosen_labels(batch), reduction="sum", label_smoothing=smoothing
    )
