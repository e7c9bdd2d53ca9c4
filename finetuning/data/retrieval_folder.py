"""Queries, a corpus and judgements (qrels) in files of their own, as BEIR and MTEB publish retrieval data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exceptions import DataError
from finetuning.cells import as_number, as_text
from finetuning.data.folders import splits_in
from finetuning.data.formats.base import Source
from finetuning.data.formats.registry import is_supported
from finetuning.files import content_key
from finetuning.korean.particles import with_particle
from finetuning.tasks.passages import texts_in

_IDS = ("_id", "id", "docid", "doc_id", "pid", "qid", "query_id", "query-id", "corpus_id", "corpus-id")
_TEXTS = ("text", "contents", "content", "passage", "query", "question", "title")
_QUERY_IDS, _PASSAGE_IDS = ("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "doc_id", "docid", "pid")
_SCORES = ("score", "relevance", "label", "rel")
COLUMNS = ("query", "positive_passages", "negative_passages")
Open = Callable[[Path], Source]


@dataclass(frozen=True)
class Judged:
    """The judged queries of a split.

    Attributes:
        rows: A row for each query: its text, passages that answer it, and passages that were judged not to.
        where: The files, as messages name them.
        key: A hash of their content.
        note: What was read of them, a sentence for the log.
    """

    rows: Sequence[Mapping[str, Any]]
    where: str
    key: str
    note: str


def is_retrieval(folder: Path) -> bool:
    """Return whether a folder holds a corpus, queries and judgements."""
    return bool(_part(folder, "corpus") and _part(folder, "queries") and _judgements(folder))


def incomplete(folder: Path) -> DataError | None:
    """Return what a folder of judgements lacks, as an error; None for a folder without any."""
    judged = _judgements(folder)
    lacking = [name for name in ("corpus", "queries") if not _part(folder, name)]
    if not judged or not lacking:
        return None
    files = ", ".join(f"{name}.jsonl" for name in lacking)
    return DataError(
        f"검색 데이터의 판정(qrels)은 있지만 {with_particle(files, '이/가')} 없습니다.",
        where=str(folder),
        remedy=f"{with_particle(files, '을/를')} 같은 폴더에 두세요(_id, text). 판정에는 번호만 있습니다.",
    )


def corpus_files(folder: Path) -> list[Path]:
    """Return the files of the passages of a folder that `is_retrieval`."""
    return _part(folder, "corpus")


def judged_by_split(folder: Path, opened: Open) -> dict[str, Judged]:
    """Read the splits of a folder that `is_retrieval`.

    Args:
        folder: The folder.
        opened: Opens a file.

    Returns:
        The queries of each split, in the order of its judgements.

    Raises:
        DataError: A file lacks a column, or a judgement is of a query or a passage that there is not.
    """
    corpus, queries = (
        [source for path in _part(folder, name) for source in [opened(path)]] for name in ("corpus", "queries")
    )
    texts, asked = _texts(corpus), _texts(queries)
    found = {}
    for split, path in _judgements(folder).items():
        rows, used = _rows(opened(path), texts, asked)
        note = (
            f"질문 {len(rows):,}개와 문서 {len(texts):,}개 가운데 질문에 연결된 {used:,}개를 읽었습니다. "
            "학습하는 동안의 평가는 이 문서들에서, evaluate는 모든 문서에서 찾습니다."
        )
        files = [path, *(source.path for source in (*corpus, *queries))]
        found[split] = Judged(rows, str(path), content_key(*map(_hash, files)), note)
    return found


def judged_ids(
    folder: Path, opened: Open
) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, Mapping[str, Mapping[str, int]]]]:
    """Read the files of a folder that `is_retrieval` by their ids.

    Args:
        folder: The folder.
        opened: Opens a file.

    Returns:
        Passages by id; queries by id; and by split, for each query, how relevant passages are to it.

    Raises:
        DataError: A file lacks a column, or a judgement's score is no number.
    """
    texts, asked = (_texts([opened(path) for path in _part(folder, name)]) for name in ("corpus", "queries"))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for split, path in _judgements(folder).items():
        source = opened(path)
        query, passage, score = (_column(source, names) for names in (_QUERY_IDS, _PASSAGE_IDS, _SCORES))
        for number, row in enumerate(source.rows, 1):
            own = found.setdefault(split, {}).setdefault(as_text(row[query]), {})
            own[as_text(row[passage])] = int(_number(row[score], source, number))
    return texts, asked, found


def _part(folder: Path, name: str) -> list[Path]:
    """Return the files of the corpus or of the queries: `corpus.jsonl`, or all files of a folder `corpus`."""
    alone = [path for path in sorted(folder.glob(f"{name}.*")) if is_supported(path)]
    return alone[:1] or [path for path in sorted((folder / name).glob("*")) if is_supported(path)]


def _judgements(folder: Path) -> dict[str, Path]:
    """Return the files of judgements by split: `qrels/dev.tsv`; a lone `qrels.tsv` is train."""
    inside = [path for path in sorted((folder / "qrels").glob("*")) if is_supported(path)]
    found = {split: path for path in inside for split in splits_in(path.stem)}
    alone = [path for path in sorted(folder.glob("qrels.*")) if is_supported(path)]
    return found or ({"train": alone[0]} if alone else {})


def _texts(sources: Sequence[Source]) -> dict[str, str]:
    """Return texts by their id; a title stands before its text."""
    found: dict[str, str] = {}
    for source in sources:
        key, text = _column(source, _IDS), _column(source, _TEXTS)
        has_title = "title" in source.columns and text != "title"
        for row in source.rows:
            title = as_text(row.get("title")) if has_title else ""
            found[as_text(row[key])] = texts_in({"title": title, "text": row[text]})[0] if row[text] else title
    return found


def _rows(source: Source, texts: Mapping[str, str], asked: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """Return the judged queries, and how many passages they have."""
    query, passage, score = (_column(source, names) for names in (_QUERY_IDS, _PASSAGE_IDS, _SCORES))
    rows: dict[str, dict[str, Any]] = {}
    used = set[str]()
    for number, judged in enumerate(source.rows, 1):
        one, other = as_text(judged[query]), as_text(judged[passage])
        for name, key, known in (("질문", one, asked), ("문서", other, texts)):
            if key not in known:
                raise DataError(
                    f"{name} 파일에 없는 id입니다: {key}",
                    where=f"{source.path}, {number:,}번째 행",
                    remedy="queries, corpus, qrels 파일이 한 데이터셋의 것인지 확인하세요.",
                )
        row = rows.setdefault(one, dict(zip(COLUMNS, (asked[one], [], []), strict=True)))
        row[COLUMNS[1] if _number(judged[score], source, number) > 0 else COLUMNS[2]].append(texts[other])
        used.add(other)
    return list(rows.values()), len(used)


def _number(cell: Any, source: Source, row: int) -> float:
    remedy = "관련 있는 문서는 1 이상, 없는 문서는 0으로 쓰세요."
    return as_number(cell, "판정 점수가 숫자가 아닙니다", f"{source.path}, {row:,}번째 행", remedy)


def _column(source: Source, names: Sequence[str]) -> str:
    spelled = {column.casefold(): column for column in source.columns}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None:
        raise DataError(
            f"'{names[0]}' 열이 없습니다. 있는 열: {', '.join(source.columns)}",
            where=str(source.path),
            remedy="BEIR 형식으로 열 이름을 쓰세요: corpus와 queries는 _id, text, qrels는 query-id, corpus-id, score.",
        )
    return found


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
