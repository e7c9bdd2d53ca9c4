"""What the tasks on whole texts share: reading a text or a pair of texts, encoding it, and the model's forward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.config.schema import Settings
from finetuning.korean.column_names import LABELS, TEXTS, pair_in
from finetuning.tasks.parts import RowColumns, RowEncoder, RowReader
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import pad
from finetuning.tasks.text_encoding import encode_text
from finetuning.types import Batch, Column, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FOUND_PAIR = "text_pair"  # value of `data.text_pair_column` for a pair that was found by its usual names


class LabelledTextReader(RowReader):
    """Reads a text, or a pair of texts, and its label."""

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the texts that the settings name, or a usual pair if they name none and the source has one."""
        data = self.settings.data
        texts = [self.column("text", "text_column", TEXTS)]
        may_be_found = data.text_pair_column in (None, _FOUND_PAIR) and texts[0].is_default()
        if may_be_found and data.text_column not in available and (pair := pair_in(available)):
            first, second = (name.casefold() for name in pair)
            texts = [
                self.column("text", "text_column", (first,)),
                Column("text_pair", "text_pair_column", None, usual=(second,)),
            ]
        elif data.text_pair_column:
            texts.append(self.column("text_pair", "text_pair_column"))
        return (*texts, self.column("label", "label_column", LABELS, target=True))

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Return the settings, with a name for the second text if the data was found to have one."""
        if "text_pair" not in roles or self.settings.data.text_pair_column is not None:
            return self.settings
        data = self.settings.data.model_copy(update={"text_pair_column": _FOUND_PAIR})
        return self.settings.model_copy(update={"data": data})


class LabelledTextEncoder(RowEncoder):
    """Encodes a text, or a pair of texts, and the target that a subclass makes of its label."""

    @abstractmethod
    def targets(self, cells: Sequence[str], label_names: Sequence[str]) -> list[Any]:
        """Return the value that each `label` cell trains for: a number, or a list of numbers of one length."""

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode texts and targets; see `RowEncoder.encode`. The column `label` holds the targets."""
        columns = encode_text(tokenizer, rows["text"], rows.get("text_pair"), max_length)
        if "label" in rows:
            columns["label"] = self.targets(rows["label"], label_names)
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples; see `RowEncoder.collate`. The batch's labels have one row for each example."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        labels = torch.tensor([example["label"] for example in examples]) if "label" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens)


class HeadScorer(Scorer):
    """Scores the logits of a sequence-classification head."""

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the logits, (examples, labels)."""
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits
