"""A process that answers checks. `python -m benchmarks.gpu.worker HOME [tiny]` reads a name a line; replies are JSON.

Its first reply is {"ready": device}. For a name it replies {"facts": ...} as often as there are facts and then
{"end": null}, or {"end": what went wrong}. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.plan import Check
from benchmarks.gpu.registry import CHECKS

_SAID = 1500  # characters of an error


class Replies:
    """Writes replies to what was standard output, which libraries cannot write to any more."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __call__(self, **reply: Any) -> None:
        self._stream.write(json.dumps(reply, ensure_ascii=False, default=str) + "\n")
        self._stream.flush()


def main(words: list[str]) -> None:
    """Answer the checks that standard input names, until it ends."""
    reply = Replies()
    _prepare_allocator()
    bench = Bench(Path(words[0]), tiny=words[1:] == ["tiny"])
    reply(ready=bench.device.type)
    checks = {check.name: check for check in CHECKS}
    for line in sys.stdin:
        _answer(checks[line.strip()], bench, reply)


def _prepare_allocator() -> None:
    """Set the allocator as this program does, which is too late once torch has used the card."""
    try:
        from finetuning.config.schema import Settings
        from finetuning.device.allocator import prepare_allocator
    except ImportError:  # a package is missing, which every check but the card's will say
        return
    prepare_allocator(Settings())


def _answer(check: Check, bench: Bench, reply: Replies) -> None:
    try:
        for facts in check.answer(bench):
            reply(facts=facts)
    except (Exception, SystemExit) as error:  # whatever it is, it is this check's answer
        traceback.print_exc()
        reply(end="".join(traceback.format_exception(error))[-_SAID:])
        if "CUDA error" in str(error):  # nothing computes on the card any more in this process
            sys.exit(1)
    else:
        reply(end=None)


if __name__ == "__main__":
    main(sys.argv[1:])
