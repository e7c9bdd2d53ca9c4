"""Rows of any source → clean rows: text as NFC strings, unusable rows counted and named, every change reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from exceptions import BadRow, SettingsError
from finetuning.cells import as_label, as_text, check_is_text
from finetuning.config.schema import DataSettings
from finetuning.data.findings import Findings
from finetuning.korean.normalization import Normalizer
from finetuning.korean.personal_data import PersonalData
from finetuning.tasks.base import Task
from finetuning.types import Column, Remark

GROUP = "group"  # role of `data.group_column`, which no task reads
_TEXTS = ("text", "text_pair", "prompt", "response")


@dataclass(frozen=True)
class Cleaner:
    """Cleans the rows of one source for one task.

    Attributes:
        names: Role → the source's column name.
        optional: Roles whose cell may be empty.
        prepare: Cells by role → the task's row, and the unanswered question that was removed from its end, if any.
            Raises BadRow.
        remarks: Cells by role → what the task does not use of them.
        relabel: A row's label → the label under the names of `data.label_map`, and the labels that were renamed.
        normalizer: Brings texts to one spelling.
        personal: Counts and masks personal data; None where nobody looks for them.
        limit: Rows of the source to read, None for all.
    """

    names: Mapping[str, str]
    optional: Sequence[str]
    prepare: Callable[[dict[str, Any]], tuple[dict[str, Any], str]]
    remarks: Callable[[Mapping[str, Any]], Iterable[Remark]]
    relabel: Callable[[Any], tuple[Any, Sequence[str]]]
    normalizer: Normalizer
    personal: PersonalData | None = None
    limit: int | None = None

    @classmethod
    def to_train(
        cls, task: Task, data: DataSettings, columns: Sequence[Column], names: Mapping[str, str], limit: int | None
    ) -> Cleaner:
        """Make a cleaner for rows with labels; raise SettingsError for a mask that would move their labels."""
        _check_mask(task, data)

        def prepare(cells: dict[str, Any]) -> tuple[dict[str, Any], str]:
            return task.reads.complete(task.reads.prepare(cells))

        def relabel(cell: Any) -> tuple[Any, Sequence[str]]:
            return task.reads.relabelled(cell, data.label_map) if data.label_map else (cell, ())

        return cls(
            names, _optional(columns), prepare, task.reads.remarks, relabel, _normalizer(task, data),
            PersonalData(data.mask_pii), limit,
        )  # fmt: skip

    @classmethod
    def to_predict(cls, task: Task, data: DataSettings, columns: Sequence[Column], names: Mapping[str, str]) -> Cleaner:
        """Make a cleaner for rows without labels."""

        def prepare(cells: dict[str, Any]) -> tuple[dict[str, Any], str]:
            return task.reads.prepare(cells), ""

        return cls(
            names,
            _optional(columns),
            prepare,
            task.reads.remarks,
            lambda cell: (cell, ()),
            _normalizer(task, data),
            PersonalData(masks=True) if data.mask_pii else None,
        )

    def clean(self, rows: Iterable[Mapping[str, Any]], findings: Findings, first: int = 1) -> Iterator[dict[str, Any]]:
        """Clean rows, and count skipped and changed ones in `findings`.

        Args:
            rows: Cells by the source's column names.
            findings: Counts, added to.
            first: Number of the first of these rows in the source.

        Yields:
            `row`, the number in the source, and the task's columns as strings.
        """
        roles: Set[str] = set()
        for number, source in enumerate(rows, first):
            if self.limit is not None and number > self.limit:
                return
            row = self._clean(number, source, findings)
            if row is None:
                continue
            roles = roles or row.keys()
            if row.keys() != roles:  # the table has the columns of the first row
                findings.skip("첫 행과 모양이 다른 행", number)
                continue
            findings.kept += 1
            findings.numeric += _is_number(row.get("text", row.get("context", "")))
            yield row

    def _clean(self, number: int, source: Mapping[str, Any], findings: Findings) -> dict[str, Any] | None:
        """Clean one row; None if it is skipped."""
        cells = {role: source.get(name) for role, name in self.names.items()}
        empty = next((role for role in self.names if role not in self.optional and self._is_empty(cells[role])), None)
        if empty is not None:
            findings.skip_empty(empty, number)
            return None
        label, group = cells.get("label"), cells.pop(GROUP, None)
        try:
            prepared, left_out = self.prepare(cells)
            trimmed = prepared.get("label")
            if "label" in prepared:
                prepared["label"], renamed = self.relabel(trimmed)
                findings.rename(renamed)
            for role, cell in prepared.items():
                if role in _TEXTS:
                    check_is_text(role, cell)
        except BadRow as reason:
            findings.skip(str(reason), number, reason.found, reason.is_fault, reason.remedy)
            return None
        if "label" in prepared and prepared["label"] is None:
            findings.skip_empty("label", number)
            return None
        row: dict[str, Any] = {"row": number}
        if isinstance(label, str) and trimmed == label.strip() != label:
            findings.change("label", number, label, trimmed)
        for remark in self.remarks(cells):
            findings.remark(remark, number)
        if left_out:
            findings.change("unanswered", number, left_out, "")
        if GROUP in self.names:
            row[GROUP] = as_label(group)
        for role, value in prepared.items():
            found, kinds = self.normalizer.value(value)
            if self.personal is not None and role != "label":
                found, personal = self.personal.value(found)
                findings.see_personal(personal, self.personal.masks)
            row[role] = as_text(found)
            for kind in kinds:
                findings.change(kind, number, as_text(value), row[role])
        return row

    def _is_empty(self, cell: Any) -> bool:
        return not self.normalizer.text(as_text(cell))[0].strip()


def _optional(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(column.role for column in columns if column.optional)


def _check_mask(task: Task, data: DataSettings) -> None:
    if data.mask_pii and task.reads.counts_characters:
        raise SettingsError(
            f"{task.name} 태스크는 글자의 위치를 세므로 개인정보를 가릴 수 없습니다. 가리면 라벨의 위치가 달라집니다.",
            where="data.mask_pii: true",
            remedy="data.mask_pii를 지우고, 개인정보를 가린 데이터로 라벨을 다시 만드세요.",
        )


def _normalizer(task: Task, data: DataSettings) -> Normalizer:
    return Normalizer.of(() if task.reads.counts_characters else data.normalize)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
