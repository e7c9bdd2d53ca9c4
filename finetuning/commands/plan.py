"""plan: what a run would do, before anything is trained."""

from __future__ import annotations

import argparse

import numpy as np

from finetuning.commands.session import Session, prepare
from finetuning.commands.tokenizers import tokenizer_lines
from finetuning.planning.fit import Fitting, fitting_of, table, what_would_fit

_SAMPLED_WINDOWS = 50


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Prints the rows, text lengths, windows, padding, memory and one example as it will be read; loads no weights."""
    from finetuning.windows.order import windows_per_epoch

    tokenizer = session.models.load_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    prepared = prepare(session, tokenizer, max_length)
    session, splits, label_names, examples = prepared.session, prepared.splits, prepared.label_names, prepared.examples
    settings, train = session.settings, examples["train"]
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * session.runtime.processes
    windows = windows_per_epoch(len(train), window)
    lines = [
        f"태스크: {session.task.name}, 모델: {settings.model.name}",
        *(f"{name}: {len(splits[name]):,}행 → 예제 {len(made):,}개" for name, made in examples.items()),
    ]
    if label_names:
        counts = session.data.label_counts(splits["train"])
        lines.append("라벨: " + ", ".join(f"{name} {counts[name]:,}" for name in label_names))
    fitting = fitting_of(session, tokenizer, label_names, max_length, train, examples["validation"])
    estimate = fitting.estimate(fitting.asked())
    quantiles = np.percentile(train.lengths, (50, 90, 99, 100)).astype(int)
    lines += [
        "토큰 길이: 50% {:,}, 90% {:,}, 99% {:,}, 최대 {:,}".format(*quantiles) + f" (max_length {max_length:,})",
        f"max_length에서 잘린 텍스트: {int(np.sum(train.table['truncated'][:])):,}개",
        f"윈도(한 스텝): 예제 {window:,}개, epoch마다 {windows:,}스텝, 모두 {windows * settings.training.epochs:,}스텝",
        _padding(fitting, window),
        *tokenizer_lines(prepared, tokenizer, max_length, arguments.compare or ()),
        *table(fitting, estimate),
        *([what_would_fit(fitting)] if estimate.total > fitting.room else []),
        "첫 예제 (학습하는 토큰은 ⟦ ⟧ 사이에 표시합니다):" if session.task.scores.final_texts else "첫 예제:",
        session.task.encodes.describe(train.fetch([0])[0], tokenizer),
    ]
    print("\n".join(lines))


def _padding(fitting: Fitting, window: int) -> str:
    """Return padding's share of all computed tokens: as the run cuts its windows, and in batches as they come."""
    from finetuning.windows.order import epoch_order, window_of, windows_per_epoch

    train, settings, layout = fitting.train, fitting.session.settings, fitting.layout
    lengths, budget = train.lengths, settings.data.batch_size * fitting.max_length
    order = epoch_order(len(train), settings.training.seed, 0)
    real = computed = plain = 0
    for number in range(min(_SAMPLED_WINDOWS, windows_per_epoch(len(train), window))):
        indices = window_of(order, window, 0, number).indices
        real += int(lengths[indices].sum())
        computed += sum(layout.computed_tokens(cut, lengths) for cut in layout.cut(indices, lengths, budget))
        for start in range(0, len(indices), settings.data.batch_size):
            batch = lengths[indices[start : start + settings.data.batch_size]]
            plain += len(batch) * int(batch.max())
    share, unsorted = 100 * (1 - real / computed), 100 * (1 - real / plain)
    return f"패딩: {share:.1f}% ({layout.label}), 순서대로 나누면 {unsorted:.1f}%"
