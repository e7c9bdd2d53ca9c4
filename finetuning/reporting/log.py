"""The log on stderr: its format, its levels, and the progress bar."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from tqdm.auto import tqdm

from finetuning.cells import printable
from finetuning.config.schema import LoggingSettings

_NOISY_LIBRARIES = (
    "httpx", "httpx2", "httpcore", "urllib3", "filelock", "fsspec", "datasets", "accelerate", "torch", "matplotlib"
)  # fmt: skip


class _BarSafeHandler(logging.StreamHandler[Any]):
    """Writes log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except RuntimeError as error:
            # a signal that comes while tqdm waits for its lock: tqdm then releases what it does not hold
            if error.__context__ is None or isinstance(error.__context__, Exception):
                raise
            raise error.__context__ from None


class _EscapingFormatter(logging.Formatter):
    """Escapes control characters, and line breaks in what comes from data, so that no text forges a log line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line; line breaks of the message itself stay."""
        shown = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, tuple):
            shown.args = tuple(
                value if isinstance(value, int | float) else printable(str(value)) for value in record.args
            )
        return printable(super().format(shown), keep_lines=True)


def set_up_logging(settings: LoggingSettings, is_main_process: bool) -> None:
    """Send this program's log to stderr, and other libraries' only from ERROR up.

    Args:
        settings: Level and format.
        is_main_process: Other processes log errors only.
    """
    handler = _BarSafeHandler()
    handler.setFormatter(_EscapingFormatter(settings.format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level if is_main_process else logging.ERROR)
    for library in _NOISY_LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Turn off what libraries say beside this program's own report: their warnings, advice and progress bars."""
    import datasets
    import transformers

    if not sys.warnoptions:  # what a library deprecates is its caller's business; `python -W default` shows it
        warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def progress_bar(
    settings: LoggingSettings, total: int, done: int, is_main_process: bool, doing: str = "학습", unit: str = "스텝"
) -> tqdm[Any]:
    """Create the bar of a training run, or of other long work.

    Args:
        settings: Whether a bar is wanted. There is none where stderr is no terminal.
        total: Steps of the whole work, such as the optimizer steps of a run.
        done: Steps already taken, where the run is resumed.
        is_main_process: Other processes show no bar.
        doing: What is done, in Korean.
        unit: What a step is called, in Korean.

    Returns:
        The bar, to be closed by the caller.
    """
    hidden = None if settings.progress_bar and is_main_process else True  # None: where nobody watches, as in a file
    return tqdm(
        total=total, initial=done, disable=hidden, dynamic_ncols=True, file=sys.stderr,
        bar_format=f"{doing} {{percentage:3.0f}}%|{{bar}}| {{n_fmt}}/{{total_fmt}}{unit}, "
        "지난 시간 {elapsed}, 남은 시간 {remaining}",
    )  # fmt: skip
