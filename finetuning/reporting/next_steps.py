"""What to do next: the commands that go on from a trained model, ready to paste into a shell of this system."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.cells import printable
from finetuning.device.peers import command_of_this_group
from finetuning.files import command_of_this_program
from finetuning.tasks.registry import task_classes

if TYPE_CHECKING:
    from finetuning.config.schema import DataSettings, Settings

_TYPED_IN = {  # task → how a text is typed in, where that is not plain
    "question-answering": "질문과 지문을 Tab으로 나누어 한 줄에 입력",
}


@dataclass(frozen=True)
class NextStep:
    """One thing to do next.

    Attributes:
        name: What it is, for programs: `chat`, `predict`, `search`, `predict-file`, `evaluate`, `export`, `resume`,
            `train`.
        what: What it does, in Korean, in a few words.
        command: The command, quoted for a shell of this system.
    """

    name: str
    what: str
    command: str


@dataclass(frozen=True)
class SavedModel:
    """A fine-tuned model, as far as the commands that use it depend on it.

    Attributes:
        place: Flags that name it, such as `--output_dir models/chatbot`.
        task: Name of its task.
        has_pairs: Whether a row is a pair of texts.
        chats: Whether it was trained on questions and answers.
        is_adapter: Whether its folder holds an adapter without the base model.
        data: Flags that name data to score it on; () where the user has to name a file.
        resumed_by: Words of the command that trains it further; () where there is none.
    """

    place: tuple[str, ...]
    task: str
    has_pairs: bool = False
    chats: bool = False
    is_adapter: bool = False
    data: tuple[str, ...] = ()
    resumed_by: tuple[str, ...] = ()


def saved_model(settings: Settings, task: str, place: Sequence[str], is_adapter: bool) -> SavedModel:
    """Describe a model that is used by a command.

    Args:
        settings: The settings in force.
        task: Name of its task.
        place: Flags that name it.
        is_adapter: Whether its folder holds an adapter without the base model.

    Returns:
        The model.
    """
    return SavedModel(
        tuple(place), task,
        has_pairs=settings.data.text_pair_column is not None,
        chats=task_classes()[task].pipeline == "text-generation" and settings.text_generation.format != "text",
        is_adapter=is_adapter,
    )  # fmt: skip


def trained_model(
    settings: Settings, task: str, output_dir: Path, split: str, is_adapter: bool, resumed_by: Sequence[str]
) -> SavedModel:
    """Describe the model that a run has just left.

    Args:
        settings: The settings of the run.
        task: Name of its task.
        output_dir: The folder of the run.
        split: The split that it was scored on.
        is_adapter: Whether the folder holds an adapter without the base model.
        resumed_by: Words of the command that trains it for more epochs; () where that is not worth while.

    Returns:
        The model, with its data and what continues its run.
    """
    saved = str(output_dir / "settings.yaml")
    model = saved_model(settings, task, ("--output_dir", str(output_dir)), is_adapter)
    return SavedModel(
        model.place, task, model.has_pairs, model.chats, is_adapter,
        data=(*_data_flags(settings.data, saved), "--split", split),
        resumed_by=tuple(resumed_by),
    )  # fmt: skip


def next_commands(model: SavedModel, done: Collection[str] = ()) -> list[NextStep]:
    """Return what may be done next with a model: only what fits its task and what there is.

    Args:
        model: The model.
        done: Names of the steps that the user has just taken.

    Returns:
        The steps, the likeliest first.
    """
    return [step for step in _steps(model) if step.name not in done]


def _steps(model: SavedModel) -> Iterator[NextStep]:
    if model.chats:
        yield _step("chat", "대화해 보기", "chat", *model.place)
    if model.task == "fill-mask":
        further = ("--model_name", model.place[-1], "--dataset", "new.csv")
        yield _step("train", "이 모델로 분류 학습하기(new.csv를 내 파일로 바꾸세요)", *further)
    else:
        how = _TYPED_IN.get(model.task, "두 텍스트를 Tab으로 나누어 한 줄에 입력" if model.has_pairs else "직접 입력")
        files = ("--input", "new.csv", "--output", "result.csv")
        yield _step("predict", f"예측해 보기({how})", "predict", *model.place)
        if model.task == "embedding":
            corpus = ("--corpus", "passages.csv")
            yield _step(
                "search", "문서에서 찾아보기(passages.csv를 내 파일로 바꾸세요)", "predict", *model.place, *corpus
            )
        yield _step("predict-file", "파일 예측하기(new.csv를 내 파일로 바꾸세요)", "predict", *model.place, *files)
    if model.data:
        yield _step("evaluate", "다시 평가하기", "evaluate", *model.place, *model.data)
    else:
        labelled = ("--dataset", "labelled.csv")
        what = "정답이 있는 파일로 평가하기(labelled.csv를 내 파일로 바꾸세요)"
        yield _step("evaluate", what, "evaluate", *model.place, *labelled)
    if model.is_adapter:
        yield _step("export", "어댑터를 합쳐 하나의 모델로 저장하기", "export", *model.place)
    if model.resumed_by:
        yield NextStep("resume", "더 학습하기", command_of_this_group(*model.resumed_by))


def lines_of(steps: Sequence[NextStep], heading: str = "다음에 할 수 있는 일") -> list[str]:
    """Render steps for the log: what each does, and below it the command alone on its line, to be copied."""
    if not steps:
        return []
    pairs = ((f"  {step.what}", f"    {printable(step.command)}") for step in steps)
    return [heading, *(line for pair in pairs for line in pair)]


def _step(name: str, what: str, *words: str) -> NextStep:
    return NextStep(name, what, command_of_this_program(*words))


def _data_flags(data: DataSettings, saved: str) -> tuple[str, ...]:
    """Return the flags that name a run's data; the whole settings file where more than a name says what it is."""
    if data.mix or data.split_files():
        return ("--config", saved)
    config = () if data.dataset_config is None else ("--dataset_config", data.dataset_config)
    return ("--dataset", data.dataset_name, *config)
