"""What only some systems have is used behind a check: modules, functions, signals, forks, the encoding of texts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = sorted([*ROOT.glob("*.py"), *(ROOT / "finetuning").rglob("*.py")])
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {"fork", "forkpty", "geteuid", "getuid", "getgid", "getpgid", "killpg", "mkfifo", "nice", "openpty", "pread",
           "pwrite", "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "wait", "waitid", "getloadavg",
           "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "fchmod", "fchown", "chown", "lchown"},
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGSTOP",
               "SIGTSTP", "ITIMER_REAL", "alarm", "pthread_sigmask", "setitimer", "sigwait", "siginterrupt"},
}  # fmt: skip
# where a check stands before the use: tests of these files run both ways
CHECKED = {
    "finetuning/data/parallel.py": {"sched_getaffinity", "uname"},
    "finetuning/tasks/generation/chat/time_limit.py": {"SIGALRM", "ITIMER_REAL", "setitimer"},
}
NO_TEXT = {
    "finetuning/device/usage.py",  # numbers of /proc
    "finetuning/device/report.py",  # and of /sys
    "finetuning/data/formats/spreadsheet.py",  # the bytes of an archive's member
    "finetuning/data/archives.py",  # and of such a member
    "finetuning/web/archive.py",  # and of one that is written
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def imports_outside_try(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported where an ImportError is not caught."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(handler) for handler in node.handlers):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        yield from imports_outside_try(node)


def test_modules_of_posix_are_imported_behind_a_check(trees: dict[str, ast.Module]) -> None:
    found = {name: POSIX_MODULES & set(imports_outside_try(tree)) for name, tree in trees.items()}
    assert {name: modules for name, modules in found.items() if modules} == {}


def used_of(tree: ast.Module) -> set[str]:
    """The attributes of `os` and `signal` that POSIX alone has."""
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    return {node.attr for node in used if node.attr in POSIX_NAMES.get(ast.unparse(node.value), set())}


def test_functions_and_signals_of_posix_are_used_behind_a_check(trees: dict[str, ast.Module]) -> None:
    found = {name: used_of(tree) for name, tree in trees.items()}
    assert {name: used for name, used in found.items() if used} == CHECKED


def test_processes_are_made_in_one_place_alone(trees: dict[str, ast.Module]) -> None:
    """Without fork a process is given its work pickled, which a lambda and a task are not."""
    makers = {name for name, tree in trees.items() if "multiprocessing" in set(imports_outside_try(tree))}
    assert makers == {"finetuning/data/parallel.py"}


def is_text_without_encoding(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Attribute | ast.Name):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    if any(keyword.arg == "encoding" for keyword in node.keywords):
        return False
    if name in ("read_text", "write_text"):
        return True
    if name != "open" or (isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "os"):
        return False
    place = 0 if isinstance(node.func, ast.Attribute) else 1  # a path's own method has no path
    mode = next((keyword.value for keyword in node.keywords if keyword.arg == "mode"), None)
    mode = mode or (node.args[place] if len(node.args) > place else None)
    return not (isinstance(mode, ast.Constant) and "b" in str(mode.value))


def test_texts_are_read_and_written_in_an_encoding_that_is_named(trees: dict[str, ast.Module]) -> None:
    """On Korean Windows the usual one is CP949."""
    found = {
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and is_text_without_encoding(node)
    }
    assert {place for place in found if place.partition(":")[0] not in NO_TEXT} == set()
