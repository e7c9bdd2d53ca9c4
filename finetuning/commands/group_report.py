"""The end of a sweep or of several seeds: one table, the best run by validation, failures and disk use."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from exceptions import FinetuningError
from finetuning.checkpoints.names import CHECKPOINTS
from finetuning.commands.run_group import Outcome, bytes_in
from finetuning.korean.durations import duration
from finetuning.korean.particles import with_particle
from finetuning.reporting.metric_names import display_name, lower_is_better
from finetuning.reporting.next_steps import lines_of, next_commands, trained_model
from finetuning.reporting.run_rows import RunRow, score_text, verdict_text
from finetuning.reporting.text_table import table_lines

_NOTHING = "-"
_MIB, _GIB = 2**20, 2**30


def table_of(outcomes: Sequence[Outcome], heading: str) -> list[str]:
    """Render the runs of a group, the best of validation first.

    Args:
        outcomes: How the runs ended.
        heading: What the first column is called.

    Returns:
        The lines of the table.
    """
    metric = next((one.row.metric for one in outcomes if one.row is not None and one.row.metric), "")
    name = display_name(metric) if metric else "지표"
    split = next((one.row.split for one in outcomes if one.row is not None and one.row.split), "")
    header = [heading, f"검증 {name}", f"{split or '마지막'} {name} (95% 신뢰구간)", "스텝", "시간", "상태"]
    ordered = sorted(outcomes, key=lambda one: _rank(one, lower_is_better(metric)))
    return table_lines(header, [_cells(one) for one in ordered], right=frozenset({1, 3, 4}))


def best_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the finished run that is best on validation; None without one."""
    ended = [one for one in outcomes if _ended(one) is not None]
    if not ended or ended[0].row is None:
        return None
    return min(ended, key=lambda one: _rank(one, lower_is_better(one.row.metric if one.row else "")))


def best_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Say which run is best, and by what."""
    best = best_of(outcomes)
    row = best.row if best is not None else None
    if best is None or row is None or row.validation is None:
        return []
    named = f"검증 {display_name(row.metric)} {row.validation:.4f}"
    lines = [f"가장 좋은 학습 ({named}): {best.member.folder.name}"]
    if row.split == "test":
        lines.append("  검증 점수로 골랐으므로, 보고서나 논문에는 이 학습의 test 점수를 쓰세요.")
    else:
        lines.append(
            "  여럿 가운데 검증 점수로 고른 것이어서 그 점수는 실제보다 높을 수 있습니다. 보고서나 논문에 쓸 점수는 "
            "--set data.test_split=0.1처럼 test 데이터를 따로 분리해 측정하세요."
        )
    return [*lines, *_chance_line(outcomes, row)]


def use_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Say how the model of the best run is used."""
    best = best_of(outcomes)
    row = best.row if best is not None else None
    if best is None or row is None:
        return []
    is_adapter = (row.folder / "adapter_config.json").exists()
    model = trained_model(best.member.combination.settings, row.task, row.folder, row.split, is_adapter, resumed_by=())
    return lines_of(next_commands(model))


def _chance_line(outcomes: Sequence[Outcome], best: RunRow) -> list[str]:
    """Say so where the best run is ahead of the next one by less than its score is uncertain."""
    scores = sorted(
        row.validation for one in outcomes if (row := _ended(one)) is not None and row.validation is not None
    )
    if len(scores) < 2 or best.interval is None:
        return []
    ahead = scores[1] - scores[0] if lower_is_better(best.metric) else scores[-1] - scores[-2]
    uncertain = (best.interval[1] - best.interval[0]) / 2
    if ahead >= uncertain:
        return []
    return [
        f"  1위와 2위의 검증 점수 차이가 {ahead:.4f}입니다. 이 데이터로 잰 점수의 오차(±{uncertain:.4f})보다 작으므로 "
        "순위는 우연일 수 있습니다. train --seeds 3으로 다시 확인해 보세요."
    ]


