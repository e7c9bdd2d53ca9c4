"""Labels that look like typos of others, like empty cells, or are very rare: named before training, and merged."""

from __future__ import annotations

import itertools
import json
import logging
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exceptions import DataError, SettingsError
from finetuning.data.rows import Rows
from finetuning.data.table import coded
from finetuning.korean.particles import with_particle
from finetuning.tasks.parts import RowReader

_log = logging.getLogger(__name__)
_EMPTY = frozenset({"nan", "null", "<na>", "n/a", "#n/a", "nat", "none"})  # a cell without a value, written as a word
_MAY_BE_MEANT = "none"  # a class of its own in some data, so that it counts as empty where it is rare only
_RARE = 100  # times as rare as the mean
_FEWEST_A_LABEL = 5  # rows of a label on average; with fewer, single rows of a label are no surprise
_RARER = 10  # times as rare as the label that it looks like
_SHORTEST_TYPO = 4  # letters, 자모 counted singly
_SHOWN = 8
_MOST_LABELS = 1000  # more are no labels
_NOT_LETTERS = re.compile(r"[\s_\-.·]+")
_NUMBER = re.compile(r"[+-]?[0-9.]+")


@dataclass(frozen=True)
class Doubt:
    """A label that is probably not meant.

    Attributes:
        label: The label.
        count: Its rows.
        said: What the log says of it, a Korean clause.
        instead: The label to merge it into; None to skip its rows, "" where there is no proposal.
    """

    label: str
    count: int
    said: str
    instead: str | None


def doubtful_labels(counts: Mapping[str, int]) -> list[Doubt]:
    """Find labels that are probably not meant.

    Args:
        counts: Rows of each label.

    Returns:
        First those that differ from a more frequent label in case, spaces or hyphens, or by one letter (자모) where
        they are far rarer; then words for an empty cell; then those that are very rare.
    """
    by_count = sorted(counts, key=lambda label: (-counts[label], label))
    mean = sum(counts.values()) / max(1, len(counts))
    found: dict[str, Doubt] = {}
    spelled: dict[str, str] = {}
    for label in by_count:
        count, same = counts[label], spelled.setdefault(_spelling(label), label)
        rarer = count * _RARER <= mean or count == 1
        if label.casefold() in _EMPTY and (label.casefold() != _MAY_BE_MEANT or rarer):
            said, instead = f"{label!r} {count:,}행은 빈 값을 문자열로 쓴 것으로 보입니다", None
        elif same != label:
            said = f"{label!r} {count:,}행은 {with_particle(repr(same), '과/와')} 대소문자나 띄어쓰기만 다릅니다"
            instead = same
        elif (instead := _typo_of(label, by_count, counts)) is not None:
            said = f"{label!r} {count:,}행은 {with_particle(repr(instead), '을/를')} 잘못 쓴 것으로 보입니다"
        elif mean >= _FEWEST_A_LABEL and count < max(2, mean / _RARE):
            said, instead = f"{with_particle(repr(label), '은/는')} {count:,}행뿐입니다", ""
        else:
            continue
        found[label] = Doubt(label, count, said, instead)
    return sorted(found.values(), key=lambda doubt: (doubt.instead == "", doubt.instead is None))


def tell_doubts(counts: Mapping[str, int], where: str) -> None:
    """Warn of labels that are probably not meant, in one line, with the setting that merges them.

    Args:
        counts: Rows of each label of the training data.
        where: The source, as messages name it.
    """
    doubts = doubtful_labels(counts) if len(counts) <= _MOST_LABELS else []
    if not doubts:
        return
    shown = "; ".join(doubt.said for doubt in doubts[:_SHOWN])
    more = f" 외 {len(doubts) - _SHOWN:,}가지." if len(doubts) > _SHOWN else "."
    merged = {doubt.label: doubt.instead for doubt in doubts if doubt.instead != ""}
    _log.warning("%s", f"{where}: 라벨을 확인하세요. {shown}{more} {_merging(merged)}".rstrip())


