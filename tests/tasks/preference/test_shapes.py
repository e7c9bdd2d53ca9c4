"""Preferences as people have them: what is read of each shape, and which rows and files are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from tests.support.preference import write_rows


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def shared(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text}


ASKED, GOOD, BAD = said("user", "배고파"), said("assistant", "밥 드세요."), said("assistant", "참아")
EARLIER = [said("user", "안녕"), said("assistant", "안녕하세요")]
SHAPES: dict[str, tuple[dict[str, Any], int]] = {  # row, messages before the answer
    "standard": ({"prompt": "배고파", "chosen": "밥 드세요.", "rejected": "참아"}, 1),
    "conversational": ({"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}, 1),
    "implicit prompt": ({"chosen": [*EARLIER, ASKED, GOOD], "rejected": [*EARLIER, ASKED, BAD]}, 3),
    "ultrafeedback": ({"prompt": "배고파", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "score_chosen": 8.0}, 1),
    "orca": ({"system": "짧게", "question": "배고파", "chosen": "밥 드세요.", "rejected": "참아"}, 2),
    "alpaca": ({"instruction": "배고파", "input": "", "chosen": "밥 드세요.", "rejected": "참아"}, 1),
    "sharegpt": (
        {
            "conversations": [shared("human", "안녕"), shared("gpt", "안녕하세요"), shared("human", "배고파")],
            "chosen": shared("gpt", "밥 드세요."), "rejected": shared("gpt", "참아"),
        },
        3,
    ),
    "korean": ({"질문": "배고파", "좋은답": "밥 드세요.", "나쁜답": "참아"}, 1),
}  # fmt: skip
JUDGED: list[dict[str, Any]] = [
    {"prompt": "배고파", "completion": "밥 드세요.", "label": True},
    {"conversations": [shared("human", "배고파"), shared("gpt", "밥 드세요.")], "kto_tag": "true"},
    {"messages": [ASKED, GOOD], "label": 1},
    {"instruction": "배고파", "output": "밥 드세요.", "kto_tag": True},
]


def prepared(row: dict[str, Any], loss: str = "dpo") -> dict[str, Any]:
    task = find_task(Settings.model_validate({"model": {"task": "preference"}, "preference": {"loss": loss}}))
    columns = task.reads.columns(list(row))
    spelled = {name.casefold(): name for name in row}
    names = {
        column.role: column.name if column.name in row else next(spelled[one] for one in column.usual if one in spelled)
        for column in columns
        if column.name in row or any(one in spelled for one in column.usual)
    }
    return task.reads.prepare({role: row[name] for role, name in names.items() if name is not None})


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_pair_is_read_of_every_shape(shape: str) -> None:
    row, before = SHAPES[shape]
    made = prepared(row)
    assert [message["content"] for message in made["messages"][before:]] == ["밥 드세요."]
    assert [message["content"] for message in made["rejected"][before:]] == ["참아"]
    assert made["messages"][:before] == made["rejected"][:before]
    assert made["messages"][before - 1]["content"] == "배고파"
    assert all(one.get("train") is False for one in made["messages"][:before] if one["role"] == "assistant")


@pytest.mark.parametrize("row", JUDGED)
def test_a_judged_answer_is_read_of_every_shape(row: dict[str, Any]) -> None:
    made = prepared(row, "kto")
    assert made["judged"] == "true"
    assert [message["content"] for message in made["messages"]] == ["배고파", "밥 드세요."]


@pytest.mark.parametrize("row, reason", [
    ({"prompt": "배고파", "chosen": "참아", "rejected": "참아"}, "같은 쌍"),
    ({"chosen": [ASKED, GOOD], "rejected": [said("user", "졸려"), BAD]}, "질문이 다른"),
    ({"prompt": "졸려", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}, "prompt의 질문이 없는"),
    ({"chosen": "밥 드세요.", "rejected": "참아"}, "질문이 없는 쌍"),
    ({"prompt": [ASKED, GOOD], "chosen": "밥", "rejected": "참아"}, "번갈아"),
])  # fmt: skip
def test_a_row_that_is_no_pair_is_named(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        prepared(row)


@pytest.mark.parametrize("column", ["kto_tag", "label"])
def test_judged_answers_need_their_loss(column: str) -> None:
    with pytest.raises(DataError) as refused:
        prepared({"prompt": "배고파", "completion": "밥 드세요.", column: True})
    assert "preference.loss=kto" in refused.value.remedy


@pytest.mark.parametrize("row, loss", [(SHAPES["sharegpt"][0], "dpo"), (JUDGED[1], "kto")])
def test_plan_shows_the_answers(row: dict[str, Any], loss: str, tiny_causal: Path, tmp_path: Path, cli: Any) -> None:
    path = write_rows(tmp_path / "train.jsonl", [row] * 20)
    done = cli("plan", "--task", "preference", "--model_name", tiny_causal, "--dataset", path, "--set",
               f"preference.loss={loss}", "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}")  # fmt: skip
    assert done.code == 0, done.err
    assert "⟦밥 드세요." in done.out
    assert ("⟦참아" in done.out) == (loss == "dpo")
