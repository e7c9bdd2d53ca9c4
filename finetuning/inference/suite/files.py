"""Finds the files of a published data set in a folder, whatever its copy calls them, and reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exceptions import DataError, first_line_of
from finetuning.korean.particles import with_particle

SUFFIXES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
_EDGE = "[^0-9a-z]"  # between the words of a path


def read_local(folder: Path, dataset: str, config: str | None, splits: Sequence[str], cache_dir: str) -> dict[str, Any]:
    """Read the splits of a published data set from files.

    Args:
        folder: The folder that the user named: it holds the data set, or folders of several.
        dataset: The data set's id on the Hub, such as `skt/kobest_v1`.
        config: The name of its configuration, None for the only one.
        splits: The splits that are read if they are there, the one to be scored first.
        cache_dir: Where `datasets` keeps what it made of the files.

    Returns:
        Tables by split.

    Raises:
        DataError: The first split is missing, or a file cannot be read.
    """
    import datasets

    home = _home(folder, dataset)
    files = find_files(home, config, splits)
    if splits[0] not in files:
        example = "/".join(filter(None, (config, f"{splits[0]}.parquet")))
        named = dataset if config is None else f"{dataset}({config})"
        raise DataError(
            f"{named}의 {with_particle(splits[0], '이/가')} 폴더에 없습니다.",
            where=f"--suite_data: {home}",
            remedy=f"이 데이터셋을 내려받아 {home / example}처럼 이름을 지으세요(.parquet, .jsonl, .csv, .tsv).",
        )
    tables = {}
    for split, paths in files.items():
        kind, options = SUFFIXES[paths[0].suffix], {"delimiter": "\t"} if paths[0].suffix == ".tsv" else {}
        try:
            tables[split] = datasets.load_dataset(
                kind, data_files={split: list(map(str, paths))}, split=split, cache_dir=cache_dir, **options
            )
        except Exception as error:
            raise DataError(
                f"벤치마크 데이터 파일을 읽지 못했습니다: {first_line_of(error)}",
                where=f"--suite_data: {paths[0]}",
                remedy="파일이 다 내려받아졌는지, Hugging Face Hub에 공개된 것과 열이 같은지 확인하세요.",
            ) from error
    return tables


def find_files(home: Path, config: str | None, splits: Sequence[str]) -> Mapping[str, list[Path]]:
    """Find the files of each split: `Law-test.csv`, `boolq/test-00000-of-00001.parquet`, `history/test/0000.parquet`.

    Args:
        home: The folder of the data set.
        config: The configuration, which begins the name of a file or of a folder; None for any.
        splits: The splits; one stands as a word behind the configuration.

    Returns:
        The files of those splits that are there, of one kind each.
    """
    found: dict[str, list[Path]] = {}
    begins = re.compile(f"(?:^|/){re.escape(config.lower())}(?={_EDGE})" if config else "^")
    paths = {path: path.relative_to(home).as_posix().lower() for path in sorted(home.rglob("*")) if path.is_file()}
    for split in splits:
        word = re.compile(f"(?:^|{_EDGE}){re.escape(split.lower())}{_EDGE}")
        own = [
            path
            for path, name in paths.items()
            if path.suffix in SUFFIXES and (start := begins.search(name)) and word.search(name, start.end())
        ]
        if own:
            found[split] = [path for path in own if path.suffix == own[0].suffix]
    return found


def _home(folder: Path, dataset: str) -> Path:
    """Return the folder of a data set: one of its name inside `folder`, or else `folder` itself."""
    names = (dataset, dataset.rpartition("/")[2], dataset.replace("/", "--"), dataset.replace("/", "__"))
    return next((folder / name for name in names if (folder / name).is_dir()), folder)
