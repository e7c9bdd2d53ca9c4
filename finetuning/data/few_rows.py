"""Data that train nothing, or whose metrics say nothing: one label, a row a label, a handful of rows to validate on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.data.columns import likely_labels
from finetuning.data.rows import Rows
from finetuning.data.sources import find_sources
from finetuning.files import typed

_log = logging.getLogger(__name__)
_FEW = 10  # rows of a validation split, of which one is a tenth of its accuracy
_SHOWN = 5


def warn_of_few(splits: Mapping[str, Rows], share: float) -> None:
    """Warn where the validation split has so few rows that its metrics mean little.

    Args:
        splits: The splits of a run.
        share: `data.validation_split`.
    """
    count = len(splits["validation"])
    if count >= _FEW:
        return
    larger = f"하거나, data.validation_split(지금 {share:g})을 늘리세요." if _is_held_out(splits) else "하세요."
    _log.warning(
        "검증 데이터가 %d행뿐입니다. 점수가 우연에 크게 좌우되므로 모델을 고르거나 성능을 판단하기 어렵습니다. "
        "예제를 더 모으거나 검증 파일을 따로 준비%s",
        count, larger,
    )  # fmt: skip


def check_every_label_stays(splits: Mapping[str, Rows], taken: Collection[str]) -> None:
    """Check that train has every label that validation, held out of it, has.

    Args:
        splits: The splits of a run.
        taken: Labels of validation that train lacks.

    Raises:
        DataError: Each label has one row only.
    """
    if taken and _is_held_out(splits):
        rows = len(splits["train"]) + len(splits["validation"])
        raise DataError(
            f"라벨마다 예제가 하나뿐이어서 검증 데이터를 나눌 수 없습니다: {', '.join(sorted(taken)[:_SHOWN])}",
            where=f"{splits['train'].where} ({rows:,}행)",
            remedy="라벨마다 예제가 둘은 있어야 하고, 의미 있는 결과를 얻으려면 적어도 수십 행이 필요합니다. "
            "예제를 더 모으세요.",
        )


def with_columns(error: DataError, train: Rows, settings: Settings) -> DataError:
    """Name the file and the column in an error about the labels of train, and other columns that may be meant.

    Args:
        error: What a task says of its labels.
        train: The rows with the labels.
        settings: The settings in force. With `model.num_labels` the user knows the column.

    Returns:
        The error to raise.
    """
    column, remedy = train.columns.get("label", settings.data.label_column), error.remedy
    if settings.model.num_labels is None:
        source = settings.data.of_mixed(settings.data.mix[0]) if settings.data.mix else settings.data
        others = likely_labels(find_sources(source)["train"], set(train.columns.values()))
        shown = [f"{name}({', '.join(labels[:3])})" for name, labels in list(others.items())[:_SHOWN]]
        if shown:
            flag = f"--label_column {typed(next(iter(others)))}"
            remedy = f"라벨로 보이는 다른 열: {', '.join(shown)}. 그 열이면 {flag} 플래그를 쓰세요. {remedy}"
    return DataError(error.what, where=f"{train.where}, 라벨 열 '{column}'", remedy=remedy)


def _is_held_out(splits: Mapping[str, Rows]) -> bool:
    return "validation" in splits and splits["validation"].where == splits["train"].where and not splits["train"].parts
