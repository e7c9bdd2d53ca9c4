"""Two runs in one folder: the second is refused, and a process that was killed holds nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exceptions import ResourceError, SettingsError
from finetuning.checkpoints.lock import only_run_in
from tests.support.paths import ROOT

HOLD = """
import sys
from pathlib import Path
from finetuning.checkpoints.lock import only_run_in

with only_run_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(SettingsError, match="다른 학습") as error, only_run_in(folder):
        pass
    assert str(folder) in error.value.where
    with only_run_in(tmp_path / "models" / "another"):
        pass
    other.kill()
    other.communicate()
    with only_run_in(folder):
        pass


def test_a_folder_without_files_is_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad data"), only_run_in(tmp_path / "models" / "run"):
        raise ValueError("bad data")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_or_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        with only_run_in(tmp_path / name):
            if name == "new":
                (tmp_path / name / "model").write_text("x")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["empty", "new", "new/model"]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="output_dir"), only_run_in(tmp_path / "file" / "run"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="there is no flock")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """As NFS without its lock daemon, and some mounted drives."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = tmp_path / "models" / "run"
    for _ in range(2):
        with only_run_in(folder):
            (folder / "model").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["model"]
    if code != errno.ENOSYS:  # filelock has a lock of another kind for those
        assert "잠금을 지원하지 않아" in caplog.text
