"""Dependency parsing: trees from labels, KLUE's scores, and what is read and encoded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import BadRow
from finetuning.config.schema import Settings
from finetuning.tasks.parsing.metrics import attachment
from finetuning.tasks.parsing.trees import Arc, distance_and_relation, label_of, likeliest_tree
from finetuning.tasks.registry import find_task
from finetuning.types import IGNORED

SENTENCE = (
    "## klue-dp-v1_dev_00000_wikitree\t'K팝스타3’ 유희열이 눈물을 흘렸다.\n"
    "1\t'K팝스타3’\t' K 팝스타 3 ’\tSS+SL+NNP+SN+SS\t2\tNP\n"
    "2\t유희열이\t유희열 이\tNNP+JKS\t4\tNP_SBJ\n"
    "3\t눈물을\t눈물 을\tNNG+JKO\t4\tNP_OBJ\n"
    "4\t흘렸다.\t흘리 었 다 .\tVV+EP+EF+SF\t0\tVP\n\n"
)


def task_of() -> Any:
    return find_task(Settings.model_validate({"model": {"task": "의존 구문 분석"}}))


def loaded(path: Path, content: str) -> Any:
    path.write_text(content, encoding="utf-8")
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), "validation_split": 0.25}
    settings = Settings.model_validate({"model": {"task": "dependency-parsing"}, "data": data})
    return DataManager(settings, find_task(settings))


@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.lists(st.integers(-3, 9), min_size=1, max_size=12))
def test_whatever_the_scores_the_arcs_are_a_tree(words: int, seed: int, distances: list[int]) -> None:
    scores = np.random.default_rng(seed).normal(size=(words, len(distances))).astype(np.float32)
    heads = [arc.head for arc in likeliest_tree(scores, [(distance, "NP") for distance in distances])]
    assert heads[-1] == 0 and all(number < head <= words for number, head in enumerate(heads[:-1], start=1))


def test_each_word_has_the_likeliest_label_that_fits() -> None:
    labels = [(0, "VP"), (1, "NP"), (2, "NP_SBJ")]
    scores = np.log(np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.1, 0.5, 0.4]], np.float32))
    found = likeliest_tree(scores, labels)
    assert [arc[:2] for arc in found] == [(3, "NP_SBJ"), (3, "NP"), (0, "VP")]
    assert [arc.score for arc in found] == pytest.approx([0.7, 0.1, 0.1])
    assert [distance_and_relation(label_of(number, arc)) for number, arc in enumerate(found, start=1)] == [
        (2, "NP_SBJ"), (1, "NP"), (0, "VP"),
    ]  # fmt: skip


def test_scores_are_those_of_klue_baseline() -> None:
    """klue_dp_uas_macro_f1 and klue_dp_las_macro_f1 (KLUE-baseline 8a03c94) on the same predictions, in shares."""
    kept = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))["dp"]
    truth, said = ([[Arc(*arc) for arc in sentence] for sentence in kept[side]] for side in ("truth", "said"))
    found = attachment(truth, said)
    assert found["klue_uas_macro_f1"] == pytest.approx(kept["uas_macro_f1"], abs=1e-12)
    assert found["klue_las_macro_f1"] == pytest.approx(kept["las_macro_f1"], abs=1e-12)


def test_a_score_of_drawn_rows_is_the_metric_of_those_rows() -> None:
    kept = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))["dp"]
    said = [[Arc(*arc) for arc in sentence] for sentence in kept["said"]]
    cells, scores = [json.dumps([arc[:2] for arc in sentence]) for sentence in kept["truth"]], task_of().scores
    drawn, places = scores.drawn_score(said, {"label": cells}, ()), np.array([0, 3, 3, 5])
    again = scores.metrics([said[at] for at in places], {"label": [cells[at] for at in places]}, (), 0.0)
    assert drawn(places) == pytest.approx(again["klue_las_macro_f1"])


def test_the_published_file_becomes_words_heads_and_relations(tmp_path: Path) -> None:
    splits = loaded(tmp_path / "klue-dp-v1.1_dev.tsv", SENTENCE * 8).load_splits()
    row = splits["train"].table[0]
    assert row["text"] == "'K팝스타3’ 유희열이 눈물을 흘렸다."
    assert json.loads(row["label"]) == [[2, "NP"], [4, "NP_SBJ"], [4, "NP_OBJ"], [0, "VP"]]
    assert len(splits["train"]) + len(splits["validation"]) == 8


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    from exceptions import DataError

    with pytest.raises(DataError) as error:
        loaded(tmp_path / "a.tsv", SENTENCE * 500 + "1\t끝\t끝\tNNG\t없음\tNP\n").load_splits()
    assert "3,001번째 줄" in error.value.where


@pytest.mark.parametrize(
    "row",
    [
        {"tokens": ["가", "나"], "head": [2, 3], "label": ["NP", "VP"]},
        {"tokens": ["가", "나"], "head": [1, 0], "label": ["NP", "VP"]},
        {"tokens": ["가", "나"], "head": [2], "label": ["NP", "VP"]},
        {"tokens": ["가", "나 다"], "head": [2, 0], "label": ["NP", "VP"]},
        {"tokens": ["가", "나"], "head": [2, 0], "label": ["NP", ""]},
        {"tokens": [], "head": [], "label": []},
    ],
)
def test_a_row_that_is_no_tree_is_a_bad_row(row: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        task_of().reads.prepare(row)


def test_heads_to_the_left_are_told_and_not_learned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert task_of().reads.label_names({"1|NP": 5, "-2|NP": 3, "0|VP": 4}) == ("0|VP", "1|NP")
    assert "왼쪽에 있는 어절이 3개" in caplog.text


def test_the_first_token_of_a_word_has_its_label(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    text, names = "보다가 잤다", ["0|VP", "1|AP"]
    rows = {"row": [1], "text": [text], "label": [json.dumps([[2, "AP"], [0, "VP_OBJ"]])]}
    found = task_of().encodes.encode(rows, tokenizer, names, 32)
    assert tokenizer.convert_ids_to_tokens(found["input_ids"][0]) == [
        "[CLS]",
        "보",
        "##다",
        "##가",
        "잤",
        "##다",
        "[SEP]",
    ]
    assert found["word"][0] == [-1, 0, -1, -1, 1, -1, -1]
    assert found["label"][0] == [IGNORED, 1, *[IGNORED] * 5]  # `0|VP_OBJ` is none of train's


def test_a_sentence_longer_than_the_model_has_every_word_once(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    text = " ".join(["정말 재미있다"] * 20)
    found = task_of().encodes.encode({"row": [1], "text": [text]}, tokenizer, [], 24)
    words = [word for window in found["word"] for word in window if word >= 0]
    assert len(found["word"]) > 1 and words == list(range(40))
