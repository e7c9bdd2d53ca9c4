"""What the page asks of the commands, and the frozen types that are handed over. `commands/board.py` fulfils it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from finetuning.reporting.run_rows import RunRow

JobState = Literal["queued", "running", "stopping", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Chosen:
    """What a person has chosen on the page so far.

    Attributes:
        data: A file, a folder or an id of the Hub; "" where nothing is chosen.
        test: A file of test data; "" where a part of `data` is held out.
        task: Name of the task; "" to find it by the columns.
        columns: Setting of a column, such as `text_column` → the source's column.
        label_map: Labels that are merged or left out, as `data.label_map` says it.
        model: A folder or an id of the Hub; "" where none is chosen.
        name: Name of the run's folder.
        is_named: Whether a person typed the name; else the page made it.
        preset: Whether `training.preset` chooses what is left open.
        settings: Further settings by dotted key, as they were typed.
    """

    data: str = ""
    test: str = ""
    task: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    model: str = ""
    name: str = ""
    is_named: bool = False
    preset: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        """Return a hash of all values; the page tells by it whether something was chosen anew."""
        return hash(repr(self))


@dataclass(frozen=True)
class AskedColumn:
    """A column that a task reads.

    Attributes:
        role: What the task takes it for, such as `text`.
        setting: The setting that names it.
        found: The source's column that is read; None where none was found.
        is_needed: Whether the task cannot do without it.
    """

    role: str
    setting: str
    found: str | None
    is_needed: bool


@dataclass(frozen=True)
class Look:
    """What was found in data, before anything is trained.

    Attributes:
        columns: Names of the source's columns.
        first: The first rows, cells by column.
        task: The task that was chosen, or that the columns fit.
        meant: The task that the labels mean, where that is another one.
        asked: The columns that the task reads.
        rows: Clean rows of each split.
        notes: How the source was read and what cleaning found, a Korean sentence each.
        labels: Rows of each label.
        doubts: Labels that look like mistakes, a Korean clause each.
        merged: What `data.label_map` would make of them.
        lengths: Characters of a text: half of the rows have at most the first, nine in ten the second, all the third.
        repeats: Rows that repeat a text, a Korean sentence; "" where there are none.
        is_cut: Whether only the first rows were looked at.
        problem: Why the data cannot be used as chosen: what, where, what to do; empty where they can.
    """

    columns: tuple[str, ...] = ()
    first: Sequence[Mapping[str, Any]] = ()
    task: str = ""
    meant: str = ""
    asked: tuple[AskedColumn, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    merged: Mapping[str, str | None] = field(default_factory=dict)
    lengths: tuple[int, int, int] | None = None
    repeats: str = ""
    is_cut: bool = False
    problem: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Offer:
    """A model of the short list.

    Attributes:
        name: Its folder or id.
        size: Its size as it is written, such as `68M`.
        is_here: Whether it needs no network.
    """

    name: str
    size: str
    is_here: bool


@dataclass(frozen=True)
class SettingFact:
    """A setting as the page shows it: its dotted key, its default as it is written, its description in both."""

    key: str
    default: str
    korean: str
    english: str


@dataclass(frozen=True)
class Job:
    """A training that was started on the page, or waits for its turn.

    Attributes:
        name: Name of the run.
        state: What it is doing.
        folder: The run's folder.
        words: The words of its command.
        command: The command as it is typed.
        log: The end of what it printed.
    """

    name: str
    state: JobState
    folder: Path
    words: tuple[str, ...]
    command: str
    log: str = ""


@dataclass(frozen=True)
class Model:
    """A trained model that answers.

    Attributes:
        task: Name of its task.
        columns: What it is given, by the name under which it is given; with the role that it has.
        chats: Whether it answers in conversations.
    """

    task: str
    columns: Sequence[tuple[str, str]]
    chats: bool = False


@dataclass(frozen=True)
class Said:
    """What a model has answered so far, and whether it was stopped there."""

    text: str
    is_stopped: bool = False


class Work(Protocol):
    """What the commands do for the page. Every method may raise FinetuningError."""

    def look(self, chosen: Chosen) -> Look:
        """Read data and say what is in them; what cannot be used is said in `Look.problem`."""

    def example(self) -> str:
        """Return the folder of the bundled example data."""

    def offers(self, task: str) -> list[Offer]:
        """Return models for a task, the smallest first."""

    def facts(self) -> list[SettingFact]:
        """Return every setting."""

    def check(self, chosen: Chosen) -> str:
        """Check settings and paths, and return the command that trains."""

    def plan(self, chosen: Chosen) -> Iterator[str]:
        """Yield what `plan` prints, each time all of it so far."""

    def free_name(self, chosen: Chosen) -> str:
        """Return a name for a run that no run has."""

    def start(self, chosen: Chosen) -> Job:
        """Start a run, or queue it behind the one that trains."""

    def jobs(self) -> list[Job]:
        """Return the runs of this page, the newest first, without what they printed."""

    def job(self, name: str) -> Job:
        """Return one run, with the end of what it printed."""

    def stop(self, name: str) -> None:
        """Let a run save its state and end, or take it out of the queue."""

    def resume(self, name: str) -> None:
        """Queue a run that stopped, to go on where it was."""

    def runs(self) -> list[RunRow]:
        """Return all runs below the folder."""

    def compared(self, names: Sequence[str]) -> str:
        """Return the page of `runs --html` for some runs."""

    def models(self) -> list[tuple[str, str]]:
        """Return the names and the folders of the models that can be used."""

    def load(self, model: str, settings: Mapping[str, str]) -> Model:
        """Load a model under settings of generation, in a process of its own, unless it is loaded already."""

    def predict(self, model: str, rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Return the prediction for each row, from a model that was opened."""

    def chat(self, model: str, text: str) -> Iterator[Said]:
        """Yield the answer as it grows."""

    def hush(self, model: str) -> None:
        """End the answer of a conversation that grows; nothing where none does."""

    def forget(self, model: str) -> None:
        """Begin a new conversation."""

    def predict_file(self, model: str, path: str) -> tuple[Path, str]:
        """Predict a file; return the file of the results, and the command."""

    def formats(self, model: str) -> list[tuple[str, str, str]]:
        """Return the export formats of a model, and what each is for, in Korean and in English."""

    def export(self, model: str, form: str) -> Iterator[str]:
        """Yield what `export` prints, each time all of it so far."""

    def command(self, *words: str) -> str:
        """Return a command as it is typed."""
