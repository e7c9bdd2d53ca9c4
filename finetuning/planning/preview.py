"""The lines that `plan` prints about padding and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.models.combinations import check_combination
from finetuning.planning.fit import Fitting, first_that_fits
from finetuning.windows.order import order_of, window_of, windows_per_epoch

if TYPE_CHECKING:
    from finetuning.planning.types import Estimate

_GIB = 1024**3
_SAMPLED_WINDOWS = 50


def padding_line(fitting: Fitting, window: int) -> str:
    """Describe how much of the layers' work is padding.

    Args:
        fitting: The run.
        window: Examples per window.

    Returns:
        A Korean line: padding's share of the computed tokens, and its share if batches were cut without sorting.
    """
    train, settings, layout = fitting.source.train, fitting.settings, fitting.layout
    lengths, budget = train.sequence_lengths, settings.data.batch_size * settings.data.max_length
    order = order_of(train, settings.training.seed, 0)
    real = computed = plain = 0
    for number in range(min(_SAMPLED_WINDOWS, windows_per_epoch(train.per_epoch, window))):
        indices = train.sequences_of(window_of(order, window, 0, number).indices)
        real += int(lengths[indices].sum())
        computed += sum(layout.computed_tokens(cut, lengths) for cut in layout.cut(indices, lengths, budget))
        for start in range(0, len(indices), settings.data.batch_size):
            batch = lengths[indices[start : start + settings.data.batch_size]]
            plain += len(batch) * int(batch.max())
    share, unsorted = 100 * (1 - real / computed), 100 * (1 - real / plain)
    attention = f", attention: {layout.attention.name}" if layout.attention.line() else ""
    return f"패딩: {share:.1f}% ({layout.label}{attention}), 정렬하지 않고 나누면 {unsorted:.1f}%"


def memory_lines(fitting: Fitting, estimate: Estimate) -> list[str]:
    """Return how weights are stepped and the estimate in GiB beside the limit; if it does not fit, settings that do."""
    lines = [*fitting.stepping_lines(), *memory_table(fitting, estimate)]
    return lines if estimate.total <= fitting.room else [*lines, *what_would_fit(fitting)]


def memory_table(fitting: Fitting, estimate: Estimate) -> list[str]:
    """Return the estimate in GiB beside the limit, a line for each part."""
    method = "실제 값 없이(meta 텐서) 한 스텝을 돌려 추정" if estimate.counted else "간이 계산"
    parts = [
        ("가중치", estimate.weights),
        ("기울기", estimate.gradients),
        ("옵티마이저", estimate.optimizer),
        ("활성값과 임시 메모리", estimate.activations),
        ("logits", estimate.logits),
        *([("라이브러리와 할당자의 여유", estimate.overhead)] if estimate.overhead else []),
        *([("프로그램", fitting.taken)] if fitting.taken else []),
        ("합계", estimate.total + fitting.taken),
    ]
    saving = (estimate.saving + fitting.taken) / _GIB
    trained = f" (학습 {estimate.trained:,}개)" if estimate.trained < estimate.parameters else ""
    fits = "충분합니다" if estimate.total <= fitting.room else "부족합니다"
    return [
        f"파라미터: {estimate.parameters:,}개{trained}",
        f"예상 메모리 (GiB, {method}):",
        *(f"  {name}: {size / _GIB:.2f}" for name, size in parts),
        *([f"  체크포인트를 저장하는 동안: {saving:.2f} (복사본을 만들 메모리가 있을 때)"] if estimate.copy else []),
        f"  한도 {fitting.limit / _GIB:.2f} GiB, {fits}",
    ]


def process_lines(fitting: Fitting, estimate: Estimate, processes: int) -> list[str]:
    """Return what each of several processes would hold and receive, with whole models and with divided ones.

    Args:
        fitting: The run.
        estimate: Its estimate in one process.
        processes: Number of processes, all on devices like this one.

    Returns:
        A heading, then a line for each way.
    """
    lines = [f"프로세스 {processes:,}개일 때 프로세스마다 (측정값이 아니라 계산한 값):"]
    for shard, shards in (("none", 1), ("full", processes)):
        if refusal := _refusal(fitting.settings, shard):
            lines.append(f"  distributed.shard: {shard}: {refusal}")
            continue
        division = fitting.division(processes, shards)
        held, received = division.held(estimate), division.received(estimate)
        fits = "충분합니다" if held.total <= fitting.room else "부족합니다"
        lines.append(
            f"  distributed.shard: {shard}: 메모리 {(held.total + fitting.taken) / _GIB:.2f} GiB({fits}), "
            f"한 스텝에 받는 양 {received / _GIB:.2f} GiB"
        )
    return lines


def _refusal(settings: Settings, shard: str) -> str | None:
    """Return why a run under these settings cannot divide its weights this way, in Korean; None if it can."""
    distributed = settings.distributed.model_copy(update={"shard": shard})
    try:
        check_combination(settings.model_copy(update={"distributed": distributed}))
    except SettingsError as error:
        return error.what
    return None


def what_would_fit(fitting: Fitting) -> list[str]:
    """Return the cheapest settings that fit where those asked for do not, and what each of them costs."""
    what = "학습할 때 자동으로 적용할 설정"
    found = first_that_fits(fitting.automatic(), fitting.estimate, fitting.room)
    if found is None:
        what = "메모리에 맞는 설정"
        found = first_that_fits(fitting.suggested(), fitting.estimate, fitting.room)
    if found is None:
        return ["메모리에 맞는 설정을 찾지 못했습니다. 더 작은 모델을 고르세요."]
    variant, estimate = found
    total = (estimate.total + fitting.taken) / _GIB
    costs = {rung.key: rung.cost for rung in variant.rungs}  # of a key that was set twice the later one's
    return [
        f"{what} (약 {total:.2f} GiB): {variant.flags()}",
        *(f"  {key}: {cost}" for key, cost in costs.items()),
    ]
