"""Which classification task the settings, and the labels in the data, ask for."""

from __future__ import annotations

from collections.abc import Mapping

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.classification.labels import as_number

SINGLE, MULTI_LABEL, REGRESSION = "text-classification", "multi-label-classification", "text-regression"
_MOSTLY = 0.9  # share of rows whose label is a number


def by_settings(settings: Settings) -> str:
    """Return the name of the task that settings with `text-classification` ask for.

    Args:
        settings: `model.num_labels: 1` asks for regression, `data.multi_label` for several labels for each text.

    Returns:
        SINGLE, MULTI_LABEL or REGRESSION.

    Raises:
        SettingsError: The settings ask for both.
    """
    if settings.model.num_labels == 1 and settings.data.multi_label:
        raise SettingsError(
            "회귀(model.num_labels: 1)와 다중 라벨 분류(data.multi_label: true)를 함께 할 수 없습니다.",
            where="model.num_labels, data.multi_label",
            remedy="점수를 예측하려면 multi_label을, 라벨을 여럿 고르려면 num_labels를 지우세요.",
        )
    if settings.model.num_labels == 1:
        return REGRESSION
    return MULTI_LABEL if settings.data.multi_label else SINGLE


def are_scores(train_labels: Mapping[str, int], settings: Settings) -> bool:
    """Decide whether labels are numbers, some with a fraction, so that regression is meant.

    A few rows whose label is not a number do not change that: regression counts and reports them.

    Args:
        train_labels: Count of each label in train.
        settings: With `model.num_labels` set the labels are classes, whatever they look like.

    Returns:
        Whether regression is meant.
    """
    numbers = {label: number for label in train_labels if (number := as_number(label)) is not None}
    rows = sum(train_labels[label] for label in numbers)
    if settings.model.num_labels is not None or rows < _MOSTLY * sum(train_labels.values()):
        return False
    return not all(number.is_integer() for number in numbers.values())
