"""What each kind of task shows on the report page: its counts are right, and the worst rows come first."""

from __future__ import annotations

import json

import numpy as np
import pytest

from finetuning.config.schema import Settings
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.answering.scoring import Found
from finetuning.tasks.base import Task
from finetuning.tasks.evidence import Confusion, Evidence, LabelScores, Scatter
from finetuning.tasks.generation.shared import Answer
from finetuning.tasks.registry import find_task
from finetuning.tasks.tagging.decoding import TaggedToken


def task_of(name: str) -> Task:
    return find_task(Settings.model_validate({"model": {"task": name}}))


def worst(evidence: Evidence) -> list[int]:
    assert evidence.ranking is not None
    return [int(place) for place in evidence.ranking.positions]


def test_a_row_with_several_labels_is_as_wrong_as_its_surest_wrong_label() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    task, names = task_of("multi-label-classification"), ("가", "나", "다")
    predictions = [np.array(row) for row in ([0.9, 0.2, 0.1], [0.6, 0.4, 0.1], [0.2, 0.95, 0.3], [0.1, 0.2, 0.1])]
    truth = [["가"], ["나"], ["가"], []]
    evidence = task.shows.evidence(predictions, {"label": [json.dumps(row) for row in truth]}, names)
    assert worst(evidence) == [2, 1]  # 0.95 that 나 is there; 0.6 that 가 is there, and as sure that 나 is not
    scores = evidence.blocks[0]
    assert isinstance(scores, LabelScores)
    table = np.array([[name in row for name in names] for row in truth])
    expected = precision_recall_fscore_support(table, np.array(predictions) >= 0.5, zero_division=0)
    for place, one in enumerate(scores.scores):
        assert [one.precision, one.recall, one.f1, one.support] == pytest.approx([part[place] for part in expected])


def test_scores_are_shown_by_their_error() -> None:
    evidence = task_of("text-regression").shows.evidence([1.0, 4.5, 3.0], {"label": ["1", "2", "3.5"]}, ())
    assert worst(evidence) == [1, 2]
    assert isinstance(evidence.blocks[0], Scatter)


def test_entities_count_by_place_and_kind() -> None:
    task, names = task_of("token-classification"), ("O", "B-LC", "I-LC", "B-PS", "I-PS")
    text = "김영희는 서울에 산다"
    truth = json.dumps([[0, 3, "PS"], [5, 7, "LC"]])

    def tokens(*tags: tuple[int, int, str, float]) -> list[TaggedToken]:
        return [TaggedToken(start, end, names.index(tag), sure, names.index(tag)) for start, end, tag, sure in tags]

    right = tokens((0, 3, "B-PS", 0.9), (5, 7, "B-LC", 0.8))
    other_kind = tokens((0, 3, "B-LC", 0.7), (5, 7, "B-LC", 0.8))
    missed = tokens((0, 3, "B-PS", 0.9), (5, 7, "O", 0.6))
    rows = {"text": [text] * 3, "label": [truth] * 3}
    evidence = task.shows.evidence([right, other_kind, missed], rows, names)
    assert worst(evidence) == [1, 2]
    matrix = next(block for block in evidence.blocks if isinstance(block, Confusion))
    assert matrix.by_name() == {"LC": {"LC": 2, "(개체 아님)": 1}, "PS": {"PS": 2, "LC": 1}, "(개체 아님)": {}}
    facts = evidence.facts()["by_label"]
    assert (facts["LC"]["support"], facts["LC"]["predicted"], facts["PS"]["predicted"]) == (3, 3, 2)
    case = task.shows.case(missed, {"text": text, "label": truth}, names, None)  # type: ignore[arg-type]
    assert [[text[mark.start : mark.end] for mark in part.marks] for part in case.parts] == [
        ["김영희", "서울"],
        ["김영희"],
    ]


def test_answers_are_marked_in_their_passage() -> None:
    task = task_of("question-answering")
    context = "한글은 세종대왕이 1443년에 만들었다."
    row = {
        "question": "누가?", "context": context,
        "answers": json.dumps([{"text": "세종대왕", "answer_start": 4}], ensure_ascii=False),
    }  # fmt: skip
    right, wrong = Found("세종대왕", 4, 8, -0.1, -5.0), Found("1443년", 10, 15, -0.2, -5.0)
    columns = {name: [cell, cell] for name, cell in row.items()}
    assert worst(task.shows.evidence([right, wrong], columns, ())) == [1]
    passage = task.shows.case(wrong, row, (), None).parts[-1]  # type: ignore[arg-type]
    assert [(mark.kind, context[mark.start : mark.end]) for mark in passage.marks] == [
        ("truth", "세종대왕"), ("said", "1443년"),
    ]  # fmt: skip


def test_generated_texts_stand_beside_the_expected_ones_the_least_similar_first() -> None:
    task = task_of("text2text-generation")
    rows = {"prompt": ["가", "나", "다", "라"], "response": ["좋은 아침", "안녕하세요", "감사합니다", "네"]}
    made = [None if text is None else GeneratedText(text, True) for text in ("좋은 아침", "안녕", "전혀 딴말", None)]
    predictions = [Answer(2.0, 4, generated=text) for text in made]
    evidence = task.shows.evidence(predictions, rows, ())
    assert worst(evidence) == [2, 1, 0] and evidence.ranking is not None and evidence.ranking.wrong == 2
    parts = task.shows.case(predictions[1], {"prompt": "나", "response": "안녕하세요"}, (), None).parts  # type: ignore[arg-type]
    assert [part.text for part in parts[:3]] == ["나", "안녕하세요", "안녕"]
