"""What tasks with a label for each token share: padded labels, their loss, and log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.tasks.loss_settings import LabelLossScorer
from finetuning.tasks.parts import RowEncoder
from finetuning.tasks.tensors import at_least_float32, pad
from finetuning.types import IGNORED, Batch, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TokenLabelEncoder(RowEncoder):
    """Pads examples whose column `label` holds the label's id of each token, -100 for a token without."""

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples and their labels; see `RowEncoder.collate`. labels: (rows, tokens) int64, -100 without one."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        if "label" not in examples[0]:
            return Batch(inputs, None, items=len(examples), tokens=tokens)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for position, example in enumerate(examples):
            labels[position, : len(example["label"])] = torch.tensor(example["label"])
        return Batch(inputs, labels, items=int((labels != IGNORED).sum()), tokens=tokens)


class TokenLabelScorer(LabelLossScorer):
    """Cross-entropy over the tokens that have a label."""

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the logits, (rows, tokens, labels)."""
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over labelled tokens."""
        import torch

        assert batch.labels is not None
        logits = at_least_float32(outputs)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return the log-probabilities of each example's labels, (tokens, labels) float32."""
        scores = outputs.float().log_softmax(-1).cpu().numpy()
        lengths = batch.inputs["attention_mask"].sum(1).tolist()
        return [part[:length] for part, length in zip(scores, lengths, strict=True)]
