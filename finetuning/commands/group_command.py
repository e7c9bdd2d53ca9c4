"""What the commands over several runs share: the lock, the dry look, the runs, and what is said at the end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass

from exceptions import SettingsError, StopRequested
from finetuning.cells import printable
from finetuning.checkpoints.lock import only_run_in
from finetuning.commands.combinations import OUTPUT_DIR
from finetuning.commands.group_report import disk_line, raise_for_failures, use_lines
from finetuning.commands.output_folder import check_writable
from finetuning.commands.run_group import Launch, Member, Outcome, RunGroup, train_all
from finetuning.config.flags import SETTING_FLAGS
from finetuning.files import command_of_this_program
from finetuning.reporting.run_rows import verdict_text

Lines = Callable[[Sequence[Outcome]], list[str]]


@dataclass(frozen=True)
class Report:
    """What is printed at the end of a group's runs.

    Attributes:
        table: The lines of its table.
        judged: What the table shows.
        used: How the best model is used.
    """

    table: Lines
    judged: Lines
    used: Lines = use_lines


@contextmanager
def begin(group: RunGroup, is_dry: bool) -> Iterator[None]:
    """Open a group for the block, for this process alone unless nothing is trained.

    Args:
        group: The group.
        is_dry: Whether nothing is trained.

    Raises:
        SettingsError: The group cannot be run here.
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise SettingsError(
            "여러 학습을 차례로 실행하는 명령은 프로세스 하나로 시작합니다.",
            where="환경 변수 WORLD_SIZE",
            remedy="torchrun이나 accelerate launch 없이 실행하세요.",
        )
    group.begin()
    if is_dry:
        yield
        return
    check_writable(group.folder)
    with only_run_in(group.folder):
        yield


def train_and_report(
    group: RunGroup, members: Iterable[Member], total: int, arguments: argparse.Namespace, launch: Launch,
    report: Report,
) -> None:  # fmt: skip
    """Train the runs of a group and print its table, or print what would be trained.

    Args:
        group: The group.
        members: Its runs, which may be chosen by the results of earlier ones.
        total: How many there are.
        arguments: The command line.
        launch: Runs a command of this program.
        report: What is printed at the end.

    Raises:
        FinetuningError: Runs failed. It has the exit code of the first.
        StopRequested: The user asked for a stop.
    """
    words = shared_words(arguments, set(group.varied()))
    if arguments.dry_run:
        _print(_dry_lines(list(members), total, words))
        return
    outcomes: list[Outcome] = []
    try:
        for outcome in train_all(_kept(group, members), total, words, launch, arguments.keep_checkpoints):
            outcomes.append(outcome)
    except StopRequested:
        if outcomes:
            _print(["", *report.table(outcomes)])
        raise
    said = [*report.judged(outcomes), *disk_line(outcomes, arguments.keep_checkpoints)]
    _print(["", *report.table(outcomes), "", *said, *report.used(outcomes)])
    raise_for_failures(outcomes, command_of_this_program(*arguments.words))


def _kept(group: RunGroup, members: Iterable[Member]) -> Iterator[Member]:
    """Yield the runs, each once it is recorded which combination has its folder."""
    for member in members:
        group.keep()
        yield member


def _dry_lines(members: Sequence[Member], total: int, words: Sequence[str]) -> list[str]:
    lines = [f"학습 {total}개를 차례로 실행합니다."]
    for member in members:
        try:
            row = member.row()
            state = "새로 학습" if row is None else "끝남, 건너뜀" if row.state == "finished" else verdict_text(row)
        except ValueError as error:
            state = f"읽을 수 없음: {error}"
        lines.append(f"  {member.folder} ({state})")
    if len(members) < total:
        lines.append(f"  나머지 {total - len(members)}개의 값은 앞선 결과를 보고 고릅니다.")
    if members:
        first = members[0]
        command = command_of_this_program("train", *words, *first.combination.words(), "--output_dir", first.folder)
        lines.append(f"첫 학습의 명령: {command}")
    return lines


def _print(lines: Iterable[str]) -> None:
    print("\n".join(printable(line) for line in lines), flush=True)


def shared_words(arguments: argparse.Namespace, varied: Set[str]) -> list[str]:
    """Return the flags that all runs of a group share.

    Args:
        arguments: The command line.
        varied: The settings that differ between the runs.

    Returns:
        The words without the command, and without what each run is given of its own.
    """
    own = {OUTPUT_DIR, *varied}
    flags = {flag: is_switch for flag, key, _, is_switch in SETTING_FLAGS if key in own}
    takes_value = {flag for flag, is_switch in flags.items() if not is_switch} | {"--seeds", "--trials"}
    if arguments.listed is not None:
        takes_value.add("--recipe")
    alone = {"--resume", "--dry_run", "--keep_checkpoints", *flags, *(f"--no-{flag[2:]}" for flag in flags)}
    kept = list[str]()
    words = list(arguments.words)
    following = iter(words[1:] if words[:1] == [arguments.command] else words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag == "--set":
            assignment = value if equals else next(following, "")
            if assignment in arguments.set and _key(assignment) not in own:
                kept += ["--set", assignment]
        elif flag in takes_value:
            if not equals:
                next(following, None)
        elif word not in alone:
            kept.append(word)
    says_level = arguments.log_level is not None or any(_key(text) == "logging.level" for text in arguments.set)
    return kept if says_level else [*kept, "--log_level", "WARNING"]  # one table says it all at the end


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()
