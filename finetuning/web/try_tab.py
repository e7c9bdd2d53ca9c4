"""The fifth tab: a trained model answers one text or a file, alone or beside another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.answers import answer_html, nearest_html
from finetuning.web.events import chosen_of
from finetuning.web.language import Say
from finetuning.web.shown import command, problem, said, shown
from finetuning.web.tasks import given_as
from finetuning.web.work import Model, Work

_BOXES = 2
_PASSAGES = "embedding"  # the task whose texts are compared with several passages


def build_try(work: Work, say: Say, tab: gr.Tab) -> None:
    """Build the tab; see `build_results` for the arguments."""
    with gr.Row():
        first = gr.Dropdown([], label=say("모델", "Model"), elem_id="try-model")
        second = gr.Dropdown([], label=say("나란히 볼 모델 (없어도 됩니다)", "Model beside it (optional)"),
                             elem_id="try-second")  # fmt: skip
    load = gr.Button(say("불러오기", "Load"), elem_id="try-load")
    state = gr.HTML(elem_id="try-state")
    opened, talk = gr.State(()), gr.State("")  # (folder, Model) of each model that is loaded; the conversation so far
    newest = gr.State(None)  # the model that was chosen without being asked for
    boxes = [gr.Textbox("", visible=False, lines=3, max_lines=12, elem_id=f"try-text-{n}") for n in range(_BOXES)]
    with gr.Accordion(say("생성 설정", "Settings of generation"), open=False, visible=False) as generation:
        tokens = gr.Textbox("", label=say("최대 길이 (토큰)", "Most tokens"), elem_id="try-tokens")
        warmth = gr.Textbox(
            "",
            label=say("temperature (낮으면 늘 비슷하게, 높으면 다양하게)", "Temperature (low: alike, high: varied)"),
            elem_id="try-temperature",
        )
        gr.HTML(said(say("바꾼 뒤 불러오기를 다시 누르세요.", "Press Load again after a change.")))
    with gr.Row(visible=False) as buttons:
        ask = gr.Button(say("답 보기", "Answer"), variant="primary", elem_id="try-ask")
        hush = gr.Button(say("답 멈추기", "Stop the answer"), visible=False, elem_id="try-stop")
        again = gr.Button(say("대화를 처음부터", "New conversation"), visible=False, elem_id="try-again")
    answers = gr.HTML(elem_id="try-answers")
    whole = _build_file(work, say, first)

    def listed(now: str | None, before: str | None) -> tuple[Any, Any, Any]:
        found = work.models()
        value, unasked = chosen_of([folder for _, folder in found], now, before)
        beside = gr.update(choices=[(say("없음", "none"), ""), *found])
        return gr.update(choices=found, value=value), beside, unasked

    def hushed(models: tuple[tuple[str, Model], ...]) -> None:
        for folder, _ in models:
            work.hush(folder)

    def forgotten(models: tuple[tuple[str, Model], ...]) -> tuple[str, str]:
        for folder, _ in models:
            work.forget(folder)
        return said(say("지금까지의 대화를 지웠습니다.", "The conversation was cleared.")), ""

    tab.select(listed, [first, newest], [first, second, newest])
    load.click(partial(_loaded, work, say), [first, second, tokens, warmth],
               [state, opened, answers, talk, *boxes, generation, buttons, again, whole])  # fmt: skip
    asked = gr.on([ask.click, *(box.submit for box in boxes)], partial(answered, work, say), [opened, talk, *boxes],
                  [answers, talk, boxes[0], ask, hush], show_progress_on=answers)  # fmt: skip
    # also where an answer failed
    asked.then(lambda: (gr.update(value=say("답 보기", "Answer"), interactive=True), gr.update(visible=False)), None,
               [ask, hush], show_progress="hidden")  # fmt: skip
    hush.click(hushed, opened, None, show_progress="hidden")
    again.click(forgotten, opened, [answers, talk])


def _loaded(
    work: Work, say: Say, one: str | None, other: str | None, most: str, warm: str
) -> Iterator[tuple[Any, ...]]:
    """Load one model or two; yield what is said, the models, no answer, no talk, and the updates of `_shown_boxes`."""
    hide = gr.update(visible=False)
    hidden = ["", *[hide] * _BOXES, gr.skip(), *[hide] * 3]  # settings stay, where a wrong one is typed anew
    if not one:
        yield problem(say("아직 쓸 모델이 없습니다. 먼저 학습하세요.", "Train a model first.")), (), "", *hidden
        return
    yield said(say("모델을 불러오고 있습니다.", "Loading the model.")), (), "", *hidden
    given = {"generation.max_new_tokens": most, "generation.temperature": warm}
    try:
        models = tuple((folder, work.load(folder, given)) for folder in dict.fromkeys((one, other)) if folder)
    except FinetuningError as error:
        yield problem(error.what, error.where, error.remedy), (), "", *hidden
        return
    if not ask_alike([model for _, model in models]):
        what = say(
            "태스크가 다른 두 모델은 나란히 비교할 수 없습니다.", "Models of different tasks cannot be compared."
        )
        yield problem(what), (), "", *hidden
        return
    names = ", ".join(_name(folder) for folder, _ in models)
    ready = said(
        say(f"불러온 모델: {names}. 글을 쓰고 답 보기를 누르세요.", f"Loaded {names}. Type a text and press Answer.")
    )
    yield ready, models, "", "", *_shown_boxes(models[0][1], say)


def ask_alike(models: Sequence[Model]) -> bool:
    """Return whether the same boxes ask all models: one that searches takes several passages in a box of its own."""
    return len({(model.chats, model.task == _PASSAGES, tuple(model.columns)) for model in models}) <= 1


def _build_file(work: Work, say: Say, model: gr.Dropdown) -> gr.Accordion:
    """Build the part that predicts a whole file by the chosen model."""
    whole: gr.Accordion = gr.Accordion(say("파일 하나를 한꺼번에", "A whole file at once"), open=False, visible=False)
    with whole:
        file = gr.File(label=say("정답이 없는 파일 (CSV, 엑셀 등)", "A file without answers (CSV, Excel)"),
                       elem_id="try-file")  # fmt: skip
        result = gr.File(label=say("결과", "Results"), interactive=False, visible=False, elem_id="try-result")
        told = gr.HTML()

    def predicted(folder: str | None, path: str | None) -> Iterator[tuple[Any, str]]:
        if not folder or not path:
            yield gr.update(visible=False), ""
            return
        yield gr.update(visible=False), said(say("예측하고 있습니다.", "Predicting."))
        try:
            found, line = work.predict_file(folder, path)
            yield gr.update(value=str(found), visible=True), command(line)
        except FinetuningError as error:
            yield gr.update(visible=False), problem(error.what, error.where, error.remedy)

    file.change(predicted, [model, file], [result, told])
    return whole


def _shown_boxes(model: Model, say: Say) -> list[Any]:
    """Return the updates of the boxes, the settings, the buttons and the file for a model."""
    names = [given_as(role, say) for _, role in model.columns]
    if model.chats:
        names = [say("할 말", "Your message")]
    if model.task == _PASSAGES:
        names = [say("질문", "Question"), say("문서 (한 줄에 하나씩)", "Passages (one a line)")]
    shown_boxes: list[Any] = [gr.update(label=name, visible=True, value="") for name in names[:_BOXES]]
    shown_boxes += [gr.update(visible=False, value="")] * (_BOXES - len(shown_boxes))
    writes = model.chats or model.task in ("text-generation", "text2text-generation", "preference")
    return [*shown_boxes, gr.update(visible=writes), gr.update(visible=True), gr.update(visible=model.chats),
            gr.update(visible=not model.chats)]  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """An answer as HTML, as far as it has grown, and whether the user stopped it there."""

    html: str
    is_stopped: bool = False


def answered(
    work: Work, say: Say, models: tuple[tuple[str, Model], ...], earlier: str, *texts: str
) -> Iterator[tuple[Any, ...]]:
    """Yield the conversation, what is kept of it, and the updates of the first box and the two buttons."""
    as_is = [gr.skip()] * 3
    if not models or not texts[0].strip():
        yield _talk(earlier) + problem(say("글을 먼저 쓰세요.", "Type a text first.")), earlier, *as_is
        return
    chats = models[0][1].chats
    finished = f"{earlier}<p class='asked'>{shown(texts[0])}</p>" if chats else ""
    waits = gr.update(value=say("답하고 있습니다", "Answering"), interactive=False)
    framed = _talk if chats else str
    yield framed(finished), earlier, "" if chats else gr.skip(), waits, gr.update(visible=chats)
    try:
        for folder, model in models:
            for part in _answer(work, folder, model, texts, say):
                yield framed(finished + _headed(folder, part.html, len(models) > 1)), earlier, *as_is
            finished += _headed(folder, part.html, len(models) > 1)
            if part.is_stopped:  # who stops one answer does not wait for the other model's
                break
    except FinetuningError as error:
        told = framed(finished) + problem(error.what, error.where, error.remedy)
        yield told, earlier, texts[0] if chats else gr.skip(), *as_is[1:]
        return
    yield framed(finished), finished if chats else "", *as_is


def _answer(work: Work, folder: str, model: Model, texts: tuple[str, ...], say: Say) -> Iterator[_Part]:
    """Yield a model's answer as HTML, as it grows."""
    if model.chats:
        for so_far in work.chat(folder, texts[0]):
            cut = said(say("여기서 멈췄습니다.", "Stopped here.")) if so_far.is_stopped else ""
            yield _Part(f"<p class='text'>{shown(so_far.text)}</p>{cut}", so_far.is_stopped)
        return
    if model.task == _PASSAGES:
        passages = [line.strip() for line in texts[1].splitlines() if line.strip()]
        if not passages:
            yield _Part(problem(say("문서를 한 줄에 하나씩 쓰세요.", "Type passages, one a line.")))
            return
        question, passage = (name for name, _ in model.columns[:2])
        asked = work.predict(folder, [{question: texts[0]}])
        found = work.predict(folder, [{passage: text} for text in passages])
        yield _Part(nearest_html(asked[0], found, passages))
        return
    names = [name for name, _ in model.columns][:_BOXES]
    row: Mapping[str, str] = dict(zip(names, texts, strict=False))
    roles = {role: text for (_, role), text in zip(model.columns, texts, strict=False)}
    (answer,) = work.predict(folder, [row])
    yield _Part(answer_html(answer, row, roles, say))


def _talk(html: str) -> str:
    """Return a conversation in a box that stands at its end, beside what is typed next."""
    return f"<div class='talk' tabindex='0'><div>{html}</div></div>" if html else ""


def _headed(folder: str, part: str, is_one_of_two: bool) -> str:
    return f"<section>{f'<h4>{shown(_name(folder))}</h4>' if is_one_of_two else ''}{part}</section>"


def _name(folder: str) -> str:
    return folder.replace("\\", "/").rstrip("/").rpartition("/")[2]
