"""A task: the facts about one kind of fine-tuning, and its four parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.config.schema import Settings
from finetuning.tasks.parts import RowEncoder, RowReader
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.scorer import Scorer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Task(ABC):
    """One kind of fine-tuning. A task holds settings only: no model, no data, no device.

    A subclass states the facts below and builds its parts in `__init__`. Parts are independent of each other, so a
    new task can take those of an existing one and write only what differs. A part that needs another one is given it.

    Args:
        settings: Settings of the run.

    Attributes:
        name: The task's name in `model.task`.
        aliases: Other accepted spellings of the name.
        auto_class: Name of the transformers class that loads the model.
        pipeline: Name of the transformers pipeline that uses the model, or None if there is none.
        objective: Name of the loss of a window (`finetuning/windows/objectives/registry.py`).
        usage: Python lines that use `model` and `tokenizer`, for the model card where no pipeline does the same.
        reads: Which columns the task reads, and how cells become a clean row.
        encodes: How rows become token ids, and examples a batch.
        scores: Loss, predictions and metrics.
        shows: Rows and predictions as a person reads them.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    auto_class: ClassVar[str]
    pipeline: ClassVar[str | None]
    usage: str = ""
    objective: ClassVar[str] = "summed"

    settings: Settings
    reads: RowReader
    encodes: RowEncoder
    scores: Scorer
    shows: Presenter

    @abstractmethod
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def meant_by(cls, settings: Settings) -> str:
        """Return the name of the task that settings naming this one ask for: this task, or a more specific one."""
        return cls.name

    def exported(self, model: PreTrainedModel) -> torch.nn.Module:
        """Return what an export to ONNX runs: the model, or one with what the task does to its outputs."""
        return model

    def beside_model(self, model: PreTrainedModel, max_length: int) -> Mapping[str, Any]:
        """Return what other programs read beside the model's own files.

        Args:
            model: The model that is saved.
            max_length: Most tokens of an example.

        Returns:
            JSON values by the file's path below the model's folder.
        """
        return {}
