"""Korean benchmarks and instructions in the shapes in which they are published, read for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

KMMLU = {
    "question": "다음 중 경매의 방법은?", "answer": 2, "A": "상호", "B": "최고가", "C": "추첨", "D": "수의",
    "Category": "Law", "Human Accuracy": 0.4,
}  # fmt: skip
COPA = {"premise": "비가 왔다.", "question": "결과", "alternative_1": "땅이 젖었다.", "alternative_2": "해가 떴다.",
        "label": 0}  # fmt: skip
HELLASWAG = {"context": "밥을 짓는다.", "ending_1": "먹는다.", "ending_2": "잔다.", "ending_3": "뛴다.",
             "ending_4": "운다.", "label": 3}  # fmt: skip
BOOLQ = {"paragraph": "로마는 이탈리아의 수도이다.", "question": "로마는 수도입니까?", "label": 1}
WIC = {"word": "배", "context_1": "배를 먹었다.", "context_2": "배를 탔다.", "label": 0}
SENTINEG = {"sentence": "택배사가 불친절하다", "label": 0}
HAERAE = {"query": "다음 질문의 답은?\n(A) 하나\n(B) 둘\n정답: ", "answer": "(B)"}
KULLM = {"id": "alpaca_1", "instruction": "번역하세요.", "input": "안녕", "output": "Hello"}
PLATYPUS = {"input": "", "output": "3입니다.", "instruction": "1+2는?", "data_source": "MATH"}
STRATEGY = {"qid": "1", "term": "개", "question": "개가 비행기를 조종할 수 있나요?", "answer": False,
            "facts": ["개는 손이 없다."], "decomposition": ["개는 손이 있나요?"]}  # fmt: skip
EMOTION = {
    "id": "nikluge-2023-ea-dev-000001",
    "input": {"form": "내일 표 구하길", "target": {"form": "표", "begin": 3, "end": 4}},
    "output": {"joy": "False", "anticipation": "True", "trust": "True"},
}
STORY = {"id": "1", "input": {"sentence1": "비가 왔다.", "sentence3": "젖었다."}, "output": "우산이 없었다."}
SUMMARY = {
    "id": "1",
    "input": {"conversation": [{"speaker": "SD1", "utterance": "여행 갈까?"}, {"speaker": "SD2", "utterance": "좋아."}],
              "subject_keyword": ["여행"]},
    "output": "여행을 가기로 했다.",
}  # fmt: skip


def row_of(path: Path, row: dict[str, Any], task: str, **data: Any) -> dict[str, Any]:
    """Read a file of this row and others that differ in a number, and return the row as it was read."""
    labels = {name for name in ("label", "answer", "output") if not isinstance(row.get(name), str)}
    rows = [row, *({name: f"{cell} {number}" if isinstance(cell, str) and name != "question" and name not in labels
                    else cell for name, cell in row.items()} for number in range(20))]  # fmt: skip
    if "label" in row:
        rows[1:] = [{**one, "label": number % 2} for number, one in enumerate(rows[1:])]
    path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in rows), encoding="utf-8")
    options = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), "max_bad_rows": 1, **data}
    settings = Settings.model_validate({"model": {"task": task}, "data": options})
    splits = DataManager(settings, find_task(settings)).load_splits()
    found = sorted((one for split in splits.values() for one in split.table), key=lambda one: one["row"])[0]
    return {name: cell for name, cell in found.items() if name != "row"}


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        (KMMLU, "다음 중 경매의 방법은?\nA. 상호\nB. 최고가\nC. 추첨\nD. 수의\n정답：", "B"),
        (COPA, "비가 왔다.\n이 문장의 결과에 알맞은 것은?\nA. 땅이 젖었다.\nB. 해가 떴다.\n정답：", "A"),
        (
            HELLASWAG,
            "밥을 짓는다.\n이어질 문장으로 알맞은 것은?\nA. 먹는다.\nB. 잔다.\nC. 뛴다.\nD. 운다.\n정답：",
            "D",
        ),
        (HAERAE, "다음 질문의 답은?\n(A) 하나\n(B) 둘\n정답:", "(B)"),
        (KULLM, "번역하세요.\n\n안녕", "Hello"),
        (PLATYPUS, "1+2는?", "3입니다."),
        (STRATEGY, "개가 비행기를 조종할 수 있나요?", "아니요"),
        (STORY, "1: 비가 왔다.\n3: 젖었다.", "우산이 없었다."),
        (SUMMARY, "SD1: 여행 갈까?\nSD2: 좋아.", "여행을 가기로 했다."),
    ],
    ids=["KMMLU", "COPA", "HellaSwag", "HAE-RAE", "KULLM", "KOpen-platypus", "Ko-StrategyQA", "2023 story", "summary"],
)
def test_questions_and_instructions_are_conversations(
    tmp_path: Path, row: dict[str, Any], prompt: str, response: str
) -> None:
    messages = json.loads(row_of(tmp_path / "a.jsonl", row, "text-generation")["messages"])
    assert [(one["role"], one["content"].strip()) for one in messages] == [("user", prompt), ("assistant", response)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (BOOLQ, {"text": "로마는 이탈리아의 수도이다.", "text_pair": "로마는 수도입니까?", "label": "1"}),
        (WIC, {"text": "배: 배를 먹었다.", "text_pair": "배를 탔다.", "label": "0"}),
        (SENTINEG, {"text": "택배사가 불친절하다", "label": "0"}),
    ],
    ids=["BoolQ", "WiC", "SentiNeg"],
)
def test_labelled_texts_are_classified(tmp_path: Path, row: dict[str, Any], expected: dict[str, str]) -> None:
    assert row_of(tmp_path / "a.jsonl", row, "text-classification") == expected


def test_the_emotions_of_a_target_are_labels(tmp_path: Path) -> None:
    row = row_of(tmp_path / "a.jsonl", EMOTION, "multi-label-classification", multi_label=True)
    assert row["text"] == "내일 [표] 구하길" and json.loads(row["label"]) == ["anticipation", "trust"]