def check_known(rows: Rows, names: Sequence[str], reads: RowReader) -> None:
    """Check that a split has no label that train lacks.

    Args:
        rows: The split.
        names: The label names of train.
        reads: Knows the labels in a cell.

    Raises:
        DataError: It has one. The message names its row, and the label that is probably meant.
    """
    known = set(names)
    for cell in rows.label_cells():
        unknown = [label for label in reads.labels_in(cell) if label not in known]
        if unknown:
            codes, cells = coded(rows.table, "label")
            position = int(np.argmax(codes == cells.index(cell)))
            written = [list(reads.written_labels(dict.fromkeys(labels, 1))) for labels in (unknown, names)]
            near = {label: found for label in written[0] if (found := _nearest(label, written[1])) is not None}
            subjects = {label: with_particle(repr(label), "은/는") for label in near}
            likely = "".join(
                f"{subjects[label]} {with_particle(repr(found), '을/를')} 잘못 쓴 것으로 보입니다. "
                for label, found in near.items()
            )
            raise DataError(
                f"학습 데이터에 없는 라벨이 있습니다: {', '.join(unknown[:_SHOWN])}",
                where=f"{rows.where}, {rows.table[position]['row']:,}번째 행",
                remedy=f"{likely}{_merging(near)}학습한 라벨은 {', '.join(names[:20])}입니다. "
                "라벨을 고치거나 그 행을 빼세요.",
            )


def check_map(label_map: Mapping[str, str | None], found: Collection[str], where: str) -> None:
    """Check that every label to be merged is in the data.

    Args:
        label_map: `data.label_map`.
        found: Its labels that were found.
        where: The source, as messages name it.

    Raises:
        SettingsError: A label was not found; the message names it.
    """
    unknown = [label for label in label_map if label not in found]
    if unknown:
        raise SettingsError(
            f"data.label_map에 쓴 라벨이 데이터에 없습니다: {', '.join(unknown[:_SHOWN])}",
            where=where,
            remedy="라벨의 철자를 확인하거나 data.label_map에서 지우세요. 라벨의 앞뒤 공백은 뺀 이름을 씁니다.",
        )


def _nearest(label: str, known: Sequence[str]) -> str | None:
    """Return the one of the known labels that this label looks like, or None."""
    same = [other for other in known if _spelling(other) == _spelling(label)]
    return next(iter(same or [other for other in known if _is_typo(label, other)]), None)


def _merging(merged: Mapping[str, str | None]) -> str:
    """Return a sentence with the flag that merges labels, or nothing where none is to be merged."""
    return f"고치려면: --set 'data.label_map={json.dumps(merged, ensure_ascii=False)}' " if merged else ""


def _typo_of(label: str, by_count: Sequence[str], counts: Mapping[str, int]) -> str | None:
    """Return a label that is far more frequent and differs by one letter."""
    frequent = itertools.takewhile(lambda other: counts[other] >= _RARER * counts[label], by_count)
    return next((other for other in frequent if _is_typo(label, other)), None)


def _is_typo(label: str, other: str) -> bool:
    """Return whether two labels differ by one letter that is no digit: one more, one less or another."""
    first, second = unicodedata.normalize("NFD", label), unicodedata.normalize("NFD", other)
    if first == second or min(len(first), len(second)) < _SHORTEST_TYPO or abs(len(first) - len(second)) > 1:
        return False
    start = next((place for place, pair in enumerate(zip(first, second, strict=False)) if len(set(pair)) > 1), None)
    start = min(len(first), len(second)) if start is None else start
    longer = len(first) - len(second)
    rest = first[start + (longer >= 0) :], second[start + (longer <= 0) :]
    changed = first[start : start + (longer >= 0)] + second[start : start + (longer <= 0)]
    return rest[0] == rest[1] and changed.isalpha()


def _spelling(label: str) -> str:
    """Return a label without case, spaces and hyphens; numbers and labels without letters as they are."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    return label if _NUMBER.fullmatch(label) else _NOT_LETTERS.sub("", folded) or label
