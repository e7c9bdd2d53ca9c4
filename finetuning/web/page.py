"""The page: a tab for each part of the job, in the order in which it is done."""

from __future__ import annotations

import gradio as gr

from finetuning.web.data_tab import build_data
from finetuning.web.language import Say
from finetuning.web.model_tab import build_model
from finetuning.web.results_tab import build_results
from finetuning.web.shown import said, shown
from finetuning.web.take_tab import build_take
from finetuning.web.train_tab import build_train
from finetuning.web.try_tab import build_try
from finetuning.web.work import Chosen, Work

_ASKED_S = 2.0


def build(work: Work, say: Say, other: tuple[str, str]) -> gr.Blocks:
    """Build the page in one language.

    Args:
        work: What the commands do.
        say: The language.
        other: The address of the page in the other language, and that language's name.

    Returns:
        The page.
    """
    title = say("한국어 모델 파인튜닝", "Fine-tuning for Korean")
    page: gr.Blocks = gr.Blocks(title=title, analytics_enabled=False)
    with page:
        address, name = other
        gr.HTML(f"<div class='board-head'><h1>{shown(title)}</h1><a href='{address}'>{shown(name)}</a></div>")
        gr.HTML(said(say("", "Errors, logs and reports are those of the commands, which speak Korean.")))
        _stay_connected()
        chosen = gr.State(Chosen())
        with gr.Tabs() as tabs:
            with gr.Tab(say("1. 데이터", "1. Data"), id=0):
                build_data(work, say, chosen)
                _next(tabs, 1, say("다음: 모델 고르기", "Next: choose a model"))
            with gr.Tab(say("2. 모델", "2. Model"), id=1, render_children=True):
                build_model(work, say, chosen)
                _next(tabs, 2, say("다음: 학습하기", "Next: train"))
            with gr.Tab(say("3. 학습", "3. Train"), id=2, render_children=True):
                build_train(work, say, chosen, page)
                _next(tabs, 3, say("다음: 결과 보기", "Next: see the results"))
            with gr.Tab(say("4. 결과", "4. Results"), id=3) as results:
                build_results(work, say, results)
                _next(tabs, 4, say("다음: 써 보기", "Next: try it"))
            with gr.Tab(say("5. 써 보기", "5. Try"), id=4) as trying:
                build_try(work, say, trying)
                _next(tabs, 5, say("다음: 가져가기", "Next: take it away"))
            with gr.Tab(say("6. 가져가기", "6. Take away"), id=5) as taking:
                build_take(work, say, taking)
    return page


def _next(tabs: gr.Tabs, place: int, text: str) -> None:
    """Add a button that opens the next tab, without asking the server."""
    selects = f"() => ({{ __type__: 'update', selected: {place} }})"
    gr.Button(text, elem_id=f"next-{place}").click(None, None, tabs, js=selects)


def _stay_connected() -> None:
    """Ask for nothing every few seconds.

    Gradio's server closes the stream of answers when nothing is asked for. What a browser asks for in that moment is
    answered on no stream: the answer waits until the next question opens one. In the mode `multiple` a question is
    asked although another one waits.
    """
    gr.Timer(_ASKED_S).tick(lambda: None, trigger_mode="multiple", show_progress="hidden")
