"""Runs of a sweep or of several seeds: a folder for each, what is done and what is left, one after the other."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exceptions import SettingsError
from finetuning.checkpoints.names import CHECKPOINTS, LATEST, checkpoints_in, points_to_a_checkpoint
from finetuning.commands.combinations import OUTPUT_DIR, Combination
from finetuning.commands.found_runs import read_run
from finetuning.commands.run_folder import is_ours, newest_run
from finetuning.config.metadata import fields_of, value_at
from finetuning.config.schema import Settings
from finetuning.files import content_key, discard, write_json
from finetuning.korean.durations import duration
from finetuning.reporting.run_rows import RunRow

RECORD = "sweep.json"
_MATTERS_THOUGH_FREE = ("training.", "generation.")  # a resumed run may have more epochs; its result is another
_FAILURES = {1: "프로그램 오류", 2: "설정 오류", 3: "데이터 오류", 4: "모델 오류", 5: "메모리나 디스크 부족"}
_KILLED = "강제 종료됨(메모리 부족일 수 있음)"

Launch = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Member:
    """One run of a group.

    Attributes:
        folder: Its output_dir.
        combination: Its settings.
    """

    folder: Path
    combination: Combination

    def row(self) -> RunRow | None:
        """Read what the run left; None where it has not begun. ValueError, in Korean, where a file is damaged."""
        newest = newest_run(self.folder).path
        return read_run(newest, self.folder.name) if is_ours(newest) else None


@dataclass(frozen=True)
class Outcome:
    """How a run of a group ended.

    Attributes:
        member: The run.
        row: What it left; None where that is nothing.
        failure: Why it failed, in a few Korean words; "" where it did not.
        exit_code: The exit code of a run that failed.
        freed: Bytes of checkpoints that were removed.
    """

    member: Member
    row: RunRow | None
    failure: str = ""
    exit_code: int = 0
    freed: int = 0


class RunGroup:
    """The runs below one output_dir, and `sweep.json` there, which says what each of them is.

    Args:
        folder: The output_dir of the group.
        settings: The settings that its runs share.
        varied: The settings that differ, by dotted key, with what is tried of each.
    """

    def __init__(self, folder: Path, settings: Settings, varied: Mapping[str, str]) -> None:
        self.folder, self._settings, self._varied = folder, settings, dict(varied)
        self._record: dict[str, Any] = {"settings": _compared(settings), "varied": {}, "runs": []}

    def begin(self) -> None:
        """Read what an earlier command began in the folder.

        Raises:
            SettingsError: The folder is a run itself, or its runs have other settings in common.
        """
        if is_ours(self.folder):
            raise SettingsError(
                "이 폴더에는 이미 다른 학습이 있습니다.",
                where=f"{OUTPUT_DIR}: {self.folder}",
                remedy="여러 학습의 폴더들을 만들 새 폴더를 --output_dir로 지정하세요.",
            )
        path = self.folder / RECORD
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            earlier = {**_compared(Settings()), **found["settings"]}  # a setting newer than the record had its default
            [(run["folder"], run["key"], run["values"]) for run in found["runs"]]
            varied = {**found["varied"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise SettingsError(
                "여러 학습의 기록을 읽을 수 없습니다.",
                where=str(path),
                remedy="파일을 되돌리거나, 새 폴더를 --output_dir로 지정하세요.",
            ) from None
        now = _compared(self._settings)
        free = {*varied, *self._varied}
        changed = [key for key in now if key not in free and now[key] != earlier[key]]
        if changed:
            shown = ", ".join(f"{key} {earlier[key]} → {now[key]}" for key in changed[:3])
            raise SettingsError(
                f"이 폴더의 학습들과 설정이 다릅니다: {shown}",
                where=str(path),
                remedy="처음과 같은 설정으로 실행하거나, 새 폴더를 --output_dir로 지정하세요.",
            )
        self._record = {**found, "varied": {**varied, **self._varied}}

    def member(self, combination: Combination) -> Member:
        """Return the run of a combination, in the folder that it has, or in a new one that is named after it."""
        key = self._key(combination.settings)
        runs = self._record["runs"]
        known = next((run["folder"] for run in runs if run["key"] == key), None)
        if known is None:
            known, number = combination.name(), 2
            while known in {run["folder"] for run in runs}:
                known, number = f"{combination.name()}-{number}", number + 1
            runs.append({"folder": known, "key": key, "values": dict(combination.values)})
        return Member(self.folder / known, combination)

    def _key(self, settings: Settings) -> str:
        """Return a hash of a run's settings; one that is newer than the record counts where it has another value."""
        known, defaults, now = self._record["settings"], _compared(Settings()), _compared(settings)
        counted = {key: value for key, value in now.items() if key in known or value != defaults[key]}
        return content_key(json.dumps({**known, **counted}, ensure_ascii=False, sort_keys=True))

    def varied(self) -> Mapping[str, str]:
        """Return the settings that differ, with what is tried of each."""
        return self._varied

    def recorded(self) -> list[Mapping[str, Any]]:
        """Return the values of the runs in the order in which they were chosen."""
        return [run["values"] for run in self._record["runs"]]

    def keep(self) -> None:
        """Write `sweep.json`, before the runs that it names begin.

        Raises:
            ResourceError: The disk is full or cannot be written.
        """
        write_json(self.folder / RECORD, {**self._record, "varied": {**self._record["varied"], **self._varied}})


