"""Questions as they are published: SQuAD-shaped files, flat rows, bad answers, contexts on one side of a split."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.data.formats.registry import open_source
from finetuning.data.splits import hold_out_groups
from finetuning.tasks.registry import find_task
from tests.support.answering import CONTEXT, row_of, task_of


def test_an_answer_keeps_its_place_when_a_decomposed_context_is_composed() -> None:
    row = row_of("언제?", unicodedata.normalize("NFD", CONTEXT), unicodedata.normalize("NFD", "1443년"))
    answer = task_of().reads.prepare(row)["answers"][0]
    start = CONTEXT.index("1443년")
    assert answer == {"text": "1443년", "answer_start": start}
    assert row["answers"][0]["answer_start"] > start


@pytest.mark.parametrize(
    "cell",
    [
        [{"text": "1443년", "answer_start": 10}],
        {"text": ["1443년"], "answer_start": [10]},
        {"text": "1443년", "answer_start": 10},
        '{"text": ["1443년"], "answer_start": [10]}',
    ],
)
def test_answers_come_in_every_published_shape(cell: Any) -> None:
    row = {"question": "언제?", "context": CONTEXT, "answers": cell}
    assert task_of().reads.prepare(row)["answers"] == [{"text": "1443년", "answer_start": 10}]


@pytest.mark.parametrize("mark", [True, "True", 1])
def test_the_plausible_answers_of_an_impossible_question_are_none(mark: Any) -> None:
    row = {**row_of("언제?", CONTEXT, "1443년"), "is_impossible": mark}
    assert task_of().reads.prepare(row)["answers"] == []
    assert task_of().reads.prepare({**row, "is_impossible": False})["answers"] != []


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([{"text": "1443년", "answer_start": 11}], "위치에 없는 정답"),
        ([{"text": "1443년", "answer_start": -5}], "위치에 없는 정답"),
        ([{"text": "1443년", "answer_start": "10"}], "정수가 아닌"),
        ([{"text": " ", "answer_start": 3}], "빈 정답"),
        ([{"answer_start": 3}], "빈 정답"),
        ({"text": ["1443년"], "answer_start": []}, "수가 다른"),
        ("1443년", "answer_start가 없는"),
        ([10], "짝이 아닌"),
    ],
)
def test_an_answer_that_cannot_be_used_is_a_bad_row_with_its_reason(cell: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        task_of().reads.prepare({"question": "언제?", "context": CONTEXT, "answers": cell})


def squad_file(path: Path, paragraphs: Any) -> Path:
    path.write_text(json.dumps({"version": "1", "data": [{"title": "한글", "paragraphs": paragraphs}]}), "utf-8")
    return path


def manager_of(path: Path, **data: Any) -> DataManager:
    where = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache")}
    settings = Settings.model_validate({"model": {"task": "question-answering"}, "data": {**where, **data}})
    return DataManager(settings, find_task(settings))


def paragraphs_of(count: int, questions: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "context": f"{number}번째 지문이다.",
            "qas": [
                {"id": f"{number}-{q}", "question": f"{q}?", "answers": [{"text": "지문", "answer_start": at}]}
                for q in range(questions)
                for at in [f"{number}번째 지문이다.".index("지문")]
            ],
        }
        for number in range(count)
    ]


def test_both_published_shapes_are_read_as_rows(tmp_path: Path) -> None:
    answer = {"text": "세종대왕", "answer_start": 4}
    qas = [
        {"id": "k1", "question": "누가?", "answers": [answer]},
        {"guid": "m1", "question": "왜?", "is_impossible": True, "answers": [], "plausible_answers": [answer]},
    ]
    source = open_source(squad_file(tmp_path / "a.json", [{"context": CONTEXT, "qas": qas}]), None)
    assert source.columns == ("id", "title", "question", "context", "answers")
    shared = {"title": "한글", "context": CONTEXT}
    assert list(source.rows) == [
        {"id": "k1", "question": "누가?", "answers": [answer], **shared},
        {"id": "m1", "question": "왜?", "answers": [], **shared},
    ]


@pytest.mark.parametrize(
    ("paragraphs", "place"),
    [
        ({}, "1번째 문서"),
        ([[]], "1번째 문서, 1번째 문단"),
        ([{"context": "가", "qas": []}, {"qas": []}], "1번째 문서, 2번째 문단"),
        ([{"context": "가"}], "1번째 문서, 1번째 문단"),
        ([{"context": "가", "qas": [{"question": "?"}, 3]}], "1번째 문단, 2번째 질문"),
        ([{"context": "가", "qas": []}], "a.json"),
    ],
)
def test_broken_nesting_is_refused_with_its_place(tmp_path: Path, paragraphs: Any, place: str) -> None:
    with pytest.raises(DataError) as error:
        open_source(squad_file(tmp_path / "a.json", paragraphs), None)
    assert error.value.where.endswith(place)


def test_bad_rows_are_reported_with_number_and_value(tmp_path: Path) -> None:
    paragraphs = paragraphs_of(2)
    paragraphs[0]["qas"][1]["question"] = " "
    paragraphs[1]["qas"][2]["answers"][0]["answer_start"] = 0
    with pytest.raises(DataError) as error:
        manager_of(squad_file(tmp_path / "train.json", paragraphs)).load_splits()
    assert "빈 질문 1행(2번째)" in error.value.what
    assert "위치에 없는 정답 1행(6번째) [6번째 행: 정답 '지문', 그 위치의 텍스트 '1번']" in error.value.what


def test_usual_column_names_are_found_and_others_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    answer = {"text": ["1443년"], "answer_start": [10]}
    lines = [{"질문": f"{n}?", "지문": CONTEXT + str(n), "정답": answer} for n in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert len(manager_of(path).load_splits()["train"]) == 27
    path.write_text(path.read_text("utf-8").replace('"\\uc9c8\\ubb38"', '"asked"'), encoding="utf-8")
    with pytest.raises(DataError, match="question"):
        manager_of(path).load_splits()
    assert manager_of(path, question_column="asked").load_splits()["train"].table["question"][0] in {"0?", "1?", "2?"}


def test_questions_of_one_context_stay_on_one_side(tmp_path: Path) -> None:
    path = squad_file(tmp_path / "all.json", paragraphs_of(40))
    splits = manager_of(path, test_split=0.2, validation_split=0.1).load_splits()
    contexts = [set(splits[name].table["context"][:]) for name in ("train", "validation", "test")]
    assert sum(map(len, contexts)) == len(set.union(*contexts)) == 40
    assert len(splits["test"]) == 24
    again = manager_of(path, test_split=0.2, validation_split=0.1).load_splits()
    assert [rows.table["row"][:] for rows in again.values()] == [rows.table["row"][:] for rows in splits.values()]


@hypothesis_settings(max_examples=100, deadline=None)
@given(groups=st.lists(st.sampled_from("가나다라마바"), min_size=2, max_size=60), share=st.floats(0.05, 0.45))
def test_held_groups_are_whole_and_leave_some(groups: list[str], share: float) -> None:
    held = hold_out_groups(np.unique(groups, return_inverse=True)[1], share, np.random.default_rng(0)).tolist()
    values, kept = {groups[position] for position in held}, [g for i, g in enumerate(groups) if i not in held]
    assert values.isdisjoint(kept)
    assert kept
    assert bool(held) == (len(set(groups)) > 1)
    assert abs(len(held) - share * len(groups)) <= max(Counter(groups).values()) or len(values) == 1
