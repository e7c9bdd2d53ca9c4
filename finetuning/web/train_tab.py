"""The third tab: start a run, watch it, stop it, go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.events import IN_TURN, LAST_COUNTS
from finetuning.web.language import Say
from finetuning.web.progress import job_html, log_html
from finetuning.web.shown import command, items, problem, said
from finetuning.web.work import Chosen, Job, JobState, SettingFact, Work

_LOOKED_S = 2.0
_COMMON = ("training.epochs", "training.learning_rate", "data.batch_size", "data.max_length")


def build_train(work: Work, say: Say, chosen: gr.State, page: gr.Blocks) -> None:
    """Build the tab.

    Args:
        work: What the commands do.
        say: The language.
        chosen: What is chosen so far; the tab changes it.
        page: The page, which shows the runs as soon as it is opened.
    """
    name = _build_settings(work, say, chosen)
    start = gr.Button(say("학습 시작", "Start training"), variant="primary", elem_id="train-start")
    message = gr.HTML(elem_id="train-message")
    runs, view = _build_watch(work, say, page)
    nothing = [gr.skip()] * (2 + len(view))

    def on_start(now: Chosen) -> tuple[Any, ...]:
        lacking = [what for what, is_there in ((say("데이터", "data"), now.data), (say("모델", "a model"), now.model))
                   if not is_there]  # fmt: skip
        if lacking:
            what = ", ".join(lacking)
            return now, problem(say(f"먼저 골라야 합니다: {what}", f"Choose {what} first.")), *nothing
        try:
            job = work.start(now)
        except FinetuningError as error:
            return now, problem(error.what, error.where, error.remedy), *nothing
        text = say(f"'{job.name}' 학습을 시작했습니다.", f"Run '{job.name}' was started.")
        if job.state == "queued":
            text = say(f"'{job.name}' 학습이 차례를 기다립니다.", f"Run '{job.name}' waits for its turn.")
        later = replace(now, name=work.free_name(now), is_named=False)
        return later, said(text), _choices(work, say, job.name), "", *_watched(work, say, job.name)

    start.click(on_start, chosen, [chosen, message, runs, name, *view], **IN_TURN)


def _build_settings(work: Work, say: Say, chosen: gr.State) -> gr.Textbox:
    """Build the boxes of the run's name and settings, and the command that they make; return that of the name."""
    facts = {fact.key: fact for fact in work.facts()}
    name = gr.Textbox(
        "", label=say("학습 이름 (결과 폴더의 이름)", "Name of the run (its folder)"), elem_id="train-name"
    )
    preset = gr.Checkbox(True, label=say("설정을 자동으로 고르기 (권장). 아래에 쓴 값은 그대로 씁니다.",
                                         "Choose settings automatically (recommended); what is typed below stays."),
                         elem_id="train-preset")  # fmt: skip
    common, key, about, value, others = _build_boxes(facts, say)
    explained, typed = gr.State(None), gr.HTML(elem_id="train-command")

    def checked(now: Chosen) -> str:
        if not (now.data and now.model and now.name):
            return ""
        try:
            return command(work.check(now))
        except FinetuningError as error:
            return problem(error.what, error.where, error.remedy)

    def on_setting(now: Chosen, setting: str | None, given: str) -> tuple[Chosen, str]:
        if setting:
            now = replace(now, settings=_with(now.settings, setting, given))
        return now, items(f"{one}: {text}" for one, text in now.settings.items() if one not in _COMMON)

    def setter(setting: str) -> Any:
        return lambda now, given: on_setting(now, setting, given)

    for setting, box in zip(_COMMON, common, strict=True):
        box.change(setter(setting), [chosen, box], [chosen, others], **IN_TURN)

    def on_key(one: str | None, before: str | None, now: Chosen, typed_so_far: str) -> tuple[Any, ...]:
        if one is None or one == before:
            return gr.skip(), gr.skip(), before
        kept = now.settings.get(one, "")
        # an empty box is left alone: what is typed before this answer arrives would be erased
        return said(_about(facts, one, say)), kept if kept or typed_so_far else gr.skip(), one

    key.input(on_key, [key, explained, chosen, value], [about, value, explained], **LAST_COUNTS)
    value.change(on_setting, [chosen, key, value], [chosen, others], **IN_TURN)
    preset.input(lambda now, wanted: replace(now, preset=wanted), [chosen, preset], chosen, **LAST_COUNTS)

    def on_name(now: Chosen, given: str) -> Chosen:
        if not given.strip() and not now.is_named:
            return now
        return replace(now, name=given.strip() or work.free_name(now), is_named=bool(given.strip()))

    name.change(on_name, [chosen, name], chosen, **IN_TURN)
    chosen.change(checked, chosen, typed)
    # the page's own name stands behind what is typed, which no answer that comes late can then replace
    unless_typed = say("비워 두면 이 이름", "unless you type another")
    chosen.change(lambda now: gr.skip() if now.is_named or not now.name else gr.update(
        placeholder=f"{now.name} ({unless_typed})"), chosen, name)  # fmt: skip
    return name


