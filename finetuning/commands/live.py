"""`predict --live` and `chat --live`: answer each line of JSON as soon as it arrives, for another program that asks.

The first line of the output says what the model takes. What a person types is held in memory alone.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from exceptions import DataError, FinetuningError
from finetuning.cells import TEXT_ROLES
from finetuning.commands.console import lines_as_they_come, read_line
from finetuning.commands.session import Session
from finetuning.inference.chat import ChatSession
from finetuning.inference.evaluator import Evaluator
from finetuning.inference.predictor import Predictor

_WHERE = "표준 입력"


def answer_rows(session: Session, evaluator: Evaluator) -> None:
    """Answer lines that are lists of rows, cells by column, with `{"rows": [...]}` or `{"error": [...]}`."""
    from finetuning.data.sources import Raw

    # a passage is a target where a question is embedded alone, and may be embedded in its place
    asked = [
        column for column in session.task.reads.columns(())
        if not column.optional and (not column.target or column.role in TEXT_ROLES)
    ]  # fmt: skip
    _say(task=session.task.name, chats=False, columns=[[column.name or column.role, column.role] for column in asked])
    for rows in _requests(list, read_line):
        try:
            columns = tuple(rows[0]) if rows and isinstance(rows[0], dict) else ()
            source = session.data.unlabelled(Raw(_WHERE, columns, rows, ""))
            _say(rows=list(Predictor(evaluator).predict(source)))
        except FinetuningError as error:
            _say_error(error)


def answer_turns(session: Session, evaluator: Evaluator) -> None:
    """Answer `{"text": ...}` with `{"piece": ...}` as the answer grows, then `{"answer": ...}`.

    `{"forget": true}` begins a new conversation. `{"stop": true}` ends the answer that grows where it is; it has no
    answer of its own.
    """
    _say(task=session.task.name, chats=True, columns=[])
    lines = _LinesAhead()
    conversation = ChatSession(evaluator, lambda piece: _say(piece=piece), lines.is_stopped)
    for request in _requests(dict, lines.next):
        if request.get("forget"):
            conversation.forget()
            _say(answer="")
            continue
        try:
            _say(answer=conversation.reply(str(request.get("text", ""))), stopped=lines.is_stopped())
        except FinetuningError as error:
            _say_error(error)


class _LinesAhead:
    """The lines of standard input, read while an answer grows. One that asks to stop is no line of its own."""

    def __init__(self) -> None:
        self._read_so_far: queue.SimpleQueue[tuple[str | BaseException | None, threading.Event]] = queue.SimpleQueue()
        self._stop = threading.Event()  # of the line that is answered now
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    def next(self) -> str | None:
        """Return the next line as soon as it is there; None at the end."""
        line, self._stop = self._read_so_far.get()
        if isinstance(line, BaseException):
            raise line
        return line

    def is_stopped(self) -> bool:
        """Return whether the answer to the line that was taken last is to end."""
        return self._stop.is_set()

    def _read(self) -> None:
        newest = self._stop
        try:
            for line in lines_as_they_come():
                request = _parsed(line)
                if isinstance(request, dict) and request.get("stop"):
                    newest.set()
                    continue
                newest = threading.Event()
                self._read_so_far.put((line, newest))
            self._read_so_far.put((None, newest))
        except BaseException as error:  # is raised where the lines are taken
            self._read_so_far.put((error, newest))


def _requests(kind: type, next_line: Callable[[], str | None]) -> Iterator[Any]:
    """Yield the lines of standard input that are JSON of a kind; others are answered with an error."""
    while (line := next_line()) is not None:
        request = _parsed(line)
        if isinstance(request, kind):
            yield request
        elif line.strip():
            example = '[{"text": "좋아요"}]' if kind is list else '{"text": "안녕하세요"}'
            remedy = f"한 줄에 하나씩 이런 모양으로 쓰세요: {example}"
            _say_error(DataError("JSON으로 읽을 수 없는 줄입니다.", where=_WHERE, remedy=remedy))


def _parsed(line: str) -> Any:
    """Return the value of a line of JSON; None where it is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _say_error(error: FinetuningError) -> None:
    _say(error=[error.what, error.where, error.remedy])


def _say(**values: Any) -> None:
    print(json.dumps(values, ensure_ascii=False), flush=True)
