"""What cleaning found in a source: rows that were skipped, values that were changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exceptions import DataError
from finetuning.cells import ROLE_NAMES
from finetuning.korean.normalization import KINDS, change_shown
from finetuning.types import Remark

_log = logging.getLogger(__name__)
_SHOWN = 5
_CHANGES = {**KINDS, "label": "앞뒤 공백을 제거한 라벨", "unanswered": "답이 없어 제외한 마지막 질문",
            "opening": "첫 질문보다 먼저 나와 제외한 assistant 메시지"}  # fmt: skip


@dataclass
class Findings:
    """Counts of what cleaning found. Cached beside the rows, so that a later run logs it too.

    Attributes:
        kept: Clean rows.
        numeric: Clean rows whose text (or passage) is a number.
        changed: Kind of change → number of values.
        first_changed: Kind of change → the first value changed, as the log shows it.
        skipped: Reason → number of rows.
        skipped_rows: Reason → numbers of the first few rows.
        first_found: Reason → content of the first such row.
        remedies: Reason → what to change in the data, for reasons where that is known.
        unread: Name of a field of nested cells that is not read → number of times.
        no_faults: Reasons for skipping rows that are as they should be, and of no use to the task.
        renamed: Label of `data.label_map` → number of times that it was renamed.
        personal: Kind of personal data → number of times that it was found.
        masked: Whether they were masked.
    """

    kept: int = 0
    numeric: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    first_changed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_rows: dict[str, list[int]] = field(default_factory=dict)
    first_found: dict[str, str] = field(default_factory=dict)
    remedies: dict[str, str] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    renamed: dict[str, int] = field(default_factory=dict)
    personal: dict[str, int] = field(default_factory=dict)
    masked: bool = False
    no_faults: list[str] = field(default_factory=list)

    def skip(self, reason: str, row: int, found: str = "", is_fault: bool = True, remedy: str = "") -> None:
        """Count a skipped row; remember the first few row numbers, the content of the first row and the remedy."""
        if remedy:
            self.remedies.setdefault(reason, remedy)
        if not is_fault and reason not in self.no_faults:
            self.no_faults.append(reason)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if found:
            self.first_found.setdefault(reason, f"{row:,}번째 행: {found}")
        if len(self.skipped_rows.setdefault(reason, [])) < _SHOWN:
            self.skipped_rows[reason].append(row)

    def skip_empty(self, role: str, row: int) -> None:
        """Count a row whose cell of this role is empty."""
        self.skip(_empty(role), row)

    def change(self, kind: str, row: int, before: str, after: str) -> None:
        """Count a value that was changed; remember the first of its kind."""
        self.changed[kind] = self.changed.get(kind, 0) + 1
        if kind not in self.first_changed:
            self.first_changed[kind] = f"{row:,}번째 행 {change_shown(before, after)}"

    def remark(self, remark: Remark, row: int) -> None:
        """Count what the task does not use of a row."""
        if remark.kind == "field":
            self.unread[remark.found] = self.unread.get(remark.found, 0) + 1
        else:
            self.change(remark.kind, row, remark.found, "")

    def rename(self, labels: Iterable[str]) -> None:
        """Count labels that were renamed."""
        for label in labels:
            self.renamed[label] = self.renamed.get(label, 0) + 1

    def see_personal(self, found: Mapping[str, int], masked: bool) -> None:
        """Count personal data, and whether they were masked. Nothing of them is kept."""
        self.masked = masked
        for kind, count in found.items():
            self.personal[kind] = self.personal.get(kind, 0) + count

    def check(self, where: str, columns: Mapping[str, str], tolerated: float, notes: Sequence[str] = ()) -> None:
        """Check that the source can be used.

        Args:
            where: The source, as messages name it.
            columns: Role → the source's column name.
            tolerated: Largest share of rows that may be skipped, 0 to 1.
            notes: How the source was read, a sentence each.

        Raises:
            DataError: Nothing is left, too much was skipped, or the texts are numbers.
        """
        skipped = sum(self.skipped.values())
        total = self.kept + skipped
        if total == 0:
            raise DataError("데이터가 비어 있습니다.", where=where, remedy="내용이 있는 파일인지 확인하세요.")
        bad = sum(count for reason, count in self.skipped.items() if reason not in self.no_faults)
        if bad > tolerated * total or (self.kept == 0 and bad < skipped):
            leaving_out = f" 그 행들을 제외하고 계속하려면 data.max_bad_rows(지금 {tolerated:g})를 늘리세요."
            raise DataError(
                f"쓸 수 없는 행이 너무 많습니다. 전체 {total:,}행 가운데 {self._skipped_as_text()}",
                where=f"{where} ({' '.join(notes)})" if notes else where,
                remedy=self._what_to_change() + (leaving_out if self.kept else ""),
            )
        role = next((role for role in ("text", "context") if role in columns), None)
        if role is not None and self.numeric > 0.9 * self.kept > 0:
            raise DataError(
                f"{ROLE_NAMES[role]} 열 '{columns[role]}'의 값이 숫자입니다.",
                where=where,
                remedy=f"data.{role}_column에 문장이 들어 있는 열의 이름을 쓰세요. 번호(id)가 아니라 텍스트가 "
                "필요합니다.",
            )

    def all_lack(self, roles: Iterable[str]) -> bool:
        """Return whether no row is left, and at least half were skipped because a cell of these roles is empty."""
        lacking = sum(self.skipped.get(_empty(role), 0) for role in roles)
        return self.kept == 0 and 2 * lacking > sum(self.skipped.values())

    def told(self, notes: Sequence[str] = ()) -> Iterator[tuple[int, str]]:
        """Say what was found: a line of notes and changes, one of what is not read, and one of skipped rows.

        Args:
            notes: How the source was read, a sentence each.

        Yields:
            The level of logging, and the line; none for what was not found.
        """
        changes = [f"{_CHANGES[kind]} {count:,}개({self.first_changed[kind]})" for kind, count in self.changed.items()]
        changes += [f"이름을 바꾼 라벨 '{label}' {count:,}개" for label, count in self.renamed.items()]
        if changes or notes:
            yield logging.INFO, " ".join([*notes, *([", ".join(changes)] if changes else [])])
        if self.unread:
            fields = ", ".join(f"{name} {count:,}개" for name, count in self.unread.items())
            yield logging.WARNING, f"메시지에서 읽지 않는 항목이 있습니다: {fields}"
        if self.personal:
            yield self._personal_told()
        if self.skipped:
            yield logging.WARNING, f"다음 행을 건너뜁니다. {self._skipped_as_text()}"

    def report(self, where: str, notes: Sequence[str] = ()) -> None:
        """Log what was found, a line of its kind; where: the source, as messages name it; notes: as of `told`."""
        for level, line in self.told(notes):
            _log.log(level, "%s: %s", where, line)

    def _personal_told(self) -> tuple[int, str]:
        shown = ", ".join(f"{kind} {count:,}개" for kind, count in self.personal.items())
        if self.masked:
            return logging.INFO, f"개인정보로 보이는 값을 가렸습니다: {shown}"
        return logging.WARNING, (
            f"개인정보로 보이는 값이 있습니다: {shown}. 모델이 외워서 드러낼 수 있습니다. "
            "가리려면 --set data.mask_pii=true를 쓰세요."
        )

    def _what_to_change(self) -> str:
        """Return what to do about the reason for which most rows were skipped."""
        faults = [reason for reason in self.skipped if reason not in self.no_faults] or list(self.skipped)
        reason = max(faults, key=lambda reason: self.skipped[reason])
        return self.remedies.get(reason, "열 이름이 맞는지 확인하고 데이터를 고치세요.")

    def _skipped_as_text(self) -> str:
        reasons = []
        for reason, count in self.skipped.items():
            rows = ", ".join(map(str, self.skipped_rows[reason]))
            found = f" [{self.first_found[reason]}]" if reason in self.first_found else ""
            reasons.append(f"{reason} {count:,}행({rows}번째{' 등' if count > _SHOWN else ''}){found}")
        return "; ".join(reasons)


def _empty(role: str) -> str:
    return f"빈 {ROLE_NAMES.get(role, role)}"
