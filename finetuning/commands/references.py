"""The model that answers are compared with, under losses that need one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetuning.commands.session import Session
from finetuning.training.references import needs_references, with_references

if TYPE_CHECKING:
    from finetuning.data.examples import Examples
    from finetuning.inference.evaluator import Evaluator

_log = logging.getLogger(__name__)


def compared(
    session: Session, evaluator: Evaluator, splits: Mapping[str, Examples], starts_here: bool
) -> Mapping[str, Examples]:
    """Give examples the log-probabilities that their loss compares with.

    Args:
        session: The session; its settings may name the model to compare with.
        evaluator: Holds the model that is trained or evaluated.
        splits: Examples by split.
        starts_here: Whether that model is the one to compare with where the settings name none.

    Returns:
        The examples; unchanged where the loss compares with nothing, or nothing is known to compare with.
    """
    if not needs_references(evaluator):
        return splits
    asked = session.settings.preference.reference_model
    if asked is None:
        if starts_here:
            return with_references(evaluator, splits, session.data.cache)
        _log.info(
            "학습 전 모델과 비교하는 손실과 보상은 계산하지 않습니다. 계산하려면 그 모델을 "
            "--set preference.reference_model=폴더 플래그로 지정하세요."
        )
        return splits
    models = session.with_settings(session.settings, session.task).models
    models.name = asked
    other = session.evaluator(models.load_saved, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    return with_references(other, splits, session.data.cache)
