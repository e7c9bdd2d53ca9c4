"""Rows of any source → clean rows: text as NFC strings, unusable rows counted and named, nothing changed in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exceptions import BadRow, DataError
from finetuning.cells import ROLE_NAMES, as_text, check_is_text
from finetuning.korean.normalization import KINDS, Normalizer, change_shown

_log = logging.getLogger(__name__)
_SHOWN = 5
_TEXTS = ("text", "text_pair", "prompt", "response")
_CHANGES = {**KINDS, "label": "앞뒤 빈칸을 뗀 라벨", "unanswered": "답이 없어 뺀 마지막 질문"}

Prepare = Callable[[dict[str, Any]], tuple[dict[str, Any], str]]


@dataclass
class Findings:
    """What cleaning found in a source. Kept beside the cached rows, so that a second run says it too."""

    kept: int = 0
    numeric: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    first_changed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_rows: dict[str, list[int]] = field(default_factory=dict)
    first_found: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, row: int, found: str = "") -> None:
        """Counts a row out, and remembers the first few, and what was found in the first."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if found:
            self.first_found.setdefault(reason, f"{row:,}번째 행: {found}")
        if len(self.skipped_rows.setdefault(reason, [])) < _SHOWN:
            self.skipped_rows[reason].append(row)

    def change(self, kind: str, row: int, before: str, after: str) -> None:
        """Counts a value that was changed, and remembers the first of its kind."""
        self.changed[kind] = self.changed.get(kind, 0) + 1
        if kind not in self.first_changed:
            self.first_changed[kind] = f"{row:,}번째 행 {change_shown(before, after)}"

    def check(self, where: str, columns: Mapping[str, str], tolerated: float) -> None:
        """DataError where nothing is left, more was skipped than tolerated (a share), or the texts are numbers."""
        skipped = sum(self.skipped.values())
        total = self.kept + skipped
        if total == 0:
            raise DataError("데이터가 비어 있습니다.", where=where, remedy="내용이 있는 파일인지 확인하세요.")
        if skipped > tolerated * total:
            raise DataError(
                f"쓸 수 없는 행이 너무 많습니다. 전체 {total:,}행 가운데 {self._told()}",
                where=where,
                remedy="열 이름이 맞는지 확인하고 데이터를 고치세요. "
                f"그대로 빼고 쓰려면 data.max_bad_rows(지금 {tolerated:g})를 늘리세요.",
            )
        if "text" in columns and self.numeric > 0.9 * self.kept > 0:
            raise DataError(
                f"텍스트 열 '{columns['text']}'의 값이 숫자입니다.",
                where=where,
                remedy="data.text_column에 문장이 들어 있는 열의 이름을 쓰세요.",
            )

    def all_lack(self, roles: Iterable[str]) -> bool:
        """Whether no row is left, for most of them lack one of these roles: it is there in name only."""
        lacking = sum(self.skipped.get(_empty(role), 0) for role in roles)
        return self.kept == 0 and 2 * lacking > sum(self.skipped.values())

    def report(self, where: str, notes: Sequence[str] = ()) -> None:
        """Logs in a line how the source was read and what was changed, and in another what was skipped."""
        changes = [f"{_CHANGES[kind]} {count:,}개({self.first_changed[kind]})" for kind, count in self.changed.items()]
        if changes or notes:
            _log.info("%s: %s", where, " ".join([*notes, *([", ".join(changes)] if changes else [])]))
        if self.skipped:
            _log.warning("%s: 다음 행을 건너뜁니다. %s", where, self._told())

    def _told(self) -> str:
        told = []
        for reason, count in self.skipped.items():
            rows = ", ".join(map(str, self.skipped_rows[reason]))
            found = f" [{self.first_found[reason]}]" if reason in self.first_found else ""
            told.append(f"{reason} {count:,}행({rows}번째{' 등' if count > _SHOWN else ''}){found}")
        return "; ".join(told)


def clean_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    optional: Sequence[str],
    prepare: Prepare,
    limit: int | None,
    findings: Findings,
    normalizer: Normalizer,
) -> Iterator[dict[str, Any]]:
    """Rows as a task prepares them, with `row`, their number in the source from 1; columns: role → source's column.

    prepare: cells → the row, and a question that it left out. Rows beyond the first `limit` are left out; those that
    lack a role that is not optional, or that the task cannot use, are counted in findings.
    """
    for number, source in enumerate(rows, 1):
        if limit is not None and number > limit:
            return
        cells = {role: source.get(name) for role, name in columns.items()}
        empty = next((role for role in columns if role not in optional and _is_empty(cells[role], normalizer)), None)
        if empty is not None:
            findings.skip(_empty(empty), number)
            continue
        label = cells.get("label")
        try:
            prepared, left_out = prepare(cells)
            for role, cell in prepared.items():
                if role in _TEXTS:
                    check_is_text(role, cell)
        except BadRow as reason:
            findings.skip(str(reason), number, reason.found)
            continue
        row: dict[str, Any] = {"row": number}
        if isinstance(label, str) and prepared.get("label") == label.strip() != label:
            findings.change("label", number, label, prepared["label"])
        if left_out:
            findings.change("unanswered", number, left_out, "")
        for role, value in prepared.items():
            found, kinds = normalizer.value(value)
            row[role] = as_text(found)
            for kind in kinds:
                findings.change(kind, number, as_text(value), row[role])
        findings.kept += 1
        findings.numeric += _is_number(row.get("text", ""))
        yield row


def _is_empty(cell: Any, normalizer: Normalizer) -> bool:
    return not normalizer.text(as_text(cell))[0].strip()


def _empty(role: str) -> str:
    return f"빈 {ROLE_NAMES.get(role, role)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
