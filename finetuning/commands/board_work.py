"""What the commands do for the page: the methods of `web/work.py`, each by the command that a person would type."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exceptions import FinetuningError, SettingsError
from finetuning.commands.board_jobs import Jobs
from finetuning.commands.board_use import Talks
from finetuning.commands.board_words import (
    EXAMPLES,
    check_name,
    model_offers,
    settings_in,
    train_words,
    words_of_settings,
)
from finetuning.commands.found_runs import runs_below
from finetuning.files import command_of_this_program, may_be_hub_id
from finetuning.reporting.run_rows import RunRow
from finetuning.web.printed import error_in
from finetuning.web.work import Chosen, Job, Look, Model, Offer, Said, SettingFact

_PLACE = ".board"  # beside the runs: records of what the page started, and the data that runs were started on
_CONFIGS = ("config.json", "adapter_config.json")  # an adapter's folder may have both
_SHOWN_S = 0.05  # between two states of an answer that grows
_NOT_IN_NAMES = re.compile(r"[^\w-]+")
_FORMATS = {  # format of `export` → what it is for
    "merged": ("모델 하나로 합친 폴더: transformers, vLLM", "one folder: transformers, vLLM"),
    "gguf": ("GGUF: Ollama, llama.cpp, LM Studio", "GGUF: Ollama, llama.cpp, LM Studio"),
    "gguf-q8_0": ("GGUF 8비트: Ollama에서 절반 크기로", "GGUF 8-bit: half the size, for Ollama"),
    "onnx": ("ONNX: onnxruntime(인코더 모델)", "ONNX: onnxruntime (encoders)"),
    "onnx-int8": ("ONNX 8비트: 더 작고 빠르게(인코더 모델)", "ONNX 8-bit: smaller and faster (encoders)"),
}


class Workplace:
    """The work of one page.

    Args:
        runs: The folder of the runs.
        uploads: Where what is uploaded lies until it is used.
        folders: Further folders that may be read.
    """

    def __init__(self, runs: Path, uploads: Path, folders: Sequence[Path]) -> None:
        self._runs, self._uploads = runs, uploads
        self._allowed = [runs, uploads, EXAMPLES, *folders]
        self._jobs, self._talks = Jobs(runs / _PLACE), Talks()

    def close(self) -> None:
        """Give up the models; the runs go on."""
        self._jobs.close()
        self._talks.close()

    # --- data, model, settings ---

    def look(self, chosen: Chosen) -> Look:
        """Read data and say what is in them."""
        from finetuning.commands.board_data import look

        self._check_places(chosen)
        settings = settings_in(train_words(replace(chosen, model="", settings={}), self._runs))
        found = look(settings, bool(chosen.task))
        if found.problem is None:
            return found
        what, where, remedy = (self._as_uploaded(text) for text in found.problem)
        return replace(found, problem=(what, where, remedy))

    def example(self) -> str:
        """Return the folder of the bundled example data."""
        return str(EXAMPLES / "reviews")

    def offers(self, task: str) -> list[Offer]:
        """Return models for a task."""
        return model_offers(task)

    def facts(self) -> list[SettingFact]:
        """Return every setting that a run of the page may choose."""
        from finetuning.config.metadata import fields_of
        from finetuning.config.value_types import bare_value

        return [
            SettingFact(
                field.key, bare_value(field.default), field.setting.in_full("korean"), field.setting.in_full("english")
            )
            for field in fields_of(type(settings_in(["train"])))
            if not field.setting.user_only and field.setting.korean
        ]

    def check(self, chosen: Chosen) -> str:
        """Check settings and paths, and return the command that trains."""
        self._check_places(chosen)
        check_name(chosen.name)
        words = train_words(chosen, self._runs)
        settings_in(words)
        return command_of_this_program(*words)

    def plan(self, chosen: Chosen) -> Iterator[str]:
        """Yield what `plan --time` prints, each time all of it so far."""
        self._check_places(chosen)
        words = train_words(chosen, self._runs)
        settings_in(words)
        yield from _printed(["plan", *words[1:], "--time"])

    # --- runs ---

    def free_name(self, chosen: Chosen) -> str:
        """Return a name for a run that no run has, after its data."""
        stem = Path(chosen.data).stem if chosen.data else "run"
        named = _NOT_IN_NAMES.sub("-", stem).strip("-")[:40] or "run"
        name, number = named, 2
        while (self._runs / name).exists() or (self._runs / _PLACE / f"{name}.json").exists():
            name, number = f"{named}-{number}", number + 1
        return name

    def start(self, chosen: Chosen) -> Job:
        """Start a run on a copy of what was uploaded, or queue it."""
        self.check(chosen)
        folder = self._runs / chosen.name
        if folder.exists() or any(job.name == chosen.name for job in self._jobs.all()):
            raise SettingsError(
                f"'{chosen.name}' 학습이 이미 있습니다.", where="학습 이름", remedy="다른 이름을 쓰세요."
            )
        kept = replace(chosen, data=self._kept(chosen.data, chosen.name), test=self._kept(chosen.test, chosen.name))
        return self._jobs.add(chosen.name, train_words(kept, self._runs), folder)

    def jobs(self) -> list[Job]:
        """Return the runs of this page."""
        return self._jobs.all()

    def job(self, name: str) -> Job:
        """Return one run, with the end of what it printed."""
        return self._jobs.job(name)

    def stop(self, name: str) -> None:
        """Let a run save its state and end."""
        self._jobs.stop(name)

    def resume(self, name: str) -> None:
        """Queue a run that stopped."""
        self._jobs.resume(name)

    def runs(self) -> list[RunRow]:
        """Return all runs below the folder."""
        return runs_below(self._runs).rows if self._runs.is_dir() else []

    def compared(self, names: Sequence[str]) -> str:
        """Return the page of `runs --html` for some runs."""
        from finetuning.reporting.page.runs import render_runs

        return render_runs(self._runs, [row for row in self.runs() if row.name in names], [])

    # --- trained models ---

    def models(self) -> list[tuple[str, str]]:
        """Return the names and the folders of the models that can be used, the newest last."""
        found = []
        for row in self.runs():
            times = [path.stat().st_mtime for name in _CONFIGS if (path := row.folder / name).is_file()]
            if times:
                found.append((max(times), row.name, str(row.folder)))
        return [(name, folder) for _, name, folder in sorted(found)]

    def load(self, model: str, settings: Mapping[str, str]) -> Model:
        """Load a model in a process of its own: to chat where it was trained to, else to predict."""
        folder = self._model_folder(model)
        _, chats = _use_of(folder)
        command = "chat" if chats else "predict"
        words = [command, "--model_name", str(folder), "--live", *words_of_settings(settings)]
        return self._talks.load(model, words)

    def predict(self, model: str, rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Return the prediction for each row."""
        (answer,) = self._talks.ask(model, list(rows))
        return list(answer["rows"])

    def chat(self, model: str, text: str) -> Iterator[Said]:
        """Yield the answer as it grows."""
        so_far, shown_at = "", 0.0
        for said in self._talks.ask(model, {"text": text}):
            so_far = str(said["answer"]) if "answer" in said else so_far + str(said["piece"])
            now = time.monotonic()  # a page takes longer to show a piece than some models to make it
            if "answer" in said or now - shown_at >= _SHOWN_S:
                shown_at = now
                yield Said(so_far, bool(said.get("stopped")))

    def hush(self, model: str) -> None:
        """End the answer of a conversation that grows."""
        self._talks.stop(model)

    def forget(self, model: str) -> None:
        """Begin a new conversation."""
        list(self._talks.ask(model, {"forget": True}))

    def predict_file(self, model: str, path: str) -> tuple[Path, str]:
        """Predict a file; return the file of the results, and the command."""
        folder, source = self._model_folder(model), Path(path)
        self._check_place(path, "예측할 파일")
        target = self._uploads / f"{source.stem}-result.csv"
        words = ["predict", "--model_name", str(folder), "--input", path, "--output", str(target), "--defuse_formulas"]
        for _ in _printed(words):
            continue
        named = {path: source.name, str(target): target.name}  # as they are called where the person has them
        return target, command_of_this_program(*(named.get(word, word) for word in words))

    def formats(self, model: str) -> list[tuple[str, str, str]]:
        """Return the export formats of a model, and what each is for, in both languages."""
        folder = self._model_folder(model)
        kind, _ = _use_of(folder)
        fitting = {"AutoModelForCausalLM": ["gguf", "gguf-q8_0"], "AutoModelForSeq2SeqLM": []}.get(
            kind, ["onnx", "onnx-int8"]
        )
        is_adapter = (folder / "adapter_config.json").is_file()
        return [(name, *_FORMATS[name]) for name in (["merged"] if is_adapter else []) + fitting]

    def export(self, model: str, form: str) -> Iterator[str]:
        """Yield what `export` prints, each time all of it so far."""
        yield from _printed(["export", "--model_name", str(self._model_folder(model)), "--format", form])

    def command(self, *words: str) -> str:
        """Return a command as it is typed."""
        return command_of_this_program(*words)

    # --- places ---

    def _model_folder(self, model: str) -> Path:
        self._check_place(model, "모델")
        return Path(model)

    def _as_uploaded(self, text: str) -> str:
        """Return a text with the names that uploaded files have where the person has them."""
        place = re.escape(str(self._uploads.resolve()) + os.sep)
        return re.sub(rf"{place}(?:[0-9a-f]{{32,}}{re.escape(os.sep)})?", "", text)

    def _check_places(self, chosen: Chosen) -> None:
        for name, what in ((chosen.data, "데이터"), (chosen.test, "시험 데이터"), (chosen.model, "모델")):
            if name:
                self._check_place(name, what)

    def _check_place(self, name: str, what: str) -> None:
        """Raise SettingsError for a path outside of the folders; an id of the Hub is none."""
        path = Path(name).expanduser().resolve()
        if any(path.is_relative_to(folder.expanduser().resolve()) for folder in self._allowed):
            return
        if may_be_hub_id(name) and not path.exists():
            return
        raise SettingsError(
            "이 페이지에서 읽을 수 있는 폴더 밖에 있습니다.",
            where=f"{what}: {name}",
            remedy="파일을 페이지에 올리거나, board --folders 폴더로 그 폴더를 허용해 다시 여세요.",
        )

    def _kept(self, name: str, run: str) -> str:
        """Copy what was uploaded to a place that stays as long as the run; leave other data where they are."""
        path = Path(name)
        if not name or not path.resolve().is_relative_to(self._uploads.resolve()):
            return name
        folder = self._runs / _PLACE / "data" / run
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return str(shutil.copy2(path, folder / path.name))
        except OSError as error:
            raise SettingsError(
                f"올린 파일을 학습할 곳에 복사하지 못했습니다: {error.strerror}",
                where=str(folder),
                remedy="디스크의 남은 공간과 쓰기 권한을 확인하세요.",
            ) from error


def _use_of(folder: Path) -> tuple[str, bool]:
    """Return a saved model's class, and whether it was trained to chat."""
    from config_manager import SAVED_SETTINGS
    from finetuning.config.yaml_file import read_sections
    from finetuning.tasks.registry import find_task

    saved = read_sections(folder / SAVED_SETTINGS)
    task = find_task(settings_in(["train", "--task", str((saved.get("model") or {}).get("task", ""))]))
    form = (saved.get("text_generation") or {}).get("format")
    return type(task).auto_class, type(task).pipeline == "text-generation" and form != "text"


def _printed(words: Sequence[str]) -> Iterator[str]:
    """Run a command and yield what it has printed so far; raise its error where it ends with one."""
    command = [sys.executable, "-u", sys.argv[0], *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            yield said
    if process.returncode:
        what, where, remedy = error_in(said) or ("명령이 끝까지 실행되지 않았습니다.", "", said[-500:])
        raise FinetuningError(what, where=where, remedy=remedy)
