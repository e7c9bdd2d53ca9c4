"""Whether a run came to the score that is published for its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetuning.config.schema import Settings
from finetuning.reporting.metric_names import METRIC_NAMES

_LEAST, _MOST = 0.98, 1.02  # of the published rows: a few may be skipped, or published sets mended


@dataclass(frozen=True)
class Verdict:
    """What a run came to beside the published score; measured is None where the two cannot be compared."""

    outcome: Literal["reproduced", "short", "not comparable"]
    text: str
    measured: float | None = None


def judge(settings: Settings, rows: Mapping[str, int], metrics: Mapping[str, float]) -> Verdict | None:
    """The verdict on a run's final metrics; rows: how many there are of each split. None where nothing is expected.

    Reproduced is what is not below the published score by more than the band.
    """
    expected = settings.expectation
    if expected.metric is None or expected.score is None:
        return None
    name = METRIC_NAMES.get(expected.metric, expected.metric)
    published = f"{name} {expected.score:.4f}, {expected.source or '출처 없음'}"
    reason = _why_not(settings, rows, metrics)
    if reason:
        return Verdict("not comparable", f"공개된 점수({published})와 견주지 않습니다. {reason}")
    measured = metrics[expected.metric]
    least = expected.score - expected.band
    reproduced = measured >= least
    said = "공개된 점수를 재현했습니다" if reproduced else "공개된 점수에 못 미칩니다"
    return Verdict(
        "reproduced" if reproduced else "short",
        f"{said}. {name} {measured:.4f} (공개된 점수: {published}, {least:.4f}부터 재현)",
        measured,
    )


def _why_not(settings: Settings, rows: Mapping[str, int], metrics: Mapping[str, float]) -> str:
    expected, data = settings.expectation, settings.data
    if expected.model is not None and not _is_model(settings.model.name, expected.model):
        return f"그 점수는 {expected.model} 모델의 것인데 이 학습의 모델은 {settings.model.name}입니다."
    if any(limit is not None for limit in (data.train_rows, data.validation_rows, data.test_rows)):
        return "데이터의 일부만 썼습니다."
    test = rows.get("test", 0)
    used = sum(rows.values()) - (test if data.test_split == 0 else 0)
    if expected.rows is not None and not _LEAST * expected.rows <= used <= _MOST * expected.rows:
        return f"학습과 검증 데이터가 모두 {expected.rows:,}행이어야 하는데 {used:,}행입니다."
    if expected.test_rows is not None and not _LEAST * expected.test_rows <= test <= _MOST * expected.test_rows:
        return f"테스트 데이터가 {expected.test_rows:,}행이어야 하는데 {test:,}행입니다."
    if expected.metric not in metrics:
        return f"이 학습에는 그 지표가 없습니다. 있는 지표: {', '.join(metrics)}"
    return ""


def _is_model(name: str, published: str) -> bool:
    """Whether a name is that Hub id, or a folder that says so: `.../klue-roberta-base` is klue/roberta-base."""
    if name == published:
        return True
    path = Path(name).expanduser()
    spelled = {"/".join(path.parts[-2:]), path.name.replace("--", "/"), path.name.replace("-", "/", 1)}
    return path.is_dir() and published.casefold() in {spelling.casefold() for spelling in spelled}
