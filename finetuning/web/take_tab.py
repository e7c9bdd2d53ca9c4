"""The last tab: a model in the format of another program, as a download, with the commands that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.language import Say
from finetuning.web.shown import command, problem, said, shown
from finetuning.web.work import Work

_USED_BY = "다른 프로그램에서 쓰기"  # how `export` heads the commands of other programs


def build_take(work: Work, say: Say, tab: gr.Tab) -> None:
    """Build the tab; see `build_results` for the arguments."""
    model = gr.Dropdown([], label=say("모델", "Model"), elem_id="take-model")
    links = gr.HTML(elem_id="take-links")
    form = gr.Radio([(say(ko, en), name) for name, ko, en in work.formats()], value="merged",
                    label=say("어디에서 쓸까요?", "What shall use it?"), elem_id="take-format")  # fmt: skip
    export = gr.Button(say("내보내기", "Export"), variant="primary", elem_id="take-export")
    found = gr.HTML(elem_id="take-found")

    def listed(now: str | None) -> tuple[Any, str]:
        models = work.models()
        value = now if now in {folder for _, folder in models} else models[-1][1] if models else None
        return gr.update(choices=models, value=value), linked(value)

    def linked(folder: str | None) -> str:
        name = next((one for one, place in work.models() if place == folder), None)
        if name is None:
            return said(say("아직 모델이 없습니다.", "There is no model yet."))
        text = say("모델 폴더를 zip으로 내려받기", "Download the model's folder as a zip")
        typed = say("명령줄에서 예측하기", "Predict on the command line")
        serve = work.command("predict", "--model_name", folder or "")
        vllm = f"<h4>vLLM</h4>{command(f'vllm serve {folder}')}" if _generates(Path(folder or "")) else ""
        return f"<p><a href='/run-zip/{quote(name)}'>{shown(text)}</a></p><h4>{shown(typed)}</h4>{command(serve)}{vllm}"

    def exported(folder: str | None, chosen: str) -> Iterator[str]:
        if not folder:
            yield problem(say("아직 모델이 없습니다.", "There is no model yet."))
            return
        yield said(say("내보내고 있습니다.", "Exporting."))
        printed = ""
        try:
            for printed in work.export(folder, chosen):
                yield said(printed.splitlines()[-1])
        except FinetuningError as error:
            yield problem(error.what, error.where, error.remedy)
            return
        name = next((one for one, place in work.models() if place == folder), "")
        yield _done(Path(folder), name, chosen, printed, say) + command(
            work.command("export", "--model_name", folder, "--format", chosen))  # fmt: skip

    tab.select(listed, model, [model, links])
    model.input(linked, model, links)
    export.click(exported, [model, form], found)


def _generates(folder: Path) -> bool:
    """Return whether a folder has a whole model that writes texts, as vLLM serves it."""
    config = folder / "config.json"
    return config.is_file() and "ForCausalLM" in config.read_text(encoding="utf-8", errors="replace")


def _done(folder: Path, name: str, form: str, printed: str, say: Say) -> str:
    """Return the files of an export to download, and the commands of other programs."""
    target = folder / form
    files = sorted(path for path in target.iterdir() if path.is_file() and not path.name.startswith("."))
    linked = "".join(
        f"<li><a href='/run-file/{quote(f'{name}/{form}/{path.name}')}' download>{shown(path.name)}</a> "
        f"{path.stat().st_size / 2**20:,.1f} MiB</li>"
        for path in files
    )
    used = printed.partition(_USED_BY)[2].strip("\n")
    heading = say("다른 프로그램에서 쓰기", "Use it in other programs")
    shown_use = f"<h4>{shown(heading)}</h4><pre class='command' tabindex='0'>{shown(used)}</pre>" if used else ""
    vllm = f"<h4>vLLM</h4>{command(f'vllm serve {target}')}" if form == "merged" else ""
    where = say(f"저장했습니다: {target}", f"Saved: {target}")
    return f"{said(where)}<ul>{linked}</ul>{shown_use}{vllm}"
