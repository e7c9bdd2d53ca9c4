"""The cache of prepared data: pruning, kept files, and the log line."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import pytest

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.data.cache import Cache, code_key
from finetuning.tasks.registry import find_task

DAY_S = 86_400


def put(folder: Path, name: str, days_unused: float, size: int = 1000) -> Path:
    """Write a file whose last use was some days ago."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(b"x" * size)
    used = time.time() - days_unused * DAY_S
    os.utime(path, (used, used))
    return path


def key(number: int) -> str:
    return f"{number:032x}"


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_unused_for_longer_are_removed_and_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number, name in enumerate(("rows-{}.arrow", "rows-{}.json", "examples-{}.arrow", "vocabulary-{}.json")):
        put(tmp_path, name.format(key(number)), days_unused=31)
    kept = put(tmp_path, f"rows-{key(9)}.arrow", days_unused=29)
    Cache(tmp_path, max_gb=None, max_days=30).prune()
    assert left_in(tmp_path) == {kept.name}
    (line,) = [record.message for record in caplog.records]
    assert "30일 넘게 쓰지 않은 4개" in line and str(tmp_path) in line and "data.cache_max_days" in line


def test_the_least_recently_used_go_first_where_all_take_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = [put(tmp_path, f"examples-{key(number)}.arrow", days_unused=10 - number) for number in range(5)]
    Cache(tmp_path, max_gb=3000 / 1e9, max_days=30).prune()
    assert left_in(tmp_path) == {path.name for path in paths[2:]}
    (line,) = [record.message for record in caplog.records]
    assert "오래된 2개" in line and "data.cache_max_gb" in line


def test_files_of_the_last_day_stay_whatever_they_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = {put(tmp_path, f"rows-{key(number)}.arrow", days_unused=0.9).name for number in range(3)}
    Cache(tmp_path, max_gb=0, max_days=0.5).prune()
    assert left_in(tmp_path) == paths and caplog.records == []


def test_only_files_of_our_names_are_removed(tmp_path: Path) -> None:
    others = {
        put(tmp_path, name, days_unused=400).name
        for name in (
            "rows-1.arrow", f"rows-{key(1)}.arrow.bak", f"my-rows-{key(1)}.arrow", f"examples-{key(1)}.json",
            "notes.txt", f"rows-{key(1).replace('1', 'G')}.arrow",
        )
    }  # fmt: skip
    (tmp_path / f"rows-{key(2)}.arrow").mkdir()
    others.add(f"rows-{key(2)}.arrow")
    target = tmp_path.parent / "target.arrow"
    target.write_text("mine")
    (tmp_path / f"rows-{key(3)}.arrow").symlink_to(target)
    others.add(f"rows-{key(3)}.arrow")
    os.utime(tmp_path / f"rows-{key(3)}.arrow", (1, 1), follow_symlinks=False)
    Cache(tmp_path, max_gb=0, max_days=1).prune()
    assert left_in(tmp_path) == others and target.read_text() == "mine"


def test_unpacked_archives_are_counted_and_pruned_with_the_prepared_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    unpacked, folder = tmp_path / "unpacked", tmp_path / "prepared"
    names = {40: f"TL_문학-{key(1)}", 5: f"TL1-{key(2)}", 3: f"TL2-{key(3)}", 400: "mine"}
    for days, name in names.items():
        (unpacked / name / "내과").mkdir(parents=True)
        put(unpacked / name / "내과", "1.json", days, size=4000)
        os.utime(unpacked / name, (time.time(), time.time() - days * DAY_S))  # whoever looks changes the first
    kept = put(folder, f"rows-{key(9)}.arrow", days_unused=2)
    Cache(folder, max_gb=None, max_days=30).prune()
    assert left_in(unpacked) == {names[5], names[3], "mine"}
    Cache(folder, max_gb=15_000 / 1e9, max_days=30).prune()
    assert left_in(unpacked) == {names[5], names[3], "mine"}
    Cache(folder, max_gb=8000 / 1e9, max_days=30).prune()
    assert left_in(unpacked) == {names[3], "mine"} and left_in(folder) == {kept.name}


def test_null_keeps_all_and_a_folder_that_is_not_there_is_none(tmp_path: Path) -> None:
    path = put(tmp_path, f"rows-{key(1)}.arrow", days_unused=4000)
    Cache(tmp_path, max_gb=None, max_days=None).prune()
    assert path.exists()
    Cache(tmp_path / "none", max_gb=0, max_days=1).prune()
    assert not (tmp_path / "none").exists()


def test_files_read_from_the_cache_count_as_used(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "train.csv").write_text("text,label\n" + "좋은 영화,1\n나쁜 영화,0\n" * 20, encoding="utf-8")
    data = {"dataset_name": str(tmp_path / "train.csv"), "dataset_cache_dir": str(tmp_path / "cache")}
    settings = Settings.model_validate({"data": data})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def load() -> None:
        manager = DataManager(settings, find_task(settings))
        splits = manager.load_splits()
        for rows in splits.values():
            manager.encode(rows, tokenizer, manager.label_names(splits), 32)
        manager.prune_cache()

    load()
    folder = tmp_path / "cache" / "prepared"
    made = left_in(folder)
    assert len(made) == 4  # rows and what was found in them, two files of examples
    forgotten = put(folder, f"rows-{key(1)}.arrow", days_unused=40)
    for path in folder.iterdir():
        os.utime(path, (time.time() - 40 * DAY_S,) * 2)
    load()
    assert left_in(folder) == made and not forgotten.exists()


def test_a_part_of_a_task_with_other_code_has_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works on a task's `prepare` must not train on rows that the code before it made."""
    task = find_task(Settings())
    module = sys.modules[type(task.reads).__module__]
    before = code_key(task.reads)
    assert code_key(task.reads) == before
    edited = tmp_path / "edited.py"
    edited.write_bytes(Path(str(module.__file__)).read_bytes() + b"# edited\n")
    monkeypatch.setattr(module, "__file__", str(edited))
    assert code_key(task.reads) != before
