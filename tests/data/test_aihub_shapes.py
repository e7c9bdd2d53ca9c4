"""Text sets of AI Hub as they are published: a whole set, a document, or a question in each file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

SUMMARIES = {
    "numberOfItems": 2,
    "data": [
        {
            "header": {
                "dialogueInfo": {"dialogueID": f"d{number}", "numberOfParticipants": 2, "topic": "식음료"},
                "participantsInfo": [{"participantID": "P01", "gender": "여성", "age": "20대"}],
            },
            "body": {
                "dialogue": [
                    {"utteranceID": "U1", "turnID": "T1", "participantID": "P01", "utterance": f"점심 먹자 {number}"},
                    {"utteranceID": "U2", "turnID": "T2", "participantID": "P02", "utterance": "좋아"},
                ],
                "summary": f"점심을 먹기로 했다 {number}.",
            },
        }
        for number in range(20)
    ],
}
SESSIONS = {
    "FileInfo": {"filename": "DAILY-1-S2", "sessionLevel": "2"},
    "participantsInfo": {"numberOfParticipants": "2", "speaker1": {"gender": "여성"}, "speaker2": {"gender": "남성"}},
    "multisessionInfo": {"multisessionID": "m1"},
    "topicInfo": {"largeCategory": "직업", "smallCategory": "인물"},
    "sessionInfo": [
        {
            "nthSession": str(number),
            "sessionID": f"s{number}",
            "prevTimeInfo": {"timeNum": None, "timeUnit": None},
            "sessionKeywords": ["음악"],
            "dialog": [
                {
                    "speaker": "speaker1",
                    "utterance": f"색소폰을 배워요 {number}",
                    "summary": "",
                    "selectedContents": [],
                },
                {"speaker": "speaker2", "utterance": "멋지네요", "context": {"query": "색소폰", "contents": []}},
            ],
            "sessionSummary": {"apprentice": ["배운다"], "wizard": [], "dialogSummary": f"색소폰 이야기 {number}"},
        }
        for number in range(1, 21)
    ],
}
PRECEDENT = {
    "info": {"id": 1, "dataType": "판결문", "caseNm": "이혼등", "courtNm": "서울가정법원", "caseNo": "2000드단1"},
    "jdgmn": "유책배우자의 이혼청구를 인용한 사례",
    "jdgmnInfo": [
        {"question": "이혼청구권이 인정되는가?", "answer": "긍정"},
        {"question": "위자료는?", "answer": "인정"},
    ],
    "Summary": [{"summ_contxt": "혼인이 파탄되었다. 청구는 이유 있다.", "summ_pass": "청구는 이유 있다."}],
    "keyword_tagg": [{"id": 1, "keyword": "이혼"}],
    "Reference_info": {"reference_rules": "민법 제840조", "reference_court_case": ""},
    "Class_info": {"class_name": "가사", "instance_name": "이혼"},
}
EMOTION = {
    "profile": {
        "persona-id": "Pro_1",
        "persona": {"human": ["A02", "G02"]},
        "emotion": {"emotion-id": "S06_D02", "type": "E18", "situation": ["S06"]},
    },
    "talk": {
        "id": {"profile-id": "Pro_1", "talk-id": "1"},
        "content": {"HS01": "일이 끝이 없어.", "SS01": "많이 힘드시겠어요.", "HS02": "화가 나.", "SS02": "쉬어 보세요.",
                    "HS03": "", "SS03": ""},
    },
}  # fmt: skip
QUESTION = {"qa_id": 1, "domain": 2, "q_type": 2, "question": "고혈압의 기준은?", "answer": "140/90 mmHg"}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8-sig")


def rows_of(path: Path, content: Any, task: str) -> list[dict[str, Any]]:
    write(path, content)
    return read(path, task, path.parent / "cache")


def read(path: Path, task: str, cache: Path) -> list[dict[str, Any]]:
    settings = Settings.model_validate({
        "model": {"task": task},
        "data": {"dataset_name": str(path), "dataset_cache_dir": str(cache), "validation_split": 0.2},
    })  # fmt: skip
    manager = DataManager(settings, find_task(settings))
    return list(manager.load_splits()["train"].table)


def answered(row: dict[str, Any]) -> tuple[str, str]:
    asked, answer = json.loads(row["messages"])
    assert (asked["role"], answer["role"]) == ("user", "assistant")
    return asked["content"], answer["content"]


def test_summaries_of_dialogues_and_of_sessions(tmp_path: Path) -> None:
    for content, said, summary in (
        (SUMMARIES, "P01: 점심 먹자 {0}\nP02: 좋아", "점심을 먹기로 했다 {0}."),
        (SESSIONS, "speaker1: 색소폰을 배워요 {0}\nspeaker2: 멋지네요", "색소폰 이야기 {0}"),
    ):
        rows = rows_of(tmp_path / "a.json", content, "text-generation")
        number = answered(rows[0])[1].strip(".").split()[-1]
        assert answered(rows[0]) == (said.format(number), summary.format(number))
        pairs = rows_of(tmp_path / "a.json", content, "text2text-generation")
        assert {row["prompt"] for row in pairs} == {answered(row)[0] for row in rows}


def test_questions_about_decisions_are_answered_and_searched(tmp_path: Path) -> None:
    for number in range(20):
        decision: dict[str, Any] = copy.deepcopy(PRECEDENT)
        decision["Summary"][0]["summ_contxt"] += f" {number}"
        write(tmp_path / "set" / "Training" / f"{number}.json", decision)
    rows = read(tmp_path / "set", "text-generation", tmp_path / "cache")
    assert {answered(row)[1] for row in rows} == {"긍정", "인정"}
    assert all("이유 있다" in answered(row)[0] for row in rows)
    searched = read(tmp_path / "set", "embedding", tmp_path / "cache")
    assert {row["question"] for row in searched} == {"이혼청구권이 인정되는가?", "위자료는?"}
    assert all(row["context"].startswith("혼인이 파탄되었다.") for row in searched)


def test_emotions_are_labels_and_their_dialogues_are_conversations(tmp_path: Path) -> None:
    rows = []
    for number in range(20):
        rows.append(copy.deepcopy(EMOTION))
        rows[-1]["talk"]["content"]["HS01"] += f" {number}"  # type: ignore[index]
        rows[-1]["profile"]["emotion"]["type"] = ("E18", "E66")[number % 2]  # type: ignore[index]
    row = rows_of(tmp_path / "a.json", rows, "text-classification")[0]
    assert (
        row["text"].startswith("일이 끝이 없어.")
        and row["text"].endswith("화가 나.")
        and row["label"] in ("E18", "E66")
    )
    said = json.loads(rows_of(tmp_path / "a.json", rows, "text-generation")[0]["messages"])
    assert [one["role"] for one in said] == ["user", "assistant"] * 2
    assert said[-1]["content"] == "쉬어 보세요."


def test_a_folder_of_files_with_a_question_each_is_one_split(tmp_path: Path) -> None:
    for number in range(20):
        question = {**QUESTION, "question": f"고혈압의 기준은 {number}?"}
        write(tmp_path / "set" / "Training" / f"필수_{number}.json", question)
    rows = read(tmp_path / "set", "text-generation", tmp_path / "cache")
    assert len(rows) == 16 and answered(rows[0])[1] == "140/90 mmHg"


@pytest.mark.parametrize("broken", [{"data": [{"body": {"dialogue": []}}]}, {"jdgmnInfo": [{"question": "?"}]}])
def test_other_objects_are_not_taken_for_a_set(tmp_path: Path, broken: dict[str, Any]) -> None:
    from finetuning.data.shapes.registry import flat_records

    assert flat_records(broken, "a.json") is None


def test_entries_of_another_kind_are_told_by_their_number(tmp_path: Path) -> None:
    odd: dict[str, Any] = copy.deepcopy(SUMMARIES)
    odd["data"][3:6] = [None, "점심", {"header": [], "body": "점심"}]
    with pytest.raises(DataError, match=r"3행.*4, 5, 6번째"):
        rows_of(tmp_path / "a.json", odd, "text2text-generation")