def spread_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Say how far the scores of runs that differ in their seed alone lie apart."""
    rows = [row for one in outcomes if (row := _ended(one)) is not None]
    if len(rows) < 2:
        return []
    scores = {"검증": _values(rows, "validation")}
    if rows[0].split == "test":
        scores["test"] = _values(rows, "score")
    scores = {split: values for split, values in scores.items() if len(values) >= 2}
    if not scores:
        return []
    metric = display_name(rows[0].metric)
    lines = [
        f"{split} {metric}: 평균 {mean(values):.4f} ± {stdev(values):.4f} "
        f"(시드 {len(values)}개, 최저 {min(values):.4f}, 최고 {max(values):.4f})"
        for split, values in scores.items()
    ]
    split, values = list(scores.items())[-1]
    score, apart = with_particle(f"{split} {metric}", "이/가"), max(values) - min(values)
    return [
        *lines,
        f"판정: 시드만 바꿔도 {score} {apart:.4f}까지 달라집니다. "
        "다른 설정과의 차이가 이보다 작으면 설정의 효과라고 하기 어렵습니다.",
        "  보고서나 논문에는 시드 하나의 점수가 아니라 평균과 표준편차를 쓰세요.",
    ]


def disk_line(outcomes: Sequence[Outcome], keeps_checkpoints: bool) -> list[str]:
    """Say what the finished runs take on the disk, and what was removed."""
    rows = [row for one in outcomes if (row := _ended(one)) is not None]
    if not rows:
        return []
    taken = sum(bytes_in(row.folder) for row in rows)
    line = f"디스크: 끝난 학습 {len(rows)}개가 {_size(taken)}"
    if keeps_checkpoints:
        line += f", 그 가운데 체크포인트가 {_size(sum(bytes_in(row.folder / CHECKPOINTS) for row in rows))}"
    freed = sum(one.freed for one in outcomes)
    if freed:
        removed = with_particle(_size(freed), "은/는")
        line += f". 체크포인트 {removed} 지우고 가장 좋은 모델만 남겼습니다(남기려면 --keep_checkpoints)"
    return [f"{line}."]


def raise_for_failures(outcomes: Sequence[Outcome], again: str) -> None:
    """Raise an error with the first failure's exit code where runs failed.

    Args:
        outcomes: How the runs ended.
        again: The command that tries them again.

    Raises:
        FinetuningError: A run failed.
    """
    failed = [one for one in outcomes if one.failure]
    if not failed:
        return
    error = FinetuningError(
        f"학습 {len(outcomes)}개 가운데 {len(failed)}개가 실패했습니다.",
        where=", ".join(f"{one.member.folder} ({one.failure})" for one in failed),
        remedy=f"위에 나온 오류를 고친 뒤 다시 실행하면 끝난 학습은 건너뜁니다: {again}",
    )
    code = failed[0].exit_code
    error.exit_code = code if 0 < code < 128 else 1
    raise error


def _cells(one: Outcome) -> list[str]:
    row = one.row
    if row is None:
        return [one.member.folder.name, _NOTHING, _NOTHING, _NOTHING, _NOTHING, f"실패: {one.failure}"]
    state = "끝남" if row.state == "finished" else verdict_text(row)
    return [
        one.member.folder.name,
        _NOTHING if row.validation is None else f"{row.validation:.4f}",
        score_text(row).removesuffix(f" {row.split}"),
        _NOTHING if row.steps is None else f"{row.steps:,}",
        _NOTHING if row.seconds is None else duration(row.seconds),
        f"실패: {one.failure}" if one.failure else state,
    ]


def _ended(one: Outcome) -> RunRow | None:
    return one.row if one.row is not None and one.row.state == "finished" else None


def _rank(one: Outcome, lower: bool) -> tuple[bool, float]:
    row = _ended(one)
    if row is None or row.validation is None:
        return True, 0.0
    return False, row.validation if lower else -row.validation


def _values(rows: Sequence[RunRow], name: str) -> list[float]:
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _size(number: int) -> str:
    return f"{number / _GIB:.1f} GiB" if number >= _GIB else f"{number / _MIB:.1f} MiB"
