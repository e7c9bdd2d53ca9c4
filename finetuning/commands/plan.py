"""plan: what a run would do, before anything is trained."""

from __future__ import annotations

import argparse

import numpy as np

from finetuning.commands.session import Workbench, prepare
from finetuning.commands.tokenizers import tokenizer_lines
from finetuning.planning.fit import Fitting, fitting_of, table, what_would_fit

_SAMPLED_WINDOWS = 50


def run(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Prints the rows, text lengths, windows, padding, memory and one example as it will be read; loads no weights."""
    from finetuning.windows.order import windows_per_epoch

    tokenizer = bench.models.load_tokenizer()
    max_length = bench.models.usable_length(tokenizer)
    prepared = prepare(bench, tokenizer, max_length)
    bench, splits, label_names, examples = prepared.bench, prepared.splits, prepared.label_names, prepared.examples
    settings, train = bench.settings, examples["train"]
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * bench.accelerator.num_processes
    windows = windows_per_epoch(len(train), window)
    lines = [
        f"태스크: {bench.task.name}, 모델: {settings.model.name}",
        *(f"{name}: {len(splits[name]):,}행 → 예제 {len(made):,}개" for name, made in examples.items()),
    ]
    if label_names:
        counts = bench.data.label_counts(splits["train"])
        lines.append("라벨: " + ", ".join(f"{name} {counts[name]:,}" for name in label_names))
    fitting = fitting_of(bench, tokenizer, label_names, max_length, train, examples["validation"])
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
        "첫 예제 (학습하는 토큰은 ⟦ ⟧ 사이에 표시합니다):" if bench.task.scores.final_texts else "첫 예제:",
        bench.task.encodes.describe(train.fetch([0])[0], tokenizer),
    ]
    print("\n".join(lines))


def _padding(fitting: Fitting, window: int) -> str:
    """Padding's share of all tokens: cut as the program cuts windows, against batches in the order they come."""
    train, max_length, settings, way = fitting.train, fitting.max_length, fitting.bench.settings, fitting.way()
    from finetuning.windows.order import epoch_order, partition, window_of, windows_per_epoch
    from finetuning.windows.packing import pack_window

    order, budget = epoch_order(len(train), settings.training.seed, 0), settings.data.batch_size * max_length
    real = ours = plain = 0
    for number in range(min(_SAMPLED_WINDOWS, windows_per_epoch(len(train), window))):
        indices = window_of(order, window, 0, number).indices
        real += int(train.lengths[indices].sum())
        if way == "one row":
            ours = real
        elif way == "packed":
            for rows in pack_window(indices, train.lengths, max_length, budget):
                ours += len(rows) * max(int(train.lengths[row].sum()) for row in rows)
        else:
            ours += sum(len(cut) * int(train.lengths[cut].max()) for cut in partition(indices, train.lengths, budget))
        for start in range(0, len(indices), settings.data.batch_size):
            batch = train.lengths[indices[start : start + settings.data.batch_size]]
            plain += len(batch) * int(batch.max())
    how = {"one row": "한 행에 이어 붙임", "packed": "packing"}.get(way, "길이별로 나눔")
    return f"패딩: {100 * (1 - real / ours):.1f}% ({how}), 순서대로 나누면 {100 * (1 - real / plain):.1f}%"