def train_all(
    members: Iterable[Member], total: int, words: Sequence[str], launch: Launch, keep_checkpoints: bool,
) -> Iterator[Outcome]:  # fmt: skip
    """Train the runs that are not finished, one after the other.

    Args:
        members: The runs.
        total: How many there are.
        words: The flags that they share.
        launch: Runs a command of this program and returns its exit code.
        keep_checkpoints: Whether the checkpoints of finished runs stay.

    Yields:
        How each ended.

    Raises:
        StopRequested: The user asked for a stop. The state of the run is saved.
    """
    seconds: list[float] = []
    for number, member in enumerate(members, start=1):
        outcome = _finished(member)
        if outcome is None:
            left = sum(seconds) / len(seconds) * (total - number + 1) if seconds else None
            tell(f"[{number}/{total}] {member.folder.name}" + (f" (남은 시간 약 {duration(left)})" if left else ""))
            outcome = _train(member, words, launch, keep_checkpoints)
        else:
            tell(f"[{number}/{total}] {member.folder.name}: 이미 끝난 학습이어서 건너뜁니다.")
        if outcome.failure:
            tell(f"  실패했습니다({outcome.failure}). 다음 학습으로 넘어갑니다.")
        if outcome.row is not None and outcome.row.seconds is not None:
            seconds.append(outcome.row.seconds)
        yield outcome


def tell(line: str) -> None:
    """Write a line about the progress of a group to standard error."""
    print(line, file=sys.stderr, flush=True)


def _finished(member: Member) -> Outcome | None:
    try:
        row = member.row()
    except ValueError as error:
        return Outcome(member, None, str(error), exit_code=1)
    return Outcome(member, row) if row is not None and row.state == "finished" else None


def _train(member: Member, words: Sequence[str], launch: Launch, keep_checkpoints: bool) -> Outcome:
    resumes = bool(checkpoints_in(newest_run(member.folder).path / CHECKPOINTS))
    place = ["--output_dir", str(member.folder), *(["--resume"] if resumes else [])]
    code = launch(["train", *words, *member.combination.words(), *place])
    try:
        row = member.row()
    except ValueError as error:
        return Outcome(member, None, str(error), exit_code=code or 1)
    if code != 0:
        return Outcome(member, row, _FAILURES.get(code, _KILLED if code < 0 else f"종료 코드 {code}"), exit_code=code)
    freed = 0 if keep_checkpoints or row is None else _remove_checkpoints(row.folder)
    return Outcome(member, row, freed=freed)


def _remove_checkpoints(run: Path) -> int:
    """Remove the checkpoints of a finished run, whose best model stays; return their bytes."""
    freed = bytes_in(run / CHECKPOINTS)
    discard(run / CHECKPOINTS)
    latest = run.parent / LATEST
    if points_to_a_checkpoint(latest):
        discard(latest)
    return freed


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:  # it went away
                continue
    return total


def _compared(settings: Settings) -> dict[str, Any]:
    """Return the settings on which a run's result depends, as values of JSON."""
    keys = [
        field.key
        for field in fields_of(Settings)
        if field.key != OUTPUT_DIR and (field.resume != "free" or field.key.startswith(_MATTERS_THOUGH_FREE))
    ]
    return dict(json.loads(json.dumps({key: value_at(settings, key) for key in keys}, default=_plain)))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")
