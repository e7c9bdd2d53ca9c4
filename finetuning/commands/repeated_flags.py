"""What of a command line is not used: another value is given for it, or the command does not read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from finetuning.config.flags import SETTING_FLAGS
from finetuning.korean.particles import with_particle

_READ_AFTER_TRAINING = ("training.seed", "training.deterministic")
_DATA_TO_TRAIN_ON = (
    "data.dataset_name", "data.dataset_config", "data.train_file", "data.validation_file", "data.test_file",
    "data.validation_split", "data.test_split",
)  # fmt: skip


def unused_values(words: Sequence[str], takes_value: Mapping[str, bool]) -> list[str]:
    """Find the flags whose value gives way to another: the last one counts, and --set before the other flags.

    Args:
        words: The words of a command line that could be parsed.
        takes_value: For each flag with one value or none, whether it takes one. Other words are skipped.

    Returns:
        A Korean sentence for each value that is not used.
    """
    keys = {flag: key for flag, key, _, _ in SETTING_FLAGS}
    used: dict[str, tuple[str, str]] = {}  # setting, or flag → its value, and how it was written
    notes = []
    for flag, value in _given(words, takes_value):
        name, own = keys.get(flag, flag), value
        if flag == "--set":
            name, _, own = (part.strip() for part in value.partition("="))
        elif flag.startswith("--no-"):
            name, own = keys.get(f"--{flag.removeprefix('--no-')}", flag), "false"
        elif not takes_value[flag]:
            own = "true"
        new = (own, f"{flag} {value}".strip())
        old = used.setdefault(name, new)
        if old[0] == own:
            continue
        if old[1].startswith("--set ") and flag != "--set":
            old, new = new, old
        notes.append(f"같은 설정이 두 번 있어 {with_particle(old[1], '은/는')} 쓰지 않습니다. 쓰는 것: {new[1]}")
        used[name] = new
    return notes


def unread_settings(command: str, words: Sequence[str], takes_value: Mapping[str, bool]) -> list[str]:
    """Find the settings of training, and of data to train on, that are given to a command on a trained model.

    Args:
        command: The command.
        words: The words of its command line.
        takes_value: For each flag with one value or none, whether it takes one.

    Returns:
        One Korean sentence, or none.
    """
    keys = {flag: key for flag, key, _, _ in SETTING_FLAGS}
    given = {
        key: flag if flag != "--set" else f"--set {key}"
        for flag, value in _given(words, takes_value)
        if (key := value.partition("=")[0].strip() if flag == "--set" else keys.get(flag, ""))
    }
    unread = [
        written
        for key, written in given.items()
        if (key.startswith("training.") and key not in _READ_AFTER_TRAINING)
        or (key in _DATA_TO_TRAIN_ON and command not in ("evaluate", "mine"))
    ]
    return [f"{command} 명령은 {with_particle(', '.join(unread), '을/를')} 읽지 않습니다."] if unread else []


def _given(words: Sequence[str], takes_value: Mapping[str, bool]) -> Iterator[tuple[str, str]]:
    """Yield each flag and its value, "" for one without."""
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag in takes_value:
            yield flag, next(following, "") if takes_value[flag] and not equals else value
