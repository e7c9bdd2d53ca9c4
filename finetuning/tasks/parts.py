"""Two parts of a task: what it reads and how it encodes. The others are in scorer.py and presenter.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.config.schema import DataSettings, Settings
from finetuning.types import Batch, Column, RandomKey, Remark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RowColumns = Mapping[str, Sequence[Any]]  # the values of rows by role
Gathered = tuple[tuple[str, ...], Iterable[Mapping[str, Any]], str]
Rows = Sequence[Sequence[Mapping[str, Any]]]  # the examples of each row of a batch


class RowReader(ABC):
    """Reads a task's data: its columns, and a source's cells as a clean row.

    Args:
        settings: Settings of the run.

    Attributes:
        has_labels: Whether the model's config holds label names.
        labels_are_open: Whether other splits may have labels that train lacks, which then count as wrong.
        grouped_by: Role whose rows of one value stay together when data are held out of train, or None.
        counts_characters: Whether labels are character positions. The text is then only brought to NFC, and
            `prepare` moves the positions accordingly.
        instead: For settings of other tasks' columns, the setting of this task that is likely meant.
        refused_columns: Names of columns that would change what a row means → what to do about them. They are
            refused where they are not read.
    """

    has_labels: ClassVar[bool] = False
    labels_are_open: ClassVar[bool] = False
    grouped_by: ClassVar[str | None] = None
    counts_characters: ClassVar[bool] = False
    instead: ClassVar[Mapping[str, str]] = MappingProxyType({})
    refused_columns: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Choose the columns to read.

        Args:
            available: Names of the source's columns. Empty if they are not known.

        Returns:
            The columns in the order in which missing ones are reported.
        """

    def gathered(self, columns: Sequence[str], cells: Iterable[Mapping[str, Any]], where: str) -> Gathered | None:
        """Gather rows of a source of which several make one row of the task.

        Args:
            columns: Names of the source's columns.
            cells: Its rows; they can be iterated again.
            where: The source, as messages name it.

        Returns:
            Columns, rows and a sentence for the log; None where the rows stay as they are.

        Raises:
            DataError: The rows would be misread.
        """
        return None

    def column(self, role: str, setting: str, usual: tuple[str, ...] = (), *, target: bool = False) -> Column:
        """Return the column that `data.<setting>` names; see `Column` for the arguments."""
        name: str | None = getattr(self.settings.data, setting)
        return Column(role, setting, name, _default_of(setting), usual, target)

    def found_column(
        self, role: str, setting: str, name: str, *, target: bool = False, optional: bool = False
    ) -> Column:
        """Return the column of a name that was found in the source; see `Column` for the arguments."""
        return Column(role, setting, name, _default_of(setting), target=target, optional=optional)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Check a source's cells and bring them into the form that the encoder reads.

        Args:
            row: Cells by role. Without the roles of targets in prediction. It may get roles that no column has.

        Returns:
            Values by role. The cache keeps values other than strings as JSON.

        Raises:
            BadRow: The row cannot be used. The message says why.
        """
        return row

    def remarks(self, row: Mapping[str, Any]) -> Iterable[Remark]:
        """Return what `prepare` does not use of a row's cells, for the log.

        Args:
            row: Cells by role, as the source has them.

        Returns:
            The remarks.
        """
        return ()

    def complete(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Reduce a prepared row to the part that can be trained and scored.

        Args:
            row: Values by role, from `prepare`.

        Returns:
            The row, and the text of an unanswered question that was cut off its end, or "".

        Raises:
            BadRow: Nothing in the row is answered.
        """
        return row, ""

    def relabelled(self, cell: Any, names: Mapping[str, str | None]) -> tuple[Any, Sequence[str]]:
        """Rename labels of a prepared row, as `data.label_map` says.

        Args:
            cell: The row's `label`, from `prepare`.
            names: Label → its new name, None for a label that is none.

        Returns:
            The cell with the new names, None where no label is left of one; and the labels that were renamed. The
            default renames nothing.
        """
        return cell, ()

    def labels_in(self, cell: str) -> Sequence[str]:
        """Return the labels in a row's `label` cell."""
        return (cell,)

    def written_labels(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return labels, and the count of each, as the data spell them and `data.label_map` names them."""
        return counts

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Return the label names in the order of their ids.

        Args:
            train_labels: Count of each label in train.

        Returns:
            The names, empty for a task without label names.

        Raises:
            DataError: The labels cannot be learned.
        """
        return ()

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Add facts from the data to the settings, such as that texts come in pairs.

        Args:
            roles: Roles of the columns that were found.
            train_labels: Count of each label in train.

        Returns:
            The settings that the task is built again with. They may name another task.
        """
        return self.settings


class RowEncoder(ABC):
    """How a task encodes: rows as examples of token ids, and examples as a padded batch.

    Args:
        settings: Settings of the run.

    Attributes:
        shares_beginnings: Whether an example holds two sequences behind their common beginning (column `branches`).
        neighbours: How many similar examples stand together in an epoch's order; 0 for a plain random order.
        reads_whole: Whether long texts are read whole, in windows that are an example's sequences (`sizes`).
    """

    shares_beginnings: ClassVar[bool] = False
    reads_whole: bool = False
    neighbours: int = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Add to the tokenizer, in place, what the task needs, such as a chat template."""
        return

    def fit_saved_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Do the same with the tokenizer of a trained model: what training gave it, such as its template, stays."""
        self.fit_tokenizer(tokenizer)

    @abstractmethod
    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode columns of rows as columns of examples.

        Args:
            rows: Columns by role, and `row`, the row's number in its source.
            tokenizer: Tokenizer after `fit_tokenizer`.
            label_names: Label names in the order of their ids.
            max_length: Most tokens of an example.

        Returns:
            `input_ids` (int lists), `truncated` (bool), and the columns that `collate` reads. An example with empty
            `input_ids` is dropped and counted. If a row makes several examples, `row` says whose they are; if an
            example's full length is known, `full_length` holds it.
        """

    @abstractmethod
    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples into one batch.

        Args:
            examples: Rows of the columns that `encode` made.
            tokenizer: Tokenizer after `fit_tokenizer`.
            key: Source of random choices, together with each example's `row`. None in prediction, where nothing is
                drawn and labels may be missing.

        Returns:
            The batch on the CPU.
        """

    def why_several(self) -> str:
        """Return why a row may make several examples, a sentence for the log, or "" where that is plain."""
        return ""

    def packs(self) -> bool:
        """Return whether windows are packed into rows of several sequences through `collate_rows`."""
        return False

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Collate rows of several examples that do not attend to each other.

        Args:
            rows: The examples of each row.
            tokenizer: Tokenizer after `fit_tokenizer`.
            key: As for `collate`.

        Returns:
            The batch. The default puts every example into a row of its own.
        """
        return self.collate([example for row in rows for example in row], tokenizer, key)

    def joined(self, examples: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a micro-batch in which examples that begin alike are one, with the column `branches`."""
        return examples

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return an example's text as the model reads it, for `plan`."""
        return str(tokenizer.decode(example["input_ids"]))


def _default_of(setting: str) -> str | None:
    default: str | None = DataSettings.model_fields[setting].default
    return default
