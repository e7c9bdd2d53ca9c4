"""What tabs show: the question that is open where a column is missing, and which models stand side by side."""

from __future__ import annotations

import pytest

from finetuning.web.language import english, korean
from finetuning.web.work import AskedColumn, Look, Model

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
