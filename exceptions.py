"""One family of errors: what happened, where, what to do, and the exit code that says it to a script."""

from __future__ import annotations


def first_line_of(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class FinetuningError(Exception):
    """An error that the user can act on: the message is for reading, without a traceback.

    what: what happened; where: the file, key or row; remedy: what to do about it. All in Korean.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [f"오류: {self.what}"]
        if self.where:
            lines.append(f"  위치: {self.where}")
        if self.remedy:
            lines.append(f"  해결: {self.remedy}")
        return "\n".join(lines)


class SettingsError(FinetuningError):
    """A flag or a setting is wrong."""

    exit_code = 2


class DataError(FinetuningError):
    """The data cannot be read, or is not what the task needs."""

    exit_code = 3


class ModelError(FinetuningError):
    """The model or tokenizer cannot be found, loaded or trained."""

    exit_code = 4


class ResourceError(FinetuningError):
    """Memory or disk ran out after every remedy."""

    exit_code = 5


class OutOfMemory(ResourceError):
    """Not even one example fits into memory, and the weights are as they were."""


class BadRow(Exception):
    """A row that its task cannot use; the message is the reason in Korean, in a few words, to be counted by.

    found: what this very row has, where the reason alone does not show the mistake. is_fault: whether the row counts
    as a bad one, of which a source may have few; else the task has no use for it. remedy: what to change in the data,
    a Korean sentence or more, where that is known.
    """

    def __init__(self, reason: str, found: str = "", is_fault: bool = True, remedy: str = "") -> None:
        super().__init__(reason)
        self.found, self.is_fault, self.remedy = found, is_fault, remedy


class StopRequested(BaseException):
    """A signal such as SIGINT or SIGTERM asked the run to stop; `exit_code` is 128 plus the signal's number.

    Like KeyboardInterrupt it is no Exception: code that explains a library's failures must not take it for one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number
