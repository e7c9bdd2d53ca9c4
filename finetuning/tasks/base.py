"""What a task is: its columns, how rows become token ids and labels, its loss, its metrics, and what a person reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.config.schema import DataSettings, Settings

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.ops.dense_attention import DenseTokens

IGNORED = -100  # the label of a token that is not trained


@dataclass(frozen=True)
class Column:
    """A column a task reads. Rows reach the task under `role`, whatever the file calls it.

    name: as the settings have it, None where the task does without; usual: names that people give it, tried when the
    setting is at its default; target: what is to be predicted, so absent where there is nothing to compare with;
    optional: a row may leave it empty.
    """

    role: str
    setting: str
    name: str | None
    usual: tuple[str, ...] = ()
    target: bool = False
    optional: bool = False

    def is_default(self) -> bool:
        """Whether the settings leave the name to be found."""
        return bool(self.name == DataSettings.model_fields[self.setting].default)


@dataclass(frozen=True)
class Batch:
    """One micro-batch as tensors.

    inputs: what the model takes, (rows, tokens) int64; labels: the task's own shape, or None in prediction;
    items: how many terms its loss sums; tokens: real tokens, padding not counted; sequences: how many examples its
    rows hold, where that is not one each; scope: (rows, tokens) int64, what a task marks positions as that its
    predictions may not all be at; places: (items,) int64, where in the flattened labels the tasks over a vocabulary
    have theirs, so that no device is asked; dense: where its real tokens are, where padding is not computed.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    items: int
    tokens: int
    sequences: int | None = None
    scope: torch.Tensor | None = None
    places: torch.Tensor | None = None
    dense: DenseTokens | None = None

    def computed_tokens(self) -> int:
        """How many tokens the model's layers compute, padding among them."""
        return self.inputs["input_ids"].numel() if self.dense is None else self.tokens

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same with each tensor converted, to another device say."""
        return replace(
            self,
            inputs={name: convert(tensor) for name, tensor in self.inputs.items()},
            labels=None if self.labels is None else convert(self.labels),
            scope=None if self.scope is None else convert(self.scope),
            places=None if self.places is None else convert(self.places),
            dense=None if self.dense is None else self.dense.mapped(convert),
        )

    def examples(self) -> int:
        """How many examples it is made of."""
        return len(self.inputs["input_ids"]) if self.sequences is None else self.sequences


@dataclass(frozen=True)
class RandomKey:
    """What random choices in a batch are drawn from, so that they do not depend on how a window is cut."""

    seed: int
    epoch: int


class Task(ABC):
    """One kind of fine-tuning. A task holds settings only: no model, no data, no device.

    name, aliases: how `model.task` may spell it; auto_class, pipeline: transformers' names for loading and using the
    model (pipeline None: there is none); best_metric: what picks the best model; has_labels: whether there are label
    names in the model's config; validation_texts, final_texts: for how many rows a text is generated after an epoch,
    and in a run's last evaluation (0: the task generates none); grouped_by: a role whose rows of one value must not be
    divided between train and held-out data; counts_characters: labels are places in the text, which is brought to NFC
    (`prepare` moves them along) and changed no further; usage: Python lines that use `model` and `tokenizer`, for the
    model card of a task without a pipeline.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    auto_class: ClassVar[str]
    pipeline: ClassVar[str | None]
    best_metric: ClassVar[str]
    greater_is_better: ClassVar[bool]
    has_labels: ClassVar[bool] = False
    validation_texts: ClassVar[int] = 0
    final_texts: ClassVar[int] = 0
    grouped_by: ClassVar[str | None] = None
    counts_characters: ClassVar[bool] = False
    usage: ClassVar[str] = ""
    objective: ClassVar[str] = "summed"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def for_settings(cls, settings: Settings) -> Task:
        """The task under these settings: itself, or a relative that they mean more exactly."""
        return cls(settings)

    def for_data(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Task:
        """The task for rows of these roles and labels such as train has: itself, or one that they mean more exactly."""
        return self

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Gives a tokenizer what the task needs and it lacks, such as a chat template."""
        return

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Gives a model what the task needs, such as the token that ends an answer; takes up what `tune` left in it."""
        return

    # --- rows ---

    @abstractmethod
    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """The columns this task reads, under the settings in force, out of a source that has `available`."""

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """A source's cells by role, checked and brought into the form that `encode` reads; raises BadRow.

        Cells that are no text are kept as JSON. In prediction the roles that are targets are not there.
        """
        return row

    def complete(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """A prepared row as it is trained on and scored, and a question without an answer that it had at its end.

        Raises BadRow where nothing in it is answered.
        """
        return row, ""

    def labels_in(self, cell: str) -> Sequence[str]:
        """The labels in a row's `label` cell."""
        return (cell,)

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Label names in the order of their ids, out of each label's count in train; empty where there are none.

        Raises DataError where the labels cannot be learned from.
        """
        return ()

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """What the model's config is told of the task: the number and names of labels, where there are any."""
        if not label_names:
            return {}
        return {
            "num_labels": len(label_names),
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: position for position, name in enumerate(label_names)},
        }

    # --- examples ---

    @abstractmethod
    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        """Turns columns of rows into columns of examples: `input_ids`, `truncated`, and what `collate` needs.

        An example without input_ids is dropped and counted. Where a row makes several examples, or the text's length
        before it was cut is known, the columns `row` and `full_length` say so.
        """

    @abstractmethod
    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pads examples into one batch. Random choices come from the key and each example's `row` alone.

        Without a key the batch is for prediction: nothing is drawn, and there may be no labels.
        """

    def packs(self) -> bool:
        """Whether windows are packed into rows of several sequences, through `collate_rows`."""
        return False

    def collate_rows(self, rows: Sequence[Sequence[Mapping[str, Any]]], tokenizer: PreTrainedTokenizerBase) -> Batch:
        """Like collate, each row several examples that do not see each other; a task that packs puts them there."""
        return self.collate([example for row in rows for example in row], tokenizer, None)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """One example as the model reads it, for `plan`."""
        return str(tokenizer.decode(example["input_ids"]))

    @abstractmethod
    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Runs the model on a batch and returns what the loss and metrics need, such as logits of some positions."""

    @abstractmethod
    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss summed over the batch's items, a float32 scalar: the window divides it. outputs: of `forward`."""

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """The same loss to be trained on; a task overrides it where gradients can be had in less memory."""
        return self.loss_sum(self.forward(model, batch), batch)

    # --- predictions ---

    @abstractmethod
    def outcomes(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """What evaluation keeps of each example, in the batch's order."""

    def gather(self, outcomes: Sequence[Any], examples: Dataset, rows: Dataset) -> list[Any]:
        """One outcome for each row, out of its examples' outcomes in order."""
        return list(outcomes)

    def tune(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> dict[str, Any]:
        """What is to be chosen on the validation split, such as a threshold, as entries of the model's config."""
        return {}

    @abstractmethod
    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """The field's metrics over a whole split, out of each row's outcome and columns; loss: the mean over items."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """A row as a line of a report has it: what is given, and what is to be predicted (empty: unknown)."""
        given = " / ".join(str(row[role]) for role in ("text", "text_pair") if role in row)
        return given, str(row.get("label", ""))

    @abstractmethod
    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """One prediction as a person or a program reads it, in JSON types."""

    def told(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        """One prediction as a line of a report has it, beside what `show` says of its row."""
        return list(self.readable(outcome, row, label_names, tokenizer).values())

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        """Further lines of an evaluation's report, such as a confusion matrix; none unless a task has them."""
        return []


def pad(
    examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, torch.Tensor], int]:
    """Pads the examples' token columns to the longest; returns the model's inputs and the number of real tokens."""
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


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> dict[str, list[Any]]:
    """Tokenises texts, or pairs of them, cut to max_length; the column `truncated` says which were.

    A fast tokenizer's backend is asked for ids alone: a third of its time is what keeps where each token lies.
    """

    def encoded(until: int | None) -> BatchEncoding:
        second = list(pairs[:until]) if pairs is not None else None
        found: BatchEncoding = tokenizer(list(texts[:until]), second, truncation=True, max_length=max_length)
        return found

    if not _is_its_backend(tokenizer):
        return text_columns(encoded(None), max_length)
    encoded(1)  # leaves the backend as the tokenizer sets it
    whole = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(whole)
    columns = {"input_ids": [encoding.ids for encoding in encodings]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
    columns["truncated"] = [bool(encoding.overflowing) for encoding in encodings]
    return columns


def text_columns(encoded: BatchEncoding, max_length: int) -> dict[str, list[Any]]:
    """The columns of texts that a tokenizer encoded, cut to max_length."""
    columns: dict[str, list[Any]] = {"input_ids": encoded["input_ids"]}
    if "token_type_ids" in encoded:
        columns["token_type_ids"] = encoded["token_type_ids"]
    if encoded.encodings is not None:
        columns["truncated"] = [bool(encoding.overflowing) for encoding in encoded.encodings]
    else:  # a slow tokenizer does not say: a row as long as allowed counts as cut
        columns["truncated"] = [len(ids) >= max_length for ids in encoded["input_ids"]]
    return columns


def _is_its_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is a fast one whose class does nothing of its own to a text."""
    from transformers import PreTrainedTokenizerFast as Fast

    own = type(tokenizer)
    return issubclass(own, Fast) and own.__call__ is Fast.__call__ and own._encode_plus is Fast._encode_plus


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Logits in the precision that a loss is summed in: float32, or float64 where the model computes in that."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))
