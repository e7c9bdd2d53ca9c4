"""KLUE-DST: dialogues as turns with their state, and KLUE's scores of generated states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.tasks.generation.states import EMPTY, are_states, slots_in, spelled, state_scores
from finetuning.tasks.registry import find_task

DIALOGUE = {
    "guid": "wos-v1_dev_00001",
    "domains": ["관광", "식당"],
    "dialogue": [
        {"role": "user", "text": "서울 중앙에 있는 박물관을 찾아주세요.",
         "state": ["관광-지역-서울 중앙", "관광-종류-박물관"]},
        {"role": "sys", "text": "안녕하세요. 문의하신 박물관은 국립중앙박물관이 있습니다.", "state": []},
        {"role": "user", "text": "좋네요. 오후 6시 30분에 분식도 먹고 싶어요.",
         "state": ["식당-종류-분식, 회개", "관광-지역-서울 중앙", "관광-종류-박물관", "식당-예약 시간-18:30"]},
        {"role": "sys", "text": "네, 예약했습니다."},
    ],
}  # fmt: skip
_LIKE_A_SLOT = re.compile(r",\s*[^\s,-][^,-]*-[^,-]+-")  # a value with it cannot be told from the next slot
VALUES = st.text("가나 ,:-1a", min_size=1, max_size=6).filter(
    lambda text: text.strip() == text and not _LIKE_A_SLOT.search(text)
)


def rows_of(path: Path, dialogues: list[Any], task: str, **data: Any) -> list[dict[str, Any]]:
    path.write_text(json.dumps(dialogues, ensure_ascii=False), encoding="utf-8")
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), **data}
    settings = Settings.model_validate({"model": {"task": task}, "data": data})
    splits = DataManager(settings, find_task(settings)).load_splits()
    return [row for split in splits.values() for row in split.table]


@pytest.mark.parametrize("task", ["text2text-generation", "text-generation"])
def test_each_turn_of_a_user_is_a_row_with_what_was_said_before(tmp_path: Path, task: str) -> None:
    rows = rows_of(tmp_path / "wos-v1.1_train.json", [{**DIALOGUE, "guid": str(number)} for number in range(12)], task)
    if task == "text-generation":
        pairs = {tuple(message["content"] for message in json.loads(row["messages"])) for row in rows}
    else:
        pairs = {(row["prompt"], row["response"]) for row in rows}
    first, second, third = (turn["text"] for turn in DIALOGUE["dialogue"][:3])  # type: ignore[index]
    assert len(rows) == 24 and pairs == {
        (f"사용자: {first}", "관광-종류-박물관, 관광-지역-서울 중앙"),
        (f"사용자: {first}\n시스템: {second}\n사용자: {third}",
         "관광-종류-박물관, 관광-지역-서울 중앙, 식당-예약 시간-18:30, 식당-종류-분식, 회개"),
    }  # fmt: skip


def test_the_turns_of_a_dialogue_stay_together(tmp_path: Path) -> None:
    text = json.dumps(DIALOGUE, ensure_ascii=False)
    path = tmp_path / "wos.json"
    dialogues = [text.replace("00001", str(n)).replace("찾아", f"{n}번 찾아") for n in range(12)]
    path.write_text(f"[{','.join(dialogues)}]", encoding="utf-8")
    data = {"dataset_name": str(path), "dataset_cache_dir": str(tmp_path / "cache"), "group_column": "guid"}
    settings = Settings.model_validate({"model": {"task": "text2text-generation"}, "data": data})
    splits = DataManager(settings, find_task(settings)).load_splits()
    held, kept = ({row["prompt"].split("번")[0] for row in splits[name].table} for name in ("validation", "train"))
    assert held and not held & kept


def test_a_turn_of_another_shape_is_named_with_its_dialogue(tmp_path: Path) -> None:
    broken = {"guid": "1", "dialogue": [{"role": "bot", "text": "안녕", "state": []}]}
    with pytest.raises(DataError) as error:
        rows_of(tmp_path / "wos.json", [DIALOGUE, DIALOGUE, broken], "text2text-generation")
    assert "3번째 대화" in error.value.where


@given(st.dictionaries(st.sampled_from(["관광-종류", "식당-예약 시간", "숙소-도보 가능"]), VALUES, max_size=3))
def test_a_state_is_read_back_from_its_text(state: dict[str, str]) -> None:
    slots = [f"{slot}-{' '.join(value.split())}" for slot, value in state.items()]
    assert slots_in(spelled(slots)) == sorted(slots)


def test_every_slot_of_the_published_ontology_is_read_back(real_data: Path) -> None:
    ontology = json.loads((real_data / "klue-dst" / "ontology.json").read_text(encoding="utf-8"))
    slots = [f"{slot}-{' '.join(value.split())}" for slot, values in ontology.items() for value in values if value]
    for start in range(0, len(slots), 7):
        part = sorted(slots[start : start + 7])
        assert slots_in(spelled(part)) == part and are_states([spelled(part)])


def test_scores_are_those_of_klue_baseline() -> None:
    """wos_jga and wos_slot_micro_f1 (KLUE-baseline 8a03c94) on the same states, in shares."""
    kept = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))["dst"]
    pairs = [
        (", ".join(said) or EMPTY, spelled(truth)) for said, truth in zip(kept["said"], kept["truth"], strict=True)
    ]
    found = state_scores(pairs)
    assert found == {"joint_goal_accuracy": pytest.approx(kept["jga"]), "slot_f1": pytest.approx(kept["slot_f1"])}


def test_texts_that_are_no_states_have_no_such_scores() -> None:
    assert state_scores([("좋아요", "네, 그렇습니다."), ("a", "가-나 다")]) == {}
    assert state_scores([("없음", "없음")]) == {}
