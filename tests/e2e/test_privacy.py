"""predict and chat keep nothing of what the user typed: not in the cache, nor in any folder of a temporary kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SENTENCE = "정말 비밀스러운 문장 918273"
FOLDERS = ("output", "cache", "home", "hf", "tmp", "work")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def run(folders: Path, *arguments: object, stdin: str = "") -> str:
    """Run the program in a process whose home, caches and temporary folder are those; returns its output."""
    environment = {
        "HOME": folders / "home", "HF_HOME": folders / "hf", "HF_DATASETS_CACHE": folders / "hf" / "datasets",
        "XDG_CACHE_HOME": folders / "home" / ".cache", "TMPDIR": folders / "tmp",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / "finetuning_app.py", *map(str, arguments), "--output_dir", folders / "output",
         "--set", f"data.dataset_cache_dir={folders / 'cache'}", "--no-mixed_precision"],
        cwd=folders / "work", input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=300,
        env={**os.environ, **{name: str(path) for name, path in environment.items()}},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_in(folders: Path) -> dict[str, int]:
    paths = [path for name in FOLDERS for path in (folders / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folders)): path.stat().st_mtime_ns for path in paths}


def holding(folders: Path, text: str) -> list[str]:
    """The files that hold a text in an encoding that a library may choose."""
    forms = [text.encode(encoding) for encoding in ("utf-8", "utf-16-le", "cp949")] + [json.dumps(text)[1:-1].encode()]
    paths = [path for name in FOLDERS for path in (folders / name).rglob("*") if path.is_file()]
    return [str(path.relative_to(folders)) for path in paths if any(form in path.read_bytes() for form in forms)]


@pytest.fixture
def classifier(folders: Path, tiny_model: Path) -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {"num_labels": 2, "id2label": {0: "부정", 1: "긍정"}, "label2id": {"부정": 0, "긍정": 1}}
    AutoModelForSequenceClassification.from_pretrained(tiny_model, **names).save_pretrained(folders / "output")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folders / "output")
    return folders


def test_predict_from_standard_input_writes_nothing(classifier: Path) -> None:
    before = files_in(classifier)
    (record,) = map(json.loads, run(classifier, "predict", stdin=f"{SENTENCE}\n").splitlines())
    assert record["text"] == SENTENCE and record["label"] in ("부정", "긍정")
    assert files_in(classifier) == before and holding(classifier, SENTENCE) == []


def test_predict_of_a_file_writes_its_output_alone(classifier: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{SENTENCE} {number}"}, ensure_ascii=False) for number in range(6000)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    before = files_in(classifier)
    run(classifier, "predict", "--input", tmp_path / "in.jsonl", "--output", classifier / "work" / "out.csv")
    after = files_in(classifier)
    assert {name: after.pop(name) for name in ("work/out.csv",)} and after == before
    assert holding(classifier, SENTENCE) == ["work/out.csv"]
    assert (classifier / "work" / "out.csv").read_text(encoding="utf-8-sig").count(SENTENCE) == 6000


def test_chat_writes_nothing(folders: Path, tiny_causal: Path) -> None:
    before = files_in(folders)
    said = run(
        folders, "chat", "--task", "text-generation", "--model_name", tiny_causal, "--set",
        "generation.max_new_tokens=4", stdin=f"{SENTENCE}\n/끝\n",
    )  # fmt: skip
    assert said
    assert files_in(folders) == before and holding(folders, SENTENCE) == []
