"""The notebook: its cells run in order on the bundled model and data, but for what needs a network."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

from tests.support.forked import run_forked
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
NEEDS_A_NETWORK = ("git clone ", "pip install ")
FOLDER = "finetuning_python"


class Notebook:
    """Runs code cells as Jupyter does: `%cd`, `!` lines with the values of variables, and Python."""

    def __init__(self, folder: Path, **instead: Any) -> None:
        self.folder, self.instead = folder, instead
        self.names: dict[str, Any] = {}
        self.skipped: list[str] = []

    def run(self, source: str) -> None:
        lines = source.replace("\\\n", " ").splitlines()
        if not any(line[:1] in "!%" for line in lines if line):
            os.chdir(self.folder)
            exec(source, self.names)
            self.names.update({name: value for name, value in self.instead.items() if name in self.names})
            return
        for line in lines:
            words = string.Template(line[1:]).substitute({name: str(value) for name, value in self.names.items()})
            if line.startswith("%cd "):
                self.folder /= words.removeprefix("cd ")
            elif words.startswith(NEEDS_A_NETWORK):
                self.skipped.append(words)
            else:
                code, _, said = self._run_line(shlex.split(words))
                assert code == 0, (words, said)

    def _run_line(self, words: list[str]) -> tuple[int, str, str]:
        if words[:2] == ["python", "finetuning_app.py"]:
            return run_forked(words[2:], self.folder, "", 300)
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def keep_rows(file: Path, count: int) -> None:
    """Cut a file of the copy after some rows."""
    lines = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    file.write_text("".join(lines[: count + 1]), encoding="utf-8-sig")


def test_the_cells_run_in_order(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # and back again afterwards
    copy = tmp_path / FOLDER
    shutil.copytree(ROOT / "examples", copy / "examples")
    for name, count in (("train", 96), ("validation", 24), ("test", 24)):
        keep_rows(copy / "examples" / "reviews" / f"{name}.csv", count)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
    notebook = Notebook(tmp_path, EPOCHS=1)
    for cell in cells:
        notebook.run("".join(cell["source"]))
    clone, install = notebook.skipped
    assert clone.endswith(f" {FOLDER}")
    assert (ROOT / install.split()[-1]).is_file()
    with (copy / "result.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] in {"긍정", "부정", "중립"} for row in rows] == [True, True]
    assert (copy / "mine.zip").is_file() and (copy / "models" / "mine" / "report.html").is_file()
