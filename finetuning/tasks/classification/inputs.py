"""What the tasks on whole texts share: reading a text or a pair of texts, encoding it, and the model's forward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.korean.column_names import LABELS, TEXTS, pair_in
from finetuning.korean.sentences import Starts, sentence_starts, splitter_here
from finetuning.tasks.base import Task
from finetuning.tasks.classification.documents import USAGE, division, encode_documents, pooled
from finetuning.tasks.parts import RowColumns, RowEncoder, RowReader
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32, lists_of, pad, sequences_of
from finetuning.tasks.text_encoding import check_is_fast, encode_text
from finetuning.types import Batch, Column, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FOUND_PAIR = "text_pair"  # value of `data.text_pair_column` for a pair that was found by its usual names


class LabelledTextTask(Task):
    """A task of a sequence-classification head on a whole text."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if settings.text_classification.long_documents == "pool":
            self.usage = USAGE  # a pipeline makes no windows

    def beside_model(self, model: PreTrainedModel, max_length: int) -> Mapping[str, Any]:
        """Return how documents are divided, where they are; see `Task.beside_model`."""
        return division(self.settings.text_classification, max_length)


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
        """Return the settings, with a name for the second text if the data was found to have one.

        Where documents are read whole, they say how sentences are found, so that the saved model finds the same ones.

        Args:
            roles: Roles of the columns that were found.
            train_labels: Count of each label in train.

        Returns:
            The settings.

        Raises:
            SettingsError: Pairs of texts are to be read whole.
        """
        settings, documents = self.settings, self.settings.text_classification
        if documents.long_documents == "pool" and "text_pair" in roles:
            raise SettingsError(
                "텍스트 쌍은 구간으로 나누어 읽을 수 없습니다.",
                where="text_classification.long_documents: pool",
                remedy="`cut`으로 두거나, 두 텍스트를 한 열에 이어 붙이세요.",
            )
        if documents.long_documents == "pool" and documents.sentence_ends is None:
            documents = documents.model_copy(update={"sentence_ends": splitter_here()})
            settings = settings.model_copy(update={"text_classification": documents})
        if "text_pair" in roles and settings.data.text_pair_column is None:
            data = settings.data.model_copy(update={"text_pair_column": _FOUND_PAIR})
            settings = settings.model_copy(update={"data": data})
        return settings


class LabelledTextEncoder(RowEncoder):
    """Encodes a text, or a pair of texts, and the target that a subclass makes of its label."""

    @abstractmethod
    def targets(self, cells: Sequence[str], label_names: Sequence[str]) -> list[Any]:
        """Return the value that each `label` cell trains for: a number, or a list of numbers of one length."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the tokenizer tells where a document can be divided; see `RowEncoder.fit_tokenizer`."""
        if self.reads_whole:
            check_is_fast(tokenizer, "text_classification.long_documents: pool")

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode texts and targets; see `RowEncoder.encode`. The column `label` holds the targets.

        A text that is read whole is an example of several sequences: the column `sizes` has the tokens of each.
        """
        if self.reads_whole:
            stride = self.settings.text_classification.doc_stride
            columns = encode_documents(tokenizer, rows["text"], max_length, stride, self._starts)
        else:
            columns = encode_text(tokenizer, rows["text"], rows.get("text_pair"), max_length)
        if "label" in rows:
            columns["label"] = self.targets(rows["label"], label_names)
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples; see `RowEncoder.collate`. The batch's labels have one row for each example."""
        import torch

        lists = lists_of(examples) if "sizes" in examples[0] else None
        inputs, tokens = pad(examples if lists is None else list(sequences_of(examples)), tokenizer)
        labels = torch.tensor([example["label"] for example in examples]) if "label" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens, sequences=len(examples), lists=lists)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return an example's text as the model reads it, a line for each window of a document."""
        windows = sequences_of([example]) if "sizes" in example else [example]
        return "\n".join(str(tokenizer.decode(window["input_ids"])) for window in windows)

    @property
    def reads_whole(self) -> bool:  # type: ignore[override]
        """Whether long texts are read whole, in windows."""
        return self.settings.text_classification.long_documents == "pool"

    @cached_property
    def _starts(self) -> Starts:
        return sentence_starts(self.settings.text_classification.sentence_ends or splitter_here())


class HeadScorer(Scorer):
    """Scores the logits of a sequence-classification head."""

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the logits, (examples, labels); of a document the mean of its windows' logits."""
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits if batch.lists is None else pooled(at_least_float32(logits), batch.lists.sizes)
