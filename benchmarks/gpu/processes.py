"""The processes that answer checks: started when a check needs one, ended with a check that fails to end."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Check, CheckFailed, Facts
from benchmarks.runner import ROOT, ends_with_this

START_S = 30  # of a process that imports torch and transformers from a cold disk
_READY_S = 180  # after which a process that is not ready is given up
_SAID = 1500  # characters of the log that a line shows


class NoGpu(Exception):
    """There is no GPU that torch can use."""


class Process:
    """One such process.

    Args:
        home: Folder of models and data, which processes share.
        tiny: Whether everything is small.
        log: File that takes what the process prints.
    """

    def __init__(self, home: Path, tiny: bool, log: Path) -> None:
        words = [sys.executable, "-m", "benchmarks.gpu.worker", str(home), *(["tiny"] if tiny else [])]
        one_card = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True, encoding="utf-8", env={**os.environ, **one_card, **offline}, **ends_with_this(),
            )  # fmt: skip
        self._replies: queue.Queue[Facts | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, name: str) -> None:
        """Ask a check; its replies follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()

    def reply(self, seconds: float) -> Facts:
        """Return the next reply.

        Args:
            seconds: How long to wait for it.

        Returns:
            The reply.

        Raises:
            TimeoutError: It did not come.
            EOFError: The process ended.
        """
        try:
            found = self._replies.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if found is None:
            raise EOFError
        return found

    def end(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(json.loads(line))
        self._replies.put(None)


class Processes:
    """Answers checks in one process for as long as that one is whole.

    Args:
        home: Folder of models and data.
        tiny: Whether everything is small, and a CPU will do.
        log: File that takes what the processes print.
    """

    def __init__(self, home: Path, tiny: bool, log: Path) -> None:
        self.home, self.tiny, self.log = home, tiny, log
        self._process: Process | None = None

    def start_s(self) -> float:
        return START_S if self._process is None else 0.0

    def answers(self, check: Check, limit_s: float) -> Iterator[Facts]:
        ends_at = time.monotonic() + limit_s
        try:
            yield from self._answers(check, ends_at)
        except TimeoutError:
            self.close()
            raise CheckFailed(f"ended after {limit_s:.0f} s, its share of the time") from None
        except (EOFError, OSError):
            self.close()
            raise CheckFailed(f"its process ended: {self._last_words()}") from None

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-_SAID:]

    def _answers(self, check: Check, ends_at: float) -> Iterator[Facts]:
        process = self._process or self._started(ends_at)
        process.ask(check.name)
        while "end" not in (reply := process.reply(ends_at - time.monotonic())):
            yield reply["facts"]
        if reply["end"] is not None:
            if "CUDA error" in reply["end"]:
                self.close()
            raise CheckFailed(reply["end"])

    def _started(self, ends_at: float) -> Process:
        self._process = Process(self.home, self.tiny, self.log)
        device: Any = self._process.reply(min(_READY_S, ends_at - time.monotonic()))["ready"]
        if device == "cpu" and not self.tiny:
            self.close()
            raise NoGpu
        return self._process
