"""plan: show what a run would do, before anything is trained."""

from __future__ import annotations

import argparse

import numpy as np

from finetuning.cells import printable
from finetuning.commands.fitting import fitting_of
from finetuning.commands.foresight import baseline_lines, known_of
from finetuning.commands.session import Session, prepare
from finetuning.commands.timing import time_lines
from finetuning.commands.tokenizers import tokenizer_lines
from finetuning.commands.what_next import step_to_train, tell
from finetuning.data.table import numbers
from finetuning.planning.preview import memory_lines, padding_line, process_lines
from finetuning.reporting.findings import finding_lines, foreseen


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Print what the run would read and do, what to change, and one example. Load no weights, but for --time."""
    from finetuning.data.mixing import mix_lines
    from finetuning.windows.order import windows_per_epoch

    tokenizer = session.models.load_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    prepared = prepare(session, tokenizer, max_length)
    session, splits, label_names, examples = prepared.session, prepared.splits, prepared.label_names, prepared.examples
    settings, train = session.settings, examples["train"]
    processes = arguments.processes or 1
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps * processes
    windows = windows_per_epoch(train.per_epoch, window)
    lines = [
        f"태스크: {session.task.name}, 모델: {settings.model.name}",
        *(f"{name}: {len(splits[name]):,}행 → 예제 {len(made):,}개" for name, made in examples.items()),
        *mix_lines(train.drawn),
    ]
    if label_names:
        counts = session.data.label_counts(splits["train"])
        lines.append("라벨: " + ", ".join(f"{name} {counts[name]:,}" for name in label_names))
    lines += baseline_lines(prepared)
    fitting = fitting_of(session, tokenizer, label_names, max_length, train, examples["validation"])
    estimate = fitting.estimate(fitting.settings)
    quantiles = np.percentile(train.lengths, (50, 90, 99, 100)).astype(int)
    lines += [
        "토큰 길이: 절반이 {:,} 이하, 90%가 {:,} 이하, 99%가 {:,} 이하, 최대 {:,}".format(*quantiles),
        f"max_length({max_length:,})에서 잘린 텍스트: {int(numbers(train.table, 'truncated').sum()):,}개",
        f"한 스텝에 예제 {window:,}개, epoch마다 {windows:,}스텝, 전체 {windows * settings.training.epochs:,}스텝",
        padding_line(fitting, window),
        *tokenizer_lines(prepared, tokenizer, max_length, arguments.compare or ()),
        *memory_lines(fitting, estimate),
        *(process_lines(fitting, estimate, processes) if processes > 1 else ()),
        *session.origins.lines(settings),
        *finding_lines("조언", foreseen(known_of(prepared, max_length))),
        *(time_lines(prepared, tokenizer, max_length) if arguments.time else ()),
        "첫 예제 (학습하는 토큰은 ⟦ ⟧ 사이에 표시합니다):" if session.task.scores.final_texts else "첫 예제:",
    ]
    example = session.task.encodes.describe(train.fetch([0])[0], tokenizer)
    print("\n".join(printable(line) for line in lines))
    print(printable(example, keep_lines=True))
    tell([step_to_train(arguments)])
