"""Describe a session's run for planning: its outline, its examples and the available memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetuning.commands.session import Session
from finetuning.config.ladder import with_changes
from finetuning.config.schema import Settings
from finetuning.models.agreement import TokenRows, fit_special_ids
from finetuning.planning.fit import Fitting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.data.examples import Examples


def fitting_of(
    session: Session, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int,
    train: Examples, validation: Examples,
) -> Fitting:  # fmt: skip
    """Describe the run on this device before its model is loaded.

    With several processes the least memory of any process counts, since all must train with the same settings.
    """
    from finetuning.planning.workload import Source
    from memory_utils import MemoryManager
    from model_manager import ModelManager

    rows = TokenRows.of(tokenizer)

    def outline(settings: Settings) -> PreTrainedModel:
        model = ModelManager(settings, session.task, session.models.extension).outline(label_names, rows)
        fit_special_ids(model, tokenizer)
        session.task.scores.fit_model(model, tokenizer)
        return model

    memory = MemoryManager(session.settings, session.runtime.device, max_length)
    taken = memory.used() if session.runtime.is_cpu else 0
    return Fitting(
        settings=with_changes(session.settings, {"data.max_length": max_length}),
        given=session.given,
        source=Source(session.task, tokenizer, train, validation),
        outline=outline,
        runtime=session.runtime,
        taken=int(session.runtime.maximum(float(taken))),
        limit=-int(session.runtime.maximum(-float(memory.limit()))),
    )
