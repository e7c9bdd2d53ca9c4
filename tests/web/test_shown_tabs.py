"""What tabs show: the question that is open where a column is missing, and which models stand side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from finetuning.web.language import english, korean
from finetuning.web.work import AskedColumn, Look, Model, Said

pytest.importorskip("gradio", minversion="6.0.0", reason="the page needs Gradio 6 (make board)")


def test_a_missing_column_is_a_question_that_is_asked_above() -> None:
    from finetuning.web.data_tab import found_html

    asked = (AskedColumn("text", "text_column", "내용", True), AskedColumn("label", "label_column", None, True))
    look = Look(
        columns=("내용", "구분"), asked=asked, problem=("열이 없습니다.", "영화.csv", "--label_column 플래그로")
    )
    assert "정답(라벨)은 어느 열에 있습니까?" in found_html(look, korean) and "--label_column" not in found_html(
        look, korean
    )
    assert "Which column has the right answer" in found_html(look, english)
    other = Look(columns=("내용",), asked=asked[:1], problem=("행이 없습니다.", "영화.csv", ""))
    assert "행이 없습니다." in found_html(other, korean)


def test_models_that_other_boxes_ask_do_not_stand_side_by_side() -> None:
    from finetuning.web.try_tab import ask_alike

    pair = [("question", "question"), ("context", "context")]
    finds, searches = Model("question-answering", pair), Model("embedding", pair)
    assert ask_alike([finds, finds]) and not ask_alike([finds, searches])
    assert ask_alike([Model("text-generation", (), chats=True), Model("preference", (), chats=True)])


class StoppedTalk:
    """Models of which the first one's answer is stopped."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def chat(self, model: str, text: str) -> Iterator[Said]:
        self.asked.append(model)
        yield Said("안녕")
        yield Said("안녕하", is_stopped=True)


def test_who_stops_an_answer_does_not_wait_for_that_of_the_other_model() -> None:
    from finetuning.web.try_tab import answered

    talks, chat = StoppedTalk(), Model("text-generation", (), chats=True)
    shown = list(answered(cast(Any, talks), korean, (("가", chat), ("나", chat)), "", "안녕?"))
    assert talks.asked == ["가"] and "여기서 멈췄습니다." in shown[-1][0] and "안녕하" in shown[-1][1]


def test_wrong_rows_have_a_short_score_and_the_users_numbers_as_they_are(tmp_path: Path) -> None:
    from finetuning.web.results_tab import wrong_rows

    file = tmp_path / "errors.csv"
    file.write_text("row,text,score,predicted_score\n1,3.14159265,2.71828182,0.98963099\n", encoding="utf-8-sig")
    html = wrong_rows(file)
    assert "3.14159265" in html and "2.71828182" in html and "0.990" in html and "0.98963099" not in html
