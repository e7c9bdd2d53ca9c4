"""The fourth part of a task: how its rows, predictions and evaluations are shown to a person."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.tasks.evidence import Case, Evidence, Part
from finetuning.tasks.parts import RowColumns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Presenter(ABC):
    """How a task's rows and predictions are shown to a person.

    Attributes:
        gives_vectors: Whether predictions are vectors, which may be written as a matrix, too.
        searches: Whether predictions are what a search in passages found.
    """

    gives_vectors: ClassVar[bool] = False
    searches: ClassVar[bool] = False

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return a row's input and its expected output as text. The latter is "" if it is not known."""
        given = " / ".join(str(row[role]) for role in ("text", "text_pair") if role in row)
        return given, str(row.get("label", ""))

    @abstractmethod
    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return one prediction in JSON types, for `predict`.

        Args:
            prediction: The scorer's prediction for the row.
            row: The row's values by role.
            label_names: Label names in the order of their ids.
            tokenizer: Tokenizer of the model.

        Returns:
            Values by name, in the order in which they are written.
        """

    def labels_said(self, readable: Mapping[str, Any]) -> Sequence[str]:
        """Return the labels in a prediction that `readable` made, which `predict` counts; none by default."""
        return ()

    def mistake(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return a wrong prediction for errors.csv; see `readable` for the arguments."""
        return self.readable(prediction, row, label_names, tokenizer)

    def phrase(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        """Return the values of one prediction for a line of the log; see `readable` for the arguments."""
        return list(self.readable(prediction, row, label_names, tokenizer).values())

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return further lines for an evaluation's report, such as a confusion matrix.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.

        Returns:
            Lines of text, none by default.
        """
        return []

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return what the report page shows of an evaluation beside the metrics, such as a confusion matrix.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.

        Returns:
            Facts over the split, and the rows to look at. Nothing by default.
        """
        return Evidence()

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return a row of the ranking as the page shows it; see `readable` for the arguments."""
        given, truth = self.show(row)
        said = ", ".join(map(str, self.phrase(prediction, row, label_names, tokenizer)))
        return Case((Part("텍스트", given), Part("정답", truth), Part("예측", said)))
