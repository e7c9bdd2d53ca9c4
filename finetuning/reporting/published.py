"""Whether a run reproduced the published score that its recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetuning.config.schema import Settings
from finetuning.reporting.metric_names import display_name

# Share of the published rows that a comparable run has: a few may be skipped, and published data sets get corrected.
_LEAST, _MOST = 0.98, 1.02


@dataclass(frozen=True)
class Verdict:
    """Comparison of a run's score with the published one.

    Attributes:
        outcome: Whether the score was reproduced.
        text: The verdict in Korean, for the log and the model card.
        measured: The run's score, or None where the two are not comparable.
    """

    outcome: Literal["reproduced", "short", "not comparable"]
    text: str
    measured: float | None = None


def judge(settings: Settings, rows: Mapping[str, int], metrics: Mapping[str, float]) -> Verdict | None:
    """Compare a run's final metrics with the published score; at most `band` below it counts as reproduced.

    Args:
        settings: The run's settings, whose section `expectation` names the score.
        rows: Number of rows of each split.
        metrics: Metrics of the final evaluation.

    Returns:
        The verdict, or None where the settings name no score.
    """
    expected = settings.expectation
    if expected.metric is None or expected.score is None:
        return None
    name = display_name(expected.metric)
    published = f"{name} {expected.score:.4f}, {expected.source or '출처 없음'}"
    reason = _why_not_comparable(settings, rows, metrics)
    if reason:
        return Verdict("not comparable", f"공개된 점수({published})와 비교하지 않습니다. {reason}")
    measured = metrics[expected.metric]
    least = expected.score - expected.band
    reproduced = measured >= least
    result = "공개된 점수를 재현했습니다" if reproduced else "공개된 점수에 못 미칩니다"
    return Verdict(
        "reproduced" if reproduced else "short",
        f"{result}. {name} {measured:.4f} (공개된 점수: {published}, {least:.4f} 이상이면 재현)",
        measured,
    )


def public_name(name: str) -> str:
    """Shorten a local path to its last part, since the rest may be private."""
    return Path(name).name if Path(name).expanduser().exists() else name


def _why_not_comparable(settings: Settings, rows: Mapping[str, int], metrics: Mapping[str, float]) -> str:
    """Return the reason in Korean, or an empty string where the run is comparable."""
    expected, data = settings.expectation, settings.data
    if expected.model is not None and not _is_model(settings.model.name, expected.model):
        return f"그 점수는 {expected.model} 모델의 것인데 이 학습의 모델은 {public_name(settings.model.name)}입니다."
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
    """Return whether a name is that Hub id, or a folder named after it: `.../klue-roberta-base`."""
    if name == published:
        return True
    path = Path(name).expanduser()
    spelled = {"/".join(path.parts[-2:]), path.name.replace("--", "/"), path.name.replace("-", "/", 1)}
    return path.is_dir() and published.casefold() in {spelling.casefold() for spelling in spelled}
