"""Labels that are typos are named and merged; rows of one text are counted and stay on one side of a split."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import DataError, SettingsError
from finetuning.config.schema import Settings
from finetuning.data.label_check import doubtful_labels
from finetuning.data.repeats import Units
from finetuning.data.splits import hold_out, leaving_every_label
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli
from tests.support.rows import Make, managers_of, rows_of_table


@pytest.fixture
def manager(tmp_path: Path) -> Make:
    """A DataManager of files given by name; `task` and settings of `data` by keyword."""
    return managers_of(tmp_path)


def labelled(counts: dict[str, int], header: str = "text,label\n") -> str:
    return header + "".join(f"{label}의 글 {n},{label}\n" for label, count in counts.items() for n in range(count))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


# --- labels ---


@pytest.mark.parametrize(
    ("counts", "label", "instead"),
    [
        ({"긍정": 50, "부정": 50, "긍졍": 1}, "긍졍", "긍정"),
        ({"긍정": 50, "부정": 50, "긍 정": 40}, "긍 정", "긍정"),
        ({"Positive": 10, "positive": 9, "negative": 20}, "positive", "Positive"),
        ({"positive": 50, "negative": 50, "positve": 2}, "positve", "positive"),
        ({"긍정": 50, "부정": 50, "nan": 9}, "nan", None),
        ({"긍정": 50, "부정": 50, "NULL": 2}, "NULL", None),
        ({"긍정": 50, "부정": 50, "None": 1}, "None", None),
        ({"긍정": 500, "부정": 500, "중립": 1}, "중립", ""),
    ],
)
def test_doubtful_labels_are_found(counts: dict[str, int], label: str, instead: str | None) -> None:
    (doubt,) = doubtful_labels(counts)
    assert (doubt.label, doubt.count, doubt.instead) == (label, counts[label], instead)


@pytest.mark.parametrize(
    "counts",
    [
        {"긍정": 50, "부정": 50},
        {"0": 10, "1": 10, "2": 5, "-1": 10, "1.5": 9},
        {"none": 300, "hate": 100, "offensive": 100},
        {"정치": 50, "경치": 40},
        {"A형": 50, "B형": 50, "O형": 50},
        {"2019년": 500, "2018년": 20},
        {label: 1 for label in "가나다라마"},
        {"-": 10, ".": 10},
    ],
    ids=str,
)
def test_other_labels_are_not_doubted(counts: dict[str, int]) -> None:
    assert doubtful_labels(counts) == []


@given(st.dictionaries(st.text(max_size=6), st.integers(1, 10**6), max_size=12))
def test_any_labels_can_be_looked_at(counts: dict[str, int]) -> None:
    found = doubtful_labels(counts)
    assert {doubt.label for doubt in found} <= counts.keys()
    assert all(doubt.instead in (None, "") or doubt.instead in counts.keys() - {doubt.label} for doubt in found)


def test_plan_names_doubtful_labels_with_the_flag_that_merges_them(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(labelled({"긍정": 40, "부정": 40, "긍졍": 1, "nan": 1}), encoding="utf-8")
    flags = ["--model_name", tiny_model, "--dataset", tmp_path / "train.csv", "--set",
             f"data.dataset_cache_dir={tmp_path / 'cache'}", "--set", "data.max_bad_rows=0.02"]  # fmt: skip
    run = cli("plan", *flags)
    assert run.code == 0, run.err
    (line,) = [line for line in run.err.splitlines() if "라벨을 확인하세요" in line]
    for words in ("'긍졍' 1행", "'긍정'", "'nan' 1행"):
        assert words in line
    setting = line.partition("--set '")[2].rpartition("'")[0]
    run = cli("plan", *flags, "--set", setting)
    assert run.code == 0, run.err
    assert "라벨을 확인하세요" not in run.err and "라벨: 긍정 " in run.out and "부정" in run.out
    assert "'긍졍' 1개" in run.err and "빈 라벨 1행" in run.err


@pytest.mark.parametrize(
    ("task", "rows", "label_map", "names"),
    [
        ("text-classification", labelled({"0": 20, "1": 20}), {0: "부정", 1: "긍정"}, ("긍정", "부정")),
        ("text-classification", labelled({"긍정": 20, " 긍졍": 1, "부정": 9}), {"긍졍": "긍정"}, ("긍정", "부정")),
        ("multi-label-classification", labelled({"가|나": 20, "가|다": 9}), {"다": "나"}, ("가", "나")),
        ("multi-label-classification", labelled({"가|나": 20, "가|다": 9}), {"다": None}, ("가", "나")),
        ("token-classification", "김\tB-PER\n씨\tI-PER\n\n서울\tB-LC\n\n" * 20, {"PER": "PS"},
         ("O", "B-LC", "I-LC", "B-PS", "I-PS")),
        ("token-classification", "김\tB-PER\n씨\tI-PER\n\n서울\tB-LC\n\n" * 20, {"PER": None}, ("O", "B-LC", "I-LC")),
    ],
)  # fmt: skip
def test_labels_are_renamed_before_they_count(
    manager: Make, task: str, rows: str, label_map: dict[Any, Any], names: tuple[str, ...]
) -> None:
    data = manager({"train.txt" if "\t" in rows else "train.csv": rows}, task, label_map=label_map, label_separator="|")
    assert data.label_names(data.load_splits()) == names


def test_a_renamed_label_makes_other_rows(manager: Make) -> None:
    rows = {"train.csv": labelled({"긍정": 20, "부정": 20})}
    keys = {manager(rows, label_map=to).load_splits()["train"].key for to in ({}, {"부정": "나쁨"}, {"부정": "별로"})}
    assert len(keys) == 3


def test_a_label_that_is_not_there_cannot_be_renamed(manager: Make) -> None:
    data = manager({"train.csv": labelled({"긍정": 20, "부정": 20})}, label_map={"긍정": "좋음", "긍전": "긍정"})
    with pytest.raises(SettingsError, match="데이터에 없습니다: 긍전"):
        data.load_splits()


def test_a_renamed_label_may_be_in_one_split_alone(manager: Make) -> None:
    files = {"train.csv": labelled({"긍정": 20, "부정": 20}), "test.csv": labelled({"긍졍": 2})}
    data = manager(files, label_map={"긍졍": "긍정"})
    assert data.label_names(data.load_splits()) == ("긍정", "부정")


def test_a_typo_in_test_is_named_with_the_label_that_is_meant(manager: Make) -> None:
    data = manager({"train.csv": labelled({"긍정": 20, "부정": 20}), "test.csv": labelled({"긍졍": 2})})
    with pytest.raises(DataError) as error:
        data.label_names(data.load_splits())
    assert "'긍졍'" in error.value.remedy and 'data.label_map={"긍졍": "긍정"}' in error.value.remedy


# --- rows of one text ---


def test_repeated_texts_are_told_in_one_line(manager: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train = labelled({"긍정": 20, "부정": 20}) + "긍정의 글 1,긍정\n긍정의 글 1,부정\n"
    files = {
        "train.csv": train,
        "dev.csv": "text,label\n딴 글,긍정\n",
        "test.csv": labelled({"긍정": 3}) + "새 글,긍정\n",
    }
    manager(files).load_splits()
    (line,) = [record for record in caplog.records if "중복된 텍스트" in record.message]
    assert line.levelno == logging.WARNING
    for words in ("학습 데이터 안에서 중복된 2행", "라벨이 서로 다른 것 1행", "학습 데이터에도 있는 테스트 데이터 3행"):
        assert words in line.message


def test_nothing_is_told_of_distinct_texts(manager: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    manager({"train.csv": labelled({"긍정": 20, "부정": 20})}).load_splits()
    assert not [record for record in caplog.records if "중복된 텍스트" in record.message]


def texts_of(rows: Any) -> set[str]:
    return set(rows.table["text"][:])


def test_a_text_is_in_one_of_our_splits(manager: Make, caplog: pytest.LogCaptureFixture) -> None:
    rows = "text,label\n" + "".join(f"글 {n % 40},{'긍정' if n % 2 else '부정'}\n" for n in range(200))
    splits = manager({"train.csv": rows}, validation_split=0.2, test_split=0.2).load_splits()
    assert sum(map(len, splits.values())) == 200
    assert not texts_of(splits["train"]) & texts_of(splits["validation"])
    assert not texts_of(splits["train"]) & texts_of(splits["test"])
    assert 20 <= len(splits["test"]) <= 60
    assert not warnings_in(caplog)


def test_too_few_texts_are_divided_by_rows(manager: Make) -> None:
    data = manager({"train.csv": "text,label\n" + "좋다,긍정\n나쁘다,부정\n" * 20})
    splits = data.load_splits()
    assert data.label_names(splits) == ("긍정", "부정")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 36, "validation": 4}


@given(
    texts=st.lists(st.integers(0, 12), min_size=30, max_size=60), share=st.floats(0.05, 0.45), seed=st.integers(0, 9)
)
def test_distinct_texts_are_divided_deterministically(texts: list[int], share: float, seed: int) -> None:
    task = find_task(Settings())
    rows = rows_of_table(
        {"row": list(range(1, len(texts) + 1)), "text": [str(n) for n in texts], "label": [str(n % 2) for n in texts]}
    )
    (kept, held), again = hold_out(rows, "test", share, seed, task), hold_out(rows, "test", share, seed, task)
    assert [part.table["row"][:] for part in (kept, held)] == [part.table["row"][:] for part in again]
    assert sorted([*kept.table["row"][:], *held.table["row"][:]]) == rows.table["row"][:]
    assert len(held) and set(kept.table["label"][:]) == set(rows.table["label"][:])
    if len(set(texts)) > 8:
        assert not texts_of(kept) & texts_of(held)


@pytest.mark.parametrize("shared", [False, True])
def test_groups_stay_together(manager: Make, shared: bool) -> None:
    """With `shared`, every two groups have a text in common, and are one."""
    lines = [f"글 {n if not (shared and n % 10 == 0) else n // 20 * 20},문서 {n // 10},{n % 2}\n" for n in range(200)]
    splits = manager({"train.csv": "text,문서,label\n" + "".join(lines)}, group_column="문서").load_splits()
    groups = [set(splits[name].table["group"][:]) for name in ("train", "validation")]
    assert not groups[0] & groups[1] and len(groups[0] | groups[1]) == 20
    assert not texts_of(splits["train"]) & texts_of(splits["validation"])
    assert len(splits["validation"]) == 20
    if shared:
        assert {int(name.split()[1]) // 2 for name in groups[0]}.isdisjoint(int(n.split()[1]) // 2 for n in groups[1])


def test_a_label_that_is_the_group_too_is_refused_with_the_reason_of_groups(manager: Make) -> None:
    with pytest.raises(DataError, match="라벨이 같은 열입니다: label") as error:
        manager({"train.csv": labelled({"긍정": 20, "부정": 20})}, group_column="label").load_splits()
    assert "그룹의 행은" in error.value.remedy and "모델이 정답을" not in error.value.remedy


def test_labels_of_formulas_without_results_are_named_in_the_error(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for row in [["text", "label"], *(["좋다", f"=A{number}"] for number in range(2, 22))]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    data = {"dataset_name": str(tmp_path / "a.xlsx"), "dataset_cache_dir": str(tmp_path / "cache")}
    settings = Settings.model_validate({"data": data})
    with pytest.raises(DataError, match="빈 라벨 20행") as error:
        DataManager(settings, find_task(settings)).load_splits()
    assert "'label' 열의 칸이 수식" in error.value.where


def test_a_missing_group_column_is_named(manager: Make) -> None:
    with pytest.raises(DataError, match="'문서' 열이 없습니다") as error:
        manager({"train.csv": labelled({"긍정": 20, "부정": 20})}, group_column="문서").load_splits()
    assert "data.group_column" in error.value.remedy


def test_groups_matter_to_train_alone_and_change_no_example(manager: Make, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    files = {"train.csv": "text,사용자,label\n" + "".join(f"글 {n},{n // 4},{n % 2}\n" for n in range(40)),
             "test.csv": "text,label\n좋다,1\n"}  # fmt: skip
    data = manager(files, group_column="사용자")
    splits = data.load_splits()
    made = data.encode(splits["validation"], AutoTokenizer.from_pretrained(tiny_model), ("0", "1"), 32)
    assert len(splits["test"]) == 1 and len(made) == len(splits["validation"]) > 0
    assert "group" not in made.table.column_names


def test_hashes_are_those_of_the_whole_text() -> None:
    from finetuning.data.table import hashed

    rows = rows_of_table({"text": ["가", "가나", "가", ""], "text_pair": ["나다", "다", "나다", ""]})
    found = hashed(rows.table, ["text", "text_pair"])
    assert found[0] == found[2] and len(np.unique(found)) == 3
    chosen = rows.table.select([1, 2])
    assert (hashed(chosen, ["text", "text_pair"]) == found[[1, 2]]).all()


@pytest.mark.parametrize("seed", range(20))
def test_texts_are_held_out_one_by_one_while_train_keeps_every_label(seed: int) -> None:
    random = np.random.default_rng(seed)
    cells = ["가", "나", "가,나", "다"]
    codes = random.choice(len(cells), 60, p=[0.5, 0.3, 0.15, 0.05])
    _, first, own = np.unique(random.integers(0, 25, 60), return_index=True, return_inverse=True)
    units = Units(own, np.sort(first))
    chosen = random.permutation(units.first)[: int(random.integers(1, len(units.first) + 1))]

    left, expected = Counter(label for code in codes for label in cells[code].split(",")), list[int]()
    for row in chosen:
        rows = np.flatnonzero(units.codes == units.codes[row])
        found = Counter(label for code in codes[rows] for label in cells[code].split(","))
        if all(left[label] > count for label, count in found.items()):
            left.subtract(found)
            expected += rows.tolist()
    kept = leaving_every_label(codes, cells, units.rows_beside(chosen), lambda cell: cell.split(","))
    assert kept.rows.tolist() == expected
    assert [row for rows in kept for row in rows.tolist()] == expected
    assert [units.codes[rows[0]] for rows in kept] == list(dict.fromkeys(units.codes[expected]))
