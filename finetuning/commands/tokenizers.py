"""Report how well the tokenizer fits the training texts, for `plan` and the start of a run; compare several models."""

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
    """Measure the tokenizer on the training texts, and those of other models; warn of those that do not suit Korean.

    Args:
        prepared: The run's data.
        tokenizer: The run's tokenizer.
        max_length: Most tokens of an example.
        others: Other models to compare, as Hub ids or folders.

    Returns:
        One line for the log, or a table if there are other models.
    """
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
        if unknown := fit.unknown_line():
            _log.info("%s: %s", model_name, unknown)
    if not others:
        return [fits[name].line()]
    return [f"tokenizer 비교 (학습 데이터 {fits[name].rows:,}행):", *(f"  {line}" for line in table_of(fits))]


def _fit(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Fit:
    return measure(prepared.splits["train"].table, prepared.session.task, tokenizer, prepared.label_names, max_length)
