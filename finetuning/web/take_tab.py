"""The last tab: a model in the format of another program, as a download, with the commands that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from exceptions import FinetuningError
from finetuning.web.events import chosen_of
from finetuning.web.language import Say
from finetuning.web.shown import command, problem, said, shown
from finetuning.web.work import Work

_USED_BY = "다른 프로그램에서 쓰기"  # how `export` heads the commands of other programs


def build_take(work: Work, say: Say, tab: gr.Tab) -> None:
    """Build the tab; see `build_results` for the arguments."""
    model = gr.Dropdown([], label=say("모델", "Model"), elem_id="take-model")
    links = gr.HTML(elem_id="take-links")
    form = gr.Radio([], label=say("다른 프로그램에서 쓸 형식", "Format for another program"), elem_id="take-format")
    export = gr.Button(say("내보내기", "Export"), variant="primary", elem_id="take-export")
    found, of_model = gr.HTML(elem_id="take-found"), gr.State(None)  # what is shown, and for which model
    newest = gr.State(None)  # the model that was chosen without being asked for

    def listed(now: str | None, before: str | None) -> tuple[Any, ...]:
        models = work.models()
        value, unasked = chosen_of([folder for _, folder in models], now, before)
        return gr.update(choices=models, value=value), unasked, *shown_for(value, models)

    def looked(folder: str | None, before: str | None) -> tuple[Any, ...]:
        return (gr.skip(),) * 4 if folder == before else shown_for(folder, work.models())

    def shown_for(folder: str | None, models: list[tuple[str, str]]) -> tuple[Any, ...]:
        if not folder:
            return said(say("아직 모델이 없습니다.", "There is no model yet.")), gr.update(choices=[]), "", folder
        try:
            forms = [(say(ko, en), name) for name, ko, en in work.formats(folder)]
        except FinetuningError as error:  # of a folder that misses files
            return problem(error.what, error.where, error.remedy), gr.update(choices=[]), "", folder
        return (
            _linked(work, folder, _name_of(models, folder), say),
            gr.update(choices=forms, value=forms[0][1] if forms else None),
            "",
            folder,
        )

    def exported(folder: str | None, chosen: str | None) -> Iterator[str]:
        if not folder or not chosen:
            yield problem(say("먼저 모델과 형식을 고르세요.", "Choose a model and a format first."))
            return
        yield said(say("내보내고 있습니다. 큰 모델은 몇 분 걸립니다.", "Exporting; minutes for a large model."))
        printed = ""
        try:
            for printed in work.export(folder, chosen):
                yield said(printed.splitlines()[-1])
        except FinetuningError as error:
            yield problem(error.what, error.where, error.remedy)
            return
        yield _done(Path(folder), _name_of(work.models(), folder), chosen, printed, say) + command(
            work.command("export", "--model_name", folder, "--format", chosen))  # fmt: skip

    tab.select(listed, [model, newest], [model, newest, links, form, found, of_model])
    model.input(looked, [model, of_model], [links, form, found, of_model], trigger_mode="always_last")
    export.click(exported, [model, form], found)


def _name_of(models: list[tuple[str, str]], folder: str) -> str:
    return next((name for name, place in models if place == folder), "")


def _linked(work: Work, folder: str, name: str, say: Say) -> str:
    """Return the download of a model as it is, and the commands that use it."""
    text = say("모델 폴더를 zip으로 내려받기", "Download the model's folder as a zip")
    without = say("데이터의 글이 든 보고서는 넣지 않습니다.", "Reports, which hold texts of the data, are left out.")
    typed, predict = say("명령줄에서 예측하기", "Predict on the command line"), work.command(
        "predict", "--model_name", folder)  # fmt: skip
    vllm = f"<h4>vLLM</h4>{command(f'vllm serve {folder}')}" if _writes(Path(folder)) else ""
    return (
        f"<p><a href='/run-zip/{quote(name)}' download>{shown(text)}</a> {shown(without)}</p>"
        f"<h4>{shown(typed)}</h4>{command(predict)}{vllm}"
    )


def _writes(folder: Path) -> bool:
    """Return whether a folder has a whole model that writes texts, as vLLM serves it; an adapter is none."""
    config, is_adapter = folder / "config.json", (folder / "adapter_config.json").is_file()
    return not is_adapter and config.is_file() and "ForCausalLM" in config.read_text(encoding="utf-8", errors="replace")


def _done(folder: Path, name: str, form: str, printed: str, say: Say) -> str:
    """Return the files of an export to download, and the commands of other programs."""
    target = folder / form
    files = sorted(path for path in target.iterdir() if path.is_file() and not path.name.startswith("."))
    linked = "".join(
        f"<li><a href='/run-file/{quote(f'{name}/{form}/{path.name}')}' download>{shown(path.name)}</a> "
        f"{_size(path.stat().st_size)}</li>"
        for path in files
    )
    used = printed.partition(_USED_BY)[2].strip("\n")
    heading = say("다른 프로그램에서 쓰기", "Use it in other programs")
    shown_use = f"<h4>{shown(heading)}</h4><pre class='command' tabindex='0'>{shown(used)}</pre>" if used else ""
    vllm = f"<h4>vLLM</h4>{command(f'vllm serve {target}')}" if _writes(target) else ""
    where = say(f"저장했습니다: {target}", f"Saved: {target}")
    return f"{said(where)}<ul>{linked}</ul>{shown_use}{vllm}"


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"
