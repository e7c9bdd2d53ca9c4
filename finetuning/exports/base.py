"""What an export format is: a name and a function that writes a fine-tuned model for others to load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FineTunedModel(Protocol):
    """A model that was fine-tuned, as export formats need it; `ModelManager` is one."""

    name: str

    def is_adapter(self) -> bool:
        """Return whether it was saved as an adapter, without the weights of its base."""

    def load_trained_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load its tokenizer, with the chat template that it was trained with."""

    def load_merged(self) -> PreTrainedModel:
        """Load its adapter merged into its base, in float32."""

    def save(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path) -> None:
        """Write model and tokenizer into a folder, each file whole or not at all."""


@dataclass(frozen=True)
class ExportFormat:
    """One way of writing a fine-tuned model.

    Attributes:
        name: The format's name, and that of the folder inside output_dir that it is written to by default.
        write: Writes a model into a folder.
        done: What is logged afterwards, in Korean. The folder is appended.
    """

    name: str
    write: Callable[[FineTunedModel, Path], None]
    done: str
