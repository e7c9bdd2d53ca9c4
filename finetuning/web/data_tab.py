"""The first tab: drop a file, see what is in it, and say in sentences what shall be learned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.events import IN_TURN, LAST_COUNTS
from finetuning.web.language import Say, english
from finetuning.web.shown import bars, items, problem, record_table, said, shown
from finetuning.web.tasks import column_question, task_choices
from finetuning.web.work import Chosen, Look, Work

_MOST_COLUMNS = 4  # that are asked for


def build_data(work: Work, say: Say, chosen: gr.State) -> None:
    """Build the tab; see `build_train` for the arguments."""
    gr.HTML(said(say("학습할 파일을 올리세요. CSV, 엑셀(xlsx), JSONL 등을 읽고, 이 컴퓨터 밖으로 보내지 않습니다.",
                     "Drop the file to learn from: CSV, Excel (xlsx), JSONL. It stays on this machine.")))  # fmt: skip
    file, example, test, path, read = _build_sources(say)
    task = gr.Dropdown(task_choices(say), label=say("무엇을 하는 모델입니까?", "What shall the model do?"),
                       visible=False, elem_id="data-task")  # fmt: skip
    with gr.Row():
        columns = [gr.Dropdown(visible=False, elem_id=f"data-column-{n}") for n in range(_MOST_COLUMNS)]
    fix = gr.Checkbox(visible=False, elem_id="data-fix")
    found = gr.HTML(elem_id="data-found")
    asked = gr.State(())  # (setting, column that is shown) of each choice of a column
    outputs = [chosen, asked, task, *columns, fix, found]
    nothing_new: list[Any] = [gr.skip()] * len(outputs)

    def looked(now: Chosen) -> list[Any]:
        try:
            return _shown_all(work, now, work.look(now) if now.data else Look(), say)
        except FinetuningError as error:
            return [now, (), gr.skip(), *(gr.skip() for _ in range(_MOST_COLUMNS + 1)),
                    problem(error.what, error.where, error.remedy)]  # fmt: skip

    def on_source(now: Chosen, source: str | None) -> list[Any]:
        name = now.name if now.is_named else ""
        return looked(replace(now, data=source or "", task="", columns={}, label_map={}, name=name))

    def on_task(now: Chosen, name: str | None) -> list[Any]:
        if not name or name == now.task:
            return nothing_new
        return looked(replace(now, task=name, columns={}, label_map={}))

    def on_column(place: int) -> Callable[..., list[Any]]:
        def change(now: Chosen, shown_now: Sequence[tuple[str, str | None]], column: str | None) -> list[Any]:
            if place >= len(shown_now) or column == shown_now[place][1]:
                return nothing_new
            return looked(replace(now, columns={**now.columns, shown_now[place][0]: column or ""}, label_map={}))

        return change

    def on_path(now: Chosen, path: str) -> list[Any]:
        if path.strip():
            return on_source(now, path.strip())
        what = say("파일이나 폴더, Hub ID를 쓴 뒤 누르세요.", "Type a file, a folder or an id of the Hub first.")
        return [*nothing_new[1:], problem(what)]

    file.change(on_source, [chosen, file], outputs, **IN_TURN)
    example.click(lambda now: on_source(now, work.example()), chosen, outputs, **IN_TURN)
    gr.on([read.click, path.submit], on_path, [chosen, path], outputs, **IN_TURN)
    test.change(lambda now, given: looked(replace(now, test=given or "")), [chosen, test], outputs, **IN_TURN)
    task.input(on_task, [chosen, task], outputs, **LAST_COUNTS)
    for place, column in enumerate(columns):
        column.input(on_column(place), [chosen, asked, column], outputs, **LAST_COUNTS)

    def on_fix(now: Chosen, wanted: bool) -> Chosen:
        return replace(now, label_map=work.look(replace(now, label_map={})).merged if wanted else {})

    fix.input(on_fix, [chosen, fix], chosen, **LAST_COUNTS)


def _build_sources(say: Say) -> tuple[gr.File, gr.Button, gr.File, gr.Textbox, gr.Button]:
    """Build what data come from: a file, the example, a file for the test, and a path with the button that reads it."""
    with gr.Row():
        file = gr.File(label=say("학습할 파일", "File to learn from"), elem_id="data-file")
        with gr.Column():
            example = gr.Button(say("예제 데이터로 해 보기 (리뷰)", "Try the example data (reviews)"),
                                elem_id="data-example")  # fmt: skip
            with gr.Accordion(say("다른 방법", "Other ways"), open=False):
                test = gr.File(label=say("시험할 파일 (없으면 10%를 떼어 둡니다)",
                                         "Test file (10% is held out without one)"))  # fmt: skip
                path = gr.Textbox("",
                    label=say("이 컴퓨터의 파일이나 폴더, 또는 Hugging Face Hub ID",
                              "A file or folder of this machine, or an id of the Hugging Face Hub"),
                    elem_id="data-path",
                )  # fmt: skip
                read = gr.Button(say("읽기", "Read"), elem_id="data-read")
    return file, example, test, path, read


def _shown_all(work: Work, now: Chosen, look: Look, say: Say) -> list[Any]:
    """Return the values of all outputs for what was found."""
    if not now.data:
        return [now, (), gr.update(visible=False), *(gr.update(visible=False) for _ in range(_MOST_COLUMNS + 1)), ""]
    task_name = look.meant or look.task
    now = replace(now, task=task_name, model=_model_for(work, now, task_name), name=now.name or work.free_name(now))
    asked = [column for column in look.asked if column.is_needed or column.found][:_MOST_COLUMNS]
    chosen: list[Any] = [
        gr.update(choices=list(look.columns), value=column.found, visible=True,
                  label=column_question(column.role, say))
        for column in asked
    ]  # fmt: skip
    chosen += [gr.update(visible=False)] * (_MOST_COLUMNS - len(chosen))
    fix = gr.update(
        visible=bool(look.merged), value=bool(now.label_map),
        label=say("잘못 쓴 것으로 보이는 라벨을 합치거나 빼고 학습하기", "Merge or drop the labels that look mistaken"),
    )  # fmt: skip
    task = gr.update(value=now.task or None, visible=bool(look.columns))
    return [now, tuple((one.setting, one.found) for one in asked), task, *chosen, fix, found_html(look, say)]


def _model_for(work: Work, now: Chosen, task: str) -> str:
    """Return the model for a task: what was chosen, unless it stands in the short lists of other tasks alone."""
    offered = [one.name for one in work.offers(task)]
    of_others = {one.name for _, other in task_choices(english) for one in work.offers(other)} - {*offered}
    return now.model if now.model and now.model not in of_others else next(iter(offered), "")


def found_html(look: Look, say: Say) -> str:
    """Return what was found in the data."""
    parts = []
    if look.problem is not None:
        parts.append(_problem_html(look, look.problem, say))
    if look.rows:
        names = {"train": say("학습", "train"), "validation": say("검증", "validation"), "test": say("시험", "test")}
        counted = ", ".join(
            f"{names[name]} {count:,}"
            for name, count in sorted(look.rows.items(), key=lambda one: list(names).index(one[0]))
        )
        parts.append(said(say(f"쓸 수 있는 행: {counted}", f"Usable rows: {counted}")))
    if look.is_cut:
        parts.append(said(say("처음 100,000행까지만 살펴보았습니다. 학습에는 모두 씁니다.",
                              "Only the first 100,000 rows were looked at; training uses all.")))  # fmt: skip
    if look.meant:
        parts.append(said(say("라벨에 맞추어 위의 '무엇을 하는 모델입니까?'를 바꾸었습니다.",
                              "The labels mean another task, which is chosen above.")))  # fmt: skip
    if look.lengths:
        half, most, longest = (f"{length:,}" for length in look.lengths)
        korean = f"글의 길이: 절반이 {half}자 이하, 90%가 {most}자 이하, 가장 긴 글 {longest}자"
        parts.append(said(say(korean, f"Length: half up to {half}, 90% up to {most}, longest {longest} characters")))
    parts.append(items([*look.notes, *([look.repeats] if look.repeats else [])]))
    if look.doubts:
        heading = say("확인할 라벨", "Labels to check")
        parts.append(f"<h4>{shown(heading)}</h4>{items(look.doubts)}")
    if look.labels:
        heading = say(f"라벨 {len(look.labels):,}가지", f"{len(look.labels):,} labels")
        parts.append(f"<h4>{shown(heading)}</h4>{bars(look.labels)}")
    if look.first:
        heading = say("처음 몇 행", "First rows")
        parts.append(f"<h4>{shown(heading)}</h4>{record_table(look.columns, look.first)}")
    return "".join(parts)


def _problem_html(look: Look, told: tuple[str, str, str], say: Say) -> str:
    """Return why the data cannot be used; the question that is open where a column is to be chosen."""
    lacking = [one for one in look.asked if one.is_needed and not one.found]
    if not lacking:
        return problem(*told)
    remedy = say(
        "위의 같은 질문에서 열을 고르세요. 그런 열이 없으면 '무엇을 하는 모델입니까?'에서 다른 것을 고르세요.",
        "Choose it above. Where no column has that, choose another answer to 'What shall the model do?'.",
    )
    return problem(" ".join(column_question(one.role, say) for one in lacking), remedy=remedy)
