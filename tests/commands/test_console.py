"""Standard input of any usual encoding; output that no encoding and no closed pipe makes fail."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from exceptions import DataError
from finetuning.commands.console import input_lines, read_line
from tests.support.paths import ROOT


def pipe_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_piped_lines_are_the_same_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    pipe_in(monkeypatch, "똠방각하 좋다\r\n\n둘째\t줄".encode(encoding))
    assert list(input_lines()) == ["똠방각하 좋다\n", "\n", "둘째\t줄"]


def test_a_conversation_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"\xef\xbb\xbf" + "하나\n".encode() + "둘\n".encode("cp949"))
    assert [read_line(), read_line(), read_line()] == ["하나\n", "둘\n", None]


def test_undecodable_input_is_reported_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, "좋다\n".encode() + b"\xff\xfe\xff\n")
    with pytest.raises(DataError) as caught:
        list(input_lines())
    assert caught.value.where == "표준 입력, 2번째 줄"


def run_saying(text: str, **options: object) -> subprocess.Popen[bytes]:
    """Run a command that only prints, in an environment where Python would write CP949."""
    script = (
        "import sys, importlib, types, finetuning_app\n"
        "def run(session, arguments): print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)\n"
        "fake = types.SimpleNamespace(run=run, build=lambda *_: None)\n"
        "finetuning_app.importlib = types.SimpleNamespace(import_module=lambda _: fake)\n"
        "sys.exit(finetuning_app.main(['train', '--log_level', 'ERROR']))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, text], cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "cp949"}, **options
    )  # type: ignore[call-overload]


def test_characters_outside_cp949_are_written_to_a_pipe() -> None:
    process = run_saying("⟦좋다⟧ 😀", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (out.decode(), err.decode()) == ("⟦좋다⟧ 😀\n", "⟦좋다⟧ 😀\n")
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")
def test_characters_outside_the_terminal_encoding_are_replaced() -> None:
    ours, theirs = os.openpty()
    process = run_saying("⟦좋다⟧", stdout=theirs, stderr=subprocess.PIPE)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert os.read(ours, 100).decode("cp949").strip() == "?좋다?"


def test_a_closed_pipe_ends_the_command_silently() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = run_saying("말", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert err.decode().strip() in ("", "말")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_person_at_a_terminal_is_told_that_lines_are_awaited(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe_in(monkeypatch, "좋다\n".encode())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: is_terminal)
    assert list(input_lines()) == ["좋다\n"]
    shown = capsys.readouterr()
    assert ("Ctrl+D" in shown.err) == is_terminal
    assert shown.out == ""


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_empty_input_is_told_how_to_give_text(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    pipe_in(monkeypatch, content)
    with pytest.raises(DataError, match="표준 입력에 텍스트가 없습니다") as error:
        list(input_lines())
    assert "--input" in error.value.remedy
