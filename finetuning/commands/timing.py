"""How long a run will take: a few of its windows trained for real, and a few rows evaluated."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.commands.session import Prepared
from finetuning.korean.durations import duration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOWS = 4  # the first of them warms up and is not timed
_ROWS = 64


def time_lines(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Load the model, train a few windows and evaluate a few rows, and extrapolate by tokens.

    Nothing is kept: the run's folder is a temporary one.

    Args:
        prepared: The data of the run, under its settings.
        tokenizer: The model's tokenizer.
        max_length: Most tokens of an example.

    Returns:
        A Korean line with the estimate.
    """
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.windows.order import order_of, window_of
    from training_manager import TrainingManager

    session, train, validation = prepared.session, prepared.examples["train"], prepared.examples["validation"]
    evaluator = session.evaluator_to_train(tokenizer, prepared.label_names, max_length)
    with tempfile.TemporaryDirectory() as folder:
        manager = TrainingManager(
            session.settings, evaluator, train, validation, CheckpointStore(Path(folder), 1), lambda *_: None,
            session.stop.pending, {}, Path(folder),
        )  # fmt: skip
        manager.model.train()
        manager.prepare()
        order, tokens = order_of(train, session.settings.training.seed, 0), 0
        started = time.perf_counter()
        for number in range(min(_WINDOWS, manager.windows)):
            window = window_of(order, manager.window_size, 0, number)
            manager.train_window(manager.plan(window))
            session.runtime.wait_for_device()
            if number == 0 and manager.windows > 1:
                started = time.perf_counter()
            else:
                tokens += int(train.lengths[window.indices].sum())
        per_token = (time.perf_counter() - started) / max(1, tokens)
    few = validation.of_first_rows(_ROWS)
    started = time.perf_counter()
    evaluator.evaluate(few, session.settings.training.seed, generated_rows=0)
    per_evaluated = (time.perf_counter() - started) / max(1, int(few.lengths.sum()))
    mean = float(train.lengths.mean())
    training = per_token * mean * train.per_epoch * session.settings.training.epochs
    evaluating = per_evaluated * int(validation.lengths.sum()) * session.settings.training.epochs
    shortest = " (텍스트 생성 시간은 뺀 값)" if evaluator.task.scores.final_texts else ""
    return [
        f"예상 시간: 학습 {duration(training)}, epoch마다의 검증 {duration(evaluating)}{shortest}. "
        f"{min(_WINDOWS, manager.windows)}스텝을 실행해 추정했습니다."
    ]
