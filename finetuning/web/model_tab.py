"""The second tab: which model learns, and whether this machine can train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.events import IN_TURN, LAST_COUNTS
from finetuning.web.language import Say
from finetuning.web.shown import command, problem, said, shown
from finetuning.web.work import Chosen, Offer, Work

# what `plan` prints, by how its lines begin: shown first, in this order, with what is put before it
_FIRST = {"한도": "메모리 ", "합계": "필요한 메모리(GiB) ", "예상 시간": "", "한 스텝": "", "기준": "", "조언": ""}


def build_model(work: Work, say: Say, chosen: gr.State) -> None:
    """Build the tab; see `build_data` for the arguments."""
    advice = say("처음에는 작은 모델로 해 보세요. 큰 모델은 더 정확하지만 오래 걸리고 메모리를 더 씁니다.",
                 "Begin with a small model. Large ones are more accurate and take more time and memory.")  # fmt: skip
    gr.HTML(said(advice))
    nothing_yet = say("모델: 데이터를 고르면 여기에 나옵니다", "Model: choose data, and models appear here")
    offers = gr.Radio([], label=nothing_yet, elem_id="model-offers")
    own = gr.Textbox(
        "",
        label=say("다른 모델: 폴더나 Hugging Face Hub ID", "Another model: a folder or an id of the Hugging Face Hub"),
        elem_id="model-own",
    )
    try_out = gr.Button(say("이 컴퓨터에서 되는지 확인하기", "Check whether this machine can train it"),
                        elem_id="model-check")  # fmt: skip
    found = gr.HTML(elem_id="model-found")

    def offered(now: Chosen) -> Any:
        names = work.offers(now.task)
        value = now.model if now.model in {offer.name for offer in names} else None
        if not now.data:
            return gr.update(choices=[], value=None, label=nothing_yet)
        choices = [(_told(one, say), one.name) for one in names]
        return gr.update(choices=choices, value=value, label=say("모델", "Model"))

    def checked(now: Chosen) -> Iterator[str]:
        if not now.data:
            yield problem(say("먼저 데이터를 고르세요.", "Choose data first."))
            return
        yield said(
            say("몇 스텝을 실행해 보고 있습니다. 1분쯤 걸릴 수 있습니다.", "Trying a few steps, for about a minute.")
        )
        try:
            *_, printed = work.plan(now)
        except FinetuningError as error:
            yield problem(error.what, error.where, error.remedy)
            return
        line = work.check(replace(now, name=now.name or "run")).replace(" train ", " plan ", 1)
        yield planned_html(printed, say) + command(line)

    def on_own(now: Chosen, name: str) -> Chosen:
        if not name.strip() and now.model in {offer.name for offer in work.offers(now.task)}:
            return now  # the box was emptied because a model of the list was chosen
        return replace(now, model=name.strip())

    chosen.change(offered, chosen, offers)
    offers.input(lambda now, name: (replace(now, model=name), ""), [chosen, offers], [chosen, own], **LAST_COUNTS)
    own.change(on_own, [chosen, own], chosen, **IN_TURN)
    try_out.click(checked, chosen, found)


def _told(offer: Offer, say: Say) -> str:
    where = say("들어 있음, 인터넷 없이 됩니다", "bundled, needs no network") if offer.is_here else say(
        "처음 한 번 내려받습니다", "downloaded once")  # fmt: skip
    return f"{offer.name} ({offer.size}, {where})"


def planned_html(printed: str, say: Say) -> str:
    """Return what `plan` printed: first what is to know, then all of it."""
    lines = [line.strip() for line in printed.splitlines()]
    first = [more + line for begins, more in _FIRST.items() for line in lines if line.startswith(begins)]
    every = f"<pre class='command log' tabindex='0'>{shown(printed)}</pre>"
    more = say("전체 보기", "All of it")
    return f"{said(chr(10).join(first))}<details><summary>{shown(more)}</summary>{every}</details>"
