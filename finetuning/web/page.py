"""The page: a tab for each part of the job, in the order in which it is done."""

from __future__ import annotations

import gradio as gr

from finetuning.web.data_tab import build_data
from finetuning.web.language import Say
from finetuning.web.model_tab import build_model
from finetuning.web.results_tab import build_results
from finetuning.web.shown import shown
from finetuning.web.take_tab import build_take
from finetuning.web.train_tab import build_train
from finetuning.web.try_tab import build_try
from finetuning.web.work import Chosen, Work


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
        chosen = gr.State(Chosen())
        with gr.Tabs():
            with gr.Tab(say("1. 데이터", "1. Data")):
                build_data(work, say, chosen)
            with gr.Tab(say("2. 모델", "2. Model"), render_children=True):
                build_model(work, say, chosen)
            with gr.Tab(say("3. 학습", "3. Train"), render_children=True):
                build_train(work, say, chosen, page)
            with gr.Tab(say("4. 결과", "4. Results")) as results:
                build_results(work, say, results)
            with gr.Tab(say("5. 써 보기", "5. Try")) as trying:
                build_try(work, say, trying)
            with gr.Tab(say("6. 가져가기", "6. Take away")) as taking:
                build_take(work, say, taking)
    return page
