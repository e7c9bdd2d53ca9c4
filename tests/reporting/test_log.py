"""The log on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tqdm.auto import tqdm

from exceptions import StopRequested
from finetuning.config.schema import LoggingSettings
from finetuning.reporting.log import set_up_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which has its handlers and level again after the test."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)


class Interrupted:
    """A lock that a signal interrupts while it is waited for."""

    def acquire(self) -> None:
        raise StopRequested(2)

    def release(self) -> None:
        raise RuntimeError("cannot release un-acquired lock")


def test_a_stop_while_a_line_waits_to_be_written_is_a_stop(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_logging(LoggingSettings(), is_main_process=True)
    monkeypatch.setattr(tqdm, "_lock", Interrupted(), raising=False)
    with pytest.raises(StopRequested):
        logging.getLogger("finetuning").info("한 줄")
