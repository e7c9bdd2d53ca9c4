"""What plan and the start of a run say of the tokenizer; several models' tokenizers side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetuning.commands.session import Prepared
from finetuning.planning.tokenizer_fit import Fit, measure, table_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


def tokenizer_lines(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, max_length: int, others: Sequence[str]
) -> list[str]:
    """How the tokenizer fits the training texts, and beside it those of other models; warns of those without Korean."""
    session = prepared.session
    name = session.settings.model.name
    fits = {name: _fit(prepared, tokenizer, max_length)}
    for other in others:
        model = session.settings.model.model_copy(update={"name": other, "revision": None})
        settings = session.settings.model_copy(update={"model": model})
        models = type(session.models)(settings, type(session.task)(settings))
        loaded = models.load_tokenizer()
        fits[other] = _fit(prepared, loaded, models.usable_length(loaded))
    for model_name, fit in fits.items():
        if warning := fit.warning(session.task.auto_class):
            _log.warning("%s: %s", model_name, warning)
    if not others:
        return [fits[name].line()]
    return [f"tokenizer 비교 (학습 데이터 {fits[name].rows:,}행):", *(f"  {line}" for line in table_of(fits))]


def _fit(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Fit:
    return measure(prepared.splits["train"].table, prepared.session.task, tokenizer, prepared.label_names, max_length)