def _build_boxes(
    facts: Mapping[str, SettingFact], say: Say
) -> tuple[list[gr.Textbox], gr.Dropdown, gr.HTML, gr.Textbox, gr.HTML]:
    """Build the boxes of common settings; the choice of another one, what is said of it, its value; all the others."""
    with gr.Accordion(say("설정 바꾸기", "Change settings"), open=False, elem_id="train-settings"):
        with gr.Row():
            common = [
                gr.Textbox("", label=say(facts[key].korean, facts[key].english).split(".")[0], placeholder=say(
                    "자동", "automatic"), info=key, elem_id=key.replace(".", "-"))
                for key in _COMMON
            ]  # fmt: skip
        key = gr.Dropdown(sorted(facts), value=None, label=say("다른 설정", "Another setting"), elem_id="train-key")
        about = gr.HTML()
        value = gr.Textbox("", label=say("값 (비우면 기본값)", "Value (empty for the default)"), elem_id="train-value")
        others = gr.HTML(elem_id="train-others")
    return common, key, about, value, others


def _build_watch(work: Work, say: Say, page: gr.Blocks) -> tuple[gr.Dropdown, list[Any]]:
    """Build what shows a run and stops or resumes it; return the choice of runs, and what is shown of the chosen."""
    runs = gr.Dropdown([], label=say("지켜볼 학습", "Run to watch"), elem_id="train-runs")
    with gr.Row():
        stop = gr.Button(
            say("멈추기 (상태 저장)", "Stop (its state is saved)"), interactive=False, elem_id="train-stop"
        )
        resume = gr.Button(say("이어서 학습", "Resume"), interactive=False, elem_id="train-resume")
    live = gr.HTML(elem_id="train-live")
    with gr.Accordion(say("출력된 내용과 명령", "What it printed, and its command"), open=False):
        printed = gr.HTML(elem_id="train-log")
    view = [live, printed, stop, resume]

    def on_button(act: Any) -> Any:
        def press(run: str | None) -> tuple[Any, ...]:
            try:
                act(run or "")
            except FinetuningError as error:
                return gr.skip(), problem(error.what, error.where, error.remedy), *[gr.skip()] * 3
            return _opened(work, say, run)

        return press

    def watched(run: str | None) -> tuple[Any, ...]:
        return _watched(work, say, run)

    def looked(run: str | None, before: Any) -> tuple[Any, ...]:
        """Show the run again, and the states of all runs where one has changed; an open list would close."""
        choices = _named(work.jobs(), say)
        return gr.skip() if choices == before else gr.update(choices=choices), choices, *_watched(work, say, run)

    stop.click(on_button(work.stop), runs, [runs, *view])
    resume.click(on_button(work.resume), runs, [runs, *view])
    runs.input(watched, runs, view)
    page.load(lambda: _opened(work, say), None, [runs, *view], show_progress="hidden")
    listed = gr.State(None)  # the names and states that the list shows
    gr.Timer(_LOOKED_S).tick(looked, [runs, listed], [runs, listed, *view], show_progress="hidden")
    return runs, view


def _watched(work: Work, say: Say, run: str | None) -> tuple[Any, ...]:
    """Return how a run goes and what it printed, as HTML, and which of the two buttons can be pressed."""
    if not run:
        return said(say("아직 학습이 없습니다.", "There is no run yet.")), "", *_buttons()
    try:
        job = work.job(run)
    except FinetuningError as error:
        return problem(error.what, "", error.remedy), "", *_buttons()
    return job_html(job, say), log_html(job), *_buttons(job.state)


def _buttons(state: JobState | None = None) -> tuple[Any, Any]:
    """Return whether a run can be stopped, and whether it can go on."""
    can_stop, can_resume = state in ("queued", "running"), state in ("stopped", "failed")
    return gr.update(interactive=can_stop), gr.update(interactive=can_resume)


def _opened(work: Work, say: Say, wanted: str | None = None) -> tuple[Any, ...]:
    """Return the choice of runs and what is shown of one: the wanted one, else the one that trains, else the newest."""
    jobs = work.jobs()
    names = [job.name for job in jobs]
    training = next((job.name for job in jobs if job.state in ("running", "stopping")), None)
    first = wanted if wanted in names else training or next(iter(names), None)
    return _choices(work, say, first, jobs), *_watched(work, say, first)


def _choices(work: Work, say: Say, chosen: str | None, jobs: list[Job] | None = None) -> Any:
    return gr.update(choices=_named(work.jobs() if jobs is None else jobs, say), value=chosen)


def _named(jobs: list[Job], say: Say) -> list[tuple[str, str]]:
    """Return each run's name with its state, and its name."""
    states = {
        "queued": say("기다림", "waiting"), "running": say("학습 중", "training"),
        "stopping": say("멈추는 중", "stopping"), "finished": say("끝남", "done"),
        "stopped": say("멈춤", "stopped"), "failed": say("실패", "failed"),
    }  # fmt: skip
    return [(f"{job.name} ({states[job.state]})", job.name) for job in jobs]


def _with(settings: Mapping[str, str], key: str, value: str) -> dict[str, str]:
    """Return settings with one more; without it where its value is empty."""
    kept = {one: text for one, text in settings.items() if one != key}
    return {**kept, key: value} if value.strip() else kept


def _about(facts: Mapping[str, Any], key: str, say: Say) -> str:
    fact = facts[key]
    return say(f"{fact.korean}. 기본값: {fact.default}", f"{fact.english}. Default: {fact.default}")
