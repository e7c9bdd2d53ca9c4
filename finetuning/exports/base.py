"""What an export format is: a name and a function that writes a fine-tuned model for others to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from exceptions import SettingsError
from finetuning.files import typed
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FineTunedModel(Protocol):
    """A model that was fine-tuned, as export formats need it; `ModelManager` is one."""

    name: str
    task: Task

    def is_adapter(self) -> bool:
        """Return whether it was saved as an adapter, without the weights of its base."""

    def load_trained_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load its tokenizer, with the chat template that it was trained with."""

    def load_whole(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Load it in float32, an adapter merged into its base, so that it stops where it was trained to."""

    def save(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path) -> None:
        """Write model and tokenizer into a folder, each file whole or not at all."""


@dataclass(frozen=True)
class Written:
    """What is known about a model after it was written.

    Attributes:
        found: What was checked, as Korean log lines.
        usage: How the model card says to use it, as Markdown. `{folder}` stands for the folder.
        commands: What it is, in Korean → the words of a command that runs it with another program. A word `{folder}`
            stands for the folder.
    """

    found: Sequence[str] = ()
    usage: str = ""
    commands: Sequence[tuple[str, Sequence[str]]] = ()


@dataclass(frozen=True)
class ExportFormat:
    """One way of writing a fine-tuned model.

    Attributes:
        name: The format's name, and that of the folder inside output_dir that it is written to by default.
        write: Writes a model into an empty folder.
        done: What is logged afterwards, in Korean. The folder is appended.
        loads_here: Whether this program's other commands load what was written.
    """

    name: str
    write: Callable[[FineTunedModel, Path], Written]
    done: str
    loads_here: bool = False


def require(what: str, **packages: str) -> None:
    """Check that optional packages are installed.

    Args:
        what: The format, as the error names it.
        **packages: Name of a module → of its package.

    Raises:
        SettingsError: Some are missing. It shows the command that installs them.
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise SettingsError(
            f"{what} 형식으로 내보내려면 필요한 패키지가 없습니다: {', '.join(missing)}",
            where=f"--format {what}",
            remedy=f"`pip install {typed(*missing)}` 명령으로 설치하고 다시 실행하세요.",
        )
