"""Which files of a folder make which split: a file a split, shards, a folder a split, what `save_to_disk` writes."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats.registry import is_supported
from finetuning.files import typed

_SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_SPLIT_PREFIXES = {  # Korean nouns are compounded: 학습데이터, 검증용
    "학습": "train", "훈련": "train", "검증": "validation", "테스트": "test", "평가": "test", "시험": "test",
}  # fmt: skip
_SHARD = re.compile(r"(.*?)[-_.]?(\d{4,6})-of-(\d{4,6})(-[0-9a-f]{8,})?")
_STATE = "state.json"  # of a split that `save_to_disk` wrote
HIDDEN = (".", "~$", "__MACOSX")  # names of hidden files, of Office's beside one that is open, of macOS in archives
_DATA = "data"  # the folder in which the Hub keeps a dataset's files
METADATA = frozenset({_STATE, "dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
Files = tuple[Path, ...]


def splits_in(name: str) -> set[str]:
    """Return the splits that a name's words mean; if no whole word does, the beginnings of Korean words count."""
    starts = _SPLIT_PREFIXES.items()
    return split_words_in(name) or {split for word in _words(name) for start, split in starts if word.startswith(start)}


def split_words_in(name: str) -> set[str]:
    """Return the splits that whole words of a name mean, such as `1.Training`."""
    return {_SPLIT_WORDS[word] for word in _words(name) if word in _SPLIT_WORDS}


def _words(name: str) -> list[str]:
    composed = unicodedata.normalize("NFC", name).casefold()
    return "".join(letter if letter.isalpha() else " " for letter in composed).split()


def files_by_split(folder: Path, config: str | None = None) -> dict[str, Files]:
    """Find the files of a folder by split.

    The split is in a file's name, such as `ratings_train.txt`, `dev.csv` and `train-00000-of-00002.parquet`, or in the
    name of the folder that a file is in.

    Args:
        folder: The folder.
        config: The name of a configuration of a dataset of the Hub, a folder of its own; None for the only one.

    Returns:
        The files of each split, shards in their order.

    Raises:
        DataError: No file is of a split, or several files are of one split.
    """
    found = named_files(folder, config)
    if not found:
        raise nothing_found(folder)
    return found


def named_files(folder: Path, config: str | None = None) -> dict[str, Files]:
    """Find the files of a folder by split, as `files_by_split` does; none if no file is of a split."""
    if config is not None and (folder / config).is_dir():
        return named_files(folder / config)
    found = _of_saved(folder) or _by_names(folder) or _by_folders(folder)
    if not found and (folder / _DATA).is_dir():
        found = _by_names(folder / _DATA) or _by_folders(folder / _DATA)
    return found


def configurations(folder: Path) -> list[str]:
    """Return the folders in which files are named after splits: the configurations of a dataset of the Hub."""
    return [path.name for path in _folders_in(folder) if _by_names(path)]


def unread_beside(read: Iterable[Path]) -> list[Path]:
    """Return the data files that lie beside files of a folder which are read, and have no name of a split.

    Args:
        read: The files that are read.

    Returns:
        The others, sorted.
    """
    known = set(read)
    beside = {path for folder in {path.parent for path in known} for path in _files_in(folder) if path.suffix}
    return sorted(beside - known)


def _of_saved(folder: Path) -> dict[str, Files]:
    """Return the files that `save_to_disk` wrote: one dataset, or a folder for each split."""
    if (folder / _STATE).is_file():
        return {"train": _saved_files(folder)}
    named = [path for path in _folders_in(folder) if (path / _STATE).is_file()]
    return _one_each((split, _saved_files(path)) for path in named for split in splits_in(path.name))


def _saved_files(folder: Path) -> Files:
    try:
        listed = json.loads((folder / _STATE).read_bytes())["_data_files"]
        files = tuple(folder / Path(entry["filename"]).name for entry in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        files = ()
    if not files:
        raise DataError(
            "save_to_disk로 저장한 데이터셋으로 읽을 수 없습니다.",
            where=str(folder / _STATE),
            remedy="save_to_disk를 다시 하거나, to_parquet으로 저장한 파일을 지정하세요.",
        )
    return files


def _by_names(folder: Path) -> dict[str, Files]:
    """Return the files of a folder by the split in their names."""
    sets: dict[str, list[Path]] = {}
    for path in _files_in(folder):
        shard = _SHARD.fullmatch(path.stem)
        sets.setdefault(f"{shard[1]}{path.suffix}" if shard else path.name, []).append(path)
    whole = [(name, _whole(files)) for name, files in sets.items()]
    return _one_each((split, files) for name, files in whole for split in splits_in(Path(name).stem))


def _by_folders(folder: Path) -> dict[str, Files]:
    """Return all files of each folder that is named after a split."""
    named = [path for path in _folders_in(folder) if splits_in(path.name)]
    files = {path: [file for file in _files_in(path) if file.suffix] or _files_in(path) for path in named}
    return _one_each((split, _whole(files[path])) for path in named if files[path] for split in splits_in(path.name))


def _one_each(found: Iterator[tuple[str, Files]]) -> dict[str, Files]:
    splits: dict[str, Files] = {}
    for split, files in found:
        if split in splits:
            first, second = splits[split][0], files[0]
            names = (first.name, second.name) if first.parent == second.parent else (first, second)
            raise DataError(
                f"{split} 파일이 둘입니다: {names[0]}, {names[1]}",
                where=str(first.parent),
                remedy="하나만 남기거나, data.train_file, data.validation_file, data.test_file에 파일을 직접 쓰세요.",
            )
        splits[split] = files
    return splits


def _whole(files: Sequence[Path]) -> Files:
    """Return the files in their order; raise DataError if some of their shards are missing."""
    shards = [shard for path in files if (shard := _SHARD.fullmatch(path.stem))]
    numbers, total = {int(shard[2]) for shard in shards}, max((int(shard[3]) for shard in shards), default=0)
    missing = sorted(set(range(total)) - numbers)
    if missing:
        raise DataError(
            f"나뉜 파일 {total:,}개 가운데 {len(missing):,}개가 없습니다: {missing[0]:05d}번"
            + (" 등" if len(missing) > 1 else ""),
            where=str(files[0].parent),
            remedy="빠진 파일을 마저 내려받으세요. 있는 것만 쓰려면 train이라는 폴더에 다른 이름으로 옮기세요.",
        )
    return tuple(sorted(files))


def _files_in(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and (is_supported(path) or not path.suffix)
        and path.name not in METADATA
        and not path.name.startswith(HIDDEN)
    ]


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(HIDDEN)]


def nothing_found(folder: Path) -> DataError:
    """Return the error that says what a folder without a split has instead."""
    if configs := configurations(folder):
        return DataError(
            f"설정(config)이 여럿인 데이터셋입니다: {', '.join(configs[:20])}",
            where=str(folder),
            remedy=f"--dataset_config로 하나를 고르세요. 예: --dataset_config {configs[0]}",
        )
    files = [path for path in _files_in(folder) if path.suffix]
    alone = f"파일 하나로 학습하려면 --dataset {typed(files[0])} 플래그를 쓰세요. " if len(files) == 1 else ""
    return DataError(
        "폴더에서 데이터 파일을 찾지 못했습니다.",
        where=str(folder),
        remedy=f"{alone}파일 이름에 train, validation, test를 넣으세요. 예: train.csv, test.csv",
    )
