"""The log of a run on stderr: format, progress bar, and the lines about an evaluation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from finetuning.config.schema import LoggingSettings
from finetuning.reporting.metric_names import metrics_line
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_SAMPLES = 5


class _BarSafeHandler(logging.StreamHandler[Any]):
    """Writes log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(settings: LoggingSettings, is_main_process: bool) -> None:
    """Sends this program's log to stderr in the user's format; other libraries speak from WARNING up."""
    handler = _BarSafeHandler()
    handler.setFormatter(logging.Formatter(settings.format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level if is_main_process else logging.ERROR)
    for library in ("httpx", "httpx2", "httpcore", "urllib3", "filelock", "fsspec", "datasets", "accelerate", "torch"):
        logging.getLogger(library).setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Turns off the other libraries' progress bars and advice: what a run says is ours to say."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def progress_bar(settings: LoggingSettings, total: int, done: int, is_main_process: bool) -> tqdm[Any]:
    """The bar of a training run, in windows (optimizer steps)."""
    hidden = not (settings.progress_bar and is_main_process)
    return tqdm(
        total=total, initial=done, desc="학습", unit="스텝", disable=hidden, dynamic_ncols=True, file=sys.stderr
    )


def log_samples(
    task: Task,
    rows: Dataset,
    predictions: Sequence[Any],
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Logs a few rows of a split with what the model makes of them, beside the truth where there is one."""
    _log.info("예측 보기")
    for position in range(0, len(rows), max(1, len(rows) // _SAMPLES))[:_SAMPLES]:
        row = rows[position]
        given, truth = task.shows.show(row)
        found = _phrase(task.shows.phrase(predictions[position], row, label_names, tokenizer))
        _log.info("  %s → %s%s", given[:80], found or "없음", f" (정답 {truth})" if truth else "")


def _phrase(value: Any) -> str:
    """JSON values as a person reads them."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return f"{{{_phrase(list(value.values()))}}}"
    return ", ".join(_phrase(item) for item in value if item != []) if isinstance(value, list) else str(value)


def log_evaluation(split: str, rows: int, metrics: Mapping[str, float], details: Sequence[str]) -> None:
    """Logs a split's metrics after the lines that explain them."""
    for line in details:
        _log.info("%s", line)
    _log.info("%s 데이터 %s행: %s", split, f"{rows:,}", metrics_line(metrics))


def summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What summary.json holds: the facts of a run, and the versions that its result depends on."""
    import accelerate
    import datasets
    import torch
    import transformers

    modules = (accelerate, datasets, torch, transformers)
    found = {module.__name__: str(module.__version__) for module in modules}
    return {**facts, "versions": {"python": sys.version.split()[0], **found}}
