"""Any source → splits of clean rows → tokenised examples, through the task; each stage cached by content."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exceptions import DataError
from finetuning.cells import ROLE_NAMES
from finetuning.config.schema import Settings, cache_dependencies
from finetuning.data.cleaning import Findings, Prepare, clean_rows
from finetuning.data.examples import Examples
from finetuning.data.formats.base import clean_name
from finetuning.data.rows import Rows
from finetuning.data.sources import Raw, find_sources, raw_file, raw_lines
from finetuning.data.splits import hold_out_groups, hold_out_rows, leaving_every_label
from finetuning.data.table import coded, list_lengths, numbers
from finetuning.data.tokenizing import write_examples
from finetuning.files import content_key, discard_leftovers, writing
from finetuning.korean.normalization import Normalizer
from finetuning.korean.particles import with_particle
from finetuning.tasks.base import Task
from finetuning.types import Column

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

# Part of every cache key: a change in what cleaning or encoding does must change it.
_FORMAT = "6"
_ROWS_AT_A_TIME = 10_000
_SHOWN = 5
_A_DAY_S = 86_400.0
_DROPPED_LOUDLY = 0.01
_FLAGS = frozenset({"text_column", "text_pair_column", "label_column"})  # settings of columns that have a flag


class DataManager:
    """Reads the data of one run for one task."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self.data, self.task, self.seed = settings.data, task, settings.training.seed
        self.cache = Path(settings.data.dataset_cache_dir).expanduser() / "prepared"

    # --- source → rows ---

    def load_splits(self) -> dict[str, Rows]:
        """`train`, `validation` (held out of train where there is none) and, where the source has one, `test`."""
        sources = find_sources(self.data)
        if "train" not in sources:
            raise DataError(
                f"학습(train) 데이터가 없습니다. 찾은 것: {', '.join(sources)}",
                where=f"data.dataset_name: {self.data.dataset_name}",
                remedy="파일 이름에 train을 넣거나(예: train.csv), data.dataset_name에 학습 파일을 직접 쓰세요.",
            )
        splits = {name: self._clean(raw, name) for name, raw in self._labelled(sources).items()}
        splits = {name: rows for name, rows in splits.items() if name == "train" or len(rows)}
        if "test" not in splits and self.data.test_split > 0:
            splits["train"], splits["test"] = self._hold_out(splits["train"], "test", self.data.test_split)
        if "validation" not in splits:
            splits["train"], splits["validation"] = self._hold_out(
                splits["train"], "validation", self.data.validation_split
            )
        return {name: splits[name] for name in ("train", "validation", "test") if name in splits}

    def load_split(self, wanted: str | None) -> tuple[str, Rows]:
        """One split with its labels, and its name: the wanted one, or else test, validation, or the only one."""
        sources = find_sources(self.data)
        if "train" in sources:
            splits = self.load_splits()
        else:
            cleaned = {name: self._clean(raw, name) for name, raw in sources.items()}
            splits = {name: rows for name, rows in cleaned.items() if len(rows)}
        if not splits:
            raise _nothing_to_score(f"data.dataset_name: {self.data.dataset_name}")
        name = wanted or next(name for name in ("test", "validation") if name in splits)
        if name not in splits:
            raise DataError(
                f"'{wanted}' split이 없습니다.",
                where=f"data.dataset_name: {self.data.dataset_name}",
                remedy=f"있는 split: {', '.join(splits)}",
            )
        return name, splits[name]

    def load_file(self, path: Path) -> Rows:
        """All of a file's rows, with their labels."""
        rows = self._clean(raw_file(path, self.data), "test")
        if not len(rows):
            raise _nothing_to_score(str(path))
        return rows

    def load_unlabelled(self, path: Path | None, lines: Iterable[str]) -> tuple[Rows, list[dict[str, Any]]]:
        """Rows to predict, out of a file or else lines of text; and every source row, those without text included."""
        if path is not None:
            raw = raw_file(path, self.data)
        else:
            asked = [column for column in self.task.reads.columns(()) if not (column.target or column.optional)]
            raw = raw_lines(lines, [column.name or column.role for column in asked])
        wanted = [column for column in self.task.reads.columns(raw.columns) if not column.target]
        names = self._resolve(wanted, raw)
        originals = [{name: None if cell != cell else cell for name, cell in row.items()} for row in raw.rows]  # NaN
        rows, findings = self._write(replace(raw, rows=originals), wanted, names, None, self._as_asked)
        findings.check(raw.where, {}, tolerated=1.0)  # no column is named: a text to predict may well be a number
        findings.report(raw.where, raw.notes)
        return rows, originals

    # --- rows → clean rows ---

    def _resolve(self, columns: Sequence[Column], raw: Raw) -> dict[str, str]:
        """Which of the source's columns each role is: as named or, where the name is the default, a usual one."""
        names: dict[str, str] = {}
        for column in columns:
            fitting = _fitting(column, raw.columns)
            if fitting == [clean_name(column.name or "")]:
                names[column.role] = fitting[0]
                continue
            if not fitting and column.optional and column.is_default():
                continue
            if len(fitting) == 1:
                names[column.role] = fitting[0]
                role = with_particle(ROLE_NAMES.get(column.role, column.role), "으로/로")
                _log.info("'%s' 열을 %s 씁니다. (%s)", fitting[0], role, raw.where)
                continue
            several = f" 후보가 여럿입니다: {', '.join(fitting)}." if fitting else ""
            flag = f"--{column.setting} 열이름" if column.setting in _FLAGS else f"--set data.{column.setting}=열이름"
            raise DataError(
                f"'{column.name}' 열이 없습니다.{several}",
                where=raw.where,
                remedy=f"있는 열: {', '.join(raw.columns)}. data.{column.setting}에 쓰거나 {flag} 플래그로 고르세요.",
            )
        return names

    def _clean(self, raw: Raw, split: str) -> Rows:
        limits = {"train": self.data.train_rows, "validation": self.data.validation_rows, "test": self.data.test_rows}
        columns = self.task.reads.columns(raw.columns)
        names = self._resolve(columns, raw)
        rows, findings = self._write(raw, columns, names, limits.get(split), self._as_trained)
        targets = [column.role for column in columns if column.target and not column.optional]
        if split != "train" and findings.all_lack(targets):
            _leave_out(raw, split, f"'{names[targets[0]]}' 열이 모두 비어")
            return rows
        findings.check(raw.where, names, self.data.max_bad_rows)
        findings.report(raw.where, raw.notes)
        return rows

    def _labelled(self, sources: Mapping[str, Raw]) -> dict[str, Raw]:
        """The sources but for those that lack the column of what is to be predicted, as competitions' test files do."""
        labelled: dict[str, Raw] = {}
        for split, raw in sources.items():
            shapes = [self.task.reads.columns(source.columns) for source in (raw, sources["train"])]
            own, trained = ([c for c in shape if not (c.optional or _fitting(c, raw.columns))] for shape in shapes)
            lacking = [column for column in trained if column.target]
            if split == "train" or not (own and lacking):
                labelled[split] = raw
            else:
                _leave_out(raw, split, f"'{lacking[0].name}' 열이 없어")
        return labelled

    def _write(
        self, raw: Raw, columns: Sequence[Column], names: Mapping[str, str], limit: int | None, prepare: Prepare
    ) -> tuple[Rows, Findings]:
        """Writes the clean rows to the cache as Arrow, unless they are there; and what was found in them."""
        import pyarrow as pa
        from datasets import Dataset

        key = content_key(_FORMAT, raw.key, json.dumps(names), str(limit), prepare.__name__, self.task.name,
                          self._settings_of("rows"))  # fmt: skip
        path = self.cache / f"rows-{key}.arrow"
        findings_path = path.with_suffix(".json")
        if path.exists() and findings_path.exists():
            findings = Findings(**json.loads(findings_path.read_text(encoding="utf-8")))
        else:
            findings, partial = Findings(), path.with_suffix(f".partial-{os.getpid()}")
            optional = [column.role for column in columns if column.optional]
            normalizer = Normalizer.of(() if self.task.reads.counts_characters else self.data.normalize)
            clean = clean_rows(raw.rows, names, optional, prepare, limit, findings, normalizer)
            chunk = list(itertools.islice(clean, _ROWS_AT_A_TIME))
            roles = [role for role in (chunk[0] if chunk else names) if role != "row"]
            schema = pa.schema([("row", pa.int64()), *((role, pa.string()) for role in roles)])
            with self._caching(partial):
                with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                    while chunk:
                        writer.write_table(pa.Table.from_pylist(chunk, schema))
                        chunk = list(itertools.islice(clean, _ROWS_AT_A_TIME))
                findings_path.write_text(json.dumps(asdict(findings), ensure_ascii=False), encoding="utf-8")
                os.replace(partial, path)
        return Rows(raw.where, Dataset.from_file(str(path)), key), findings

    def _as_trained(self, cells: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return self.task.reads.complete(self.task.reads.prepare(cells))

    def _as_asked(self, cells: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return self.task.reads.prepare(cells), ""

    @contextmanager
    def _caching(self, partial: Path | None = None) -> Iterator[None]:
        """What is written to the cache, its folder made; a disk that fails is told, and `partial` removed."""
        remedy = "남은 공간과 쓰기 권한을 확인하거나 data.dataset_cache_dir로 다른 폴더를 고르세요."
        with writing("데이터 캐시에 쓰지 못했습니다", f"data.dataset_cache_dir: {self.cache}", remedy, partial):
            self.cache.mkdir(parents=True, exist_ok=True)
            discard_leftovers(self.cache.glob("*.partial-*"), idle_s=_A_DAY_S)
            yield

    def _hold_out(self, train: Rows, name: str, share: float) -> tuple[Rows, Rows]:
        """Splits a seeded share off train: whole groups where the task has such, or else of every label the same."""
        random = np.random.default_rng([self.seed, len(train), len(name)])
        if len(train) < 2:
            raise DataError("예제가 둘은 있어야 학습과 검증으로 나눌 수 있습니다.", where=train.where)
        group = self.task.reads.grouped_by
        if group is not None:
            held = hold_out_groups(coded(train.table, group)[0], share, random)
            if not len(held):
                raise DataError(
                    f"서로 다른 {with_particle(ROLE_NAMES.get(group, group), '이/가')} 둘은 있어야 나눌 수 있습니다.",
                    where=train.where,
                    remedy="검증 데이터를 따로 준비하세요.",
                )
        else:
            has_labels = "label" in train.table.column_names
            codes, cells = coded(train.table, "label") if has_labels else (np.zeros(len(train), dtype=np.int32), [""])
            held = hold_out_rows(codes, share, random)
            if self.task.reads.has_labels:
                held = leaving_every_label(codes, cells, held, self.task.reads.labels_in)
            held = held if len(held) else random.integers(len(train), size=1)
        is_held = np.zeros(len(train), dtype=bool)
        is_held[held] = True
        _log.info(
            "%s 데이터가 없어 학습 데이터 %s행 가운데 %s행을 떼어 씁니다. (data.%s_split, seed %d)",
            {"validation": "검증", "test": "테스트"}[name], f"{len(train):,}", f"{len(held):,}", name, self.seed,
        )  # fmt: skip
        return tuple(  # type: ignore[return-value]
            Rows(
                train.where,
                train.table.select(np.flatnonzero(mask)),
                content_key(train.key, str(self.seed), str(share), name, part, *([group] if group else [])),
            )
            for part, mask in (("kept", ~is_held), ("held", is_held))
        )

    # --- rows → examples ---

    def label_counts(self, rows: Rows) -> Counter[str]:
        """How often each label occurs; empty where the split has none."""
        counts = Counter[str]()
        for cell, count in rows.label_cells().items():
            for label in self.task.reads.labels_in(cell):
                counts[label] += count
        return counts

    def label_profile(self, rows: Rows) -> tuple[list[str], Counter[str]]:
        """The roles and the label counts of a split, by which a task may be meant more exactly."""
        return rows.table.column_names, self.label_counts(rows)

    def label_names(self, splits: Mapping[str, Rows]) -> tuple[str, ...]:
        """Label names found in train; DataError where another split has one that train does not."""
        names = self.task.reads.label_names(self.label_counts(splits["train"]))
        if names:
            for rows in splits.values():
                self.check_labels(rows, names)
        return names

    def check_labels(self, rows: Rows, names: Sequence[str]) -> None:
        """DataError where a split has labels outside these names."""
        known = set(names)
        for cell in rows.label_cells():
            unknown = [label for label in self.task.reads.labels_in(cell) if label not in known]
            if unknown:
                codes, cells = coded(rows.table, "label")
                position = int(np.argmax(codes == cells.index(cell)))
                raise DataError(
                    f"학습 데이터에 없는 라벨이 있습니다: {', '.join(unknown[:_SHOWN])}",
                    where=f"{rows.where}, {rows.table[position]['row']:,}번째 행",
                    remedy=f"학습한 라벨은 {', '.join(names[:20])}입니다. 라벨을 고치거나 그 행을 빼세요.",
                )

    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> Examples:
        """Tokenises a split, in batches with the fast tokenizer, and says how many texts were cut or dropped."""
        from datasets import Dataset
        from transformers import PreTrainedTokenizerFast

        spelled = ""
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            tokenizer.backend_tokenizer.no_truncation()  # what an earlier split left there is no part of the key
            spelled = tokenizer.backend_tokenizer.to_str()
        key = content_key(
            _FORMAT, rows.key, self.task.name, self._settings_of("examples"), json.dumps(label_names), str(max_length),
            spelled, str(tokenizer.init_kwargs),
        )  # fmt: skip
        path = self.cache / f"examples-{key}.arrow"
        if not path.exists():
            partial, encode = path.with_suffix(f".partial-{os.getpid()}"), self.task.encodes.encode
            with self._caching(partial):
                write_examples(
                    rows.table,
                    lambda batch: {"row": batch["row"], **encode(batch, tokenizer, label_names, max_length)},
                    partial,
                )
                os.replace(partial, path)
        table = Dataset.from_file(str(path))
        lengths = list_lengths(table, "input_ids")
        self._report_lengths(rows, table, lengths, max_length)
        if not lengths.any():
            raise DataError("학습할 것이 남은 예제가 없습니다.", where=rows.where, remedy="data.max_length를 늘리세요.")
        if not lengths.all():
            table, lengths = table.select(np.flatnonzero(lengths)), lengths[lengths > 0]
        kept = rows.table
        if len(table) != len(kept):  # else each row has one example
            has_any = np.isin(numbers(kept, "row"), numbers(table, "row"))
            kept = kept if has_any.all() else kept.select(np.flatnonzero(has_any))
        return Examples(table, lengths, kept)

    def _report_lengths(self, rows: Rows, table: Dataset, lengths: np.ndarray, max_length: int) -> None:
        """Says how many texts were cut and how many examples were dropped; loudly where it is more than one in 100."""
        cut, dropped = int(numbers(table, "truncated").sum()), int((lengths == 0).sum())
        if cut:
            _log.info(
                "%s: 텍스트 %s개(%.1f%%)가 %s 토큰을 넘어 잘렸습니다.",
                rows.where, f"{cut:,}", 100 * cut / len(table), f"{max_length:,}",
            )  # fmt: skip
        if not dropped:
            return
        rows_cut = numbers(table, "row")[lengths == 0]
        shown = ", ".join(map(str, rows_cut[:_SHOWN])) + ("번째 등" if dropped > _SHOWN else "번째")
        _log.warning("%s: 학습할 토큰이 max_length에서 모두 잘린 %s행(%s)을 뺍니다.", rows.where, f"{dropped:,}", shown)
        if dropped > _DROPPED_LOUDLY * len(table) and "full_length" in table.column_names:
            quantiles = np.percentile(numbers(table, "full_length"), (50, 90, 99, 100)).astype(int)
            _log.warning(
                "%.1f%%나 빠집니다. 토큰 길이는 50%% %s, 90%% %s, 99%% %s, 최대 %s입니다. "
                "data.max_length(지금 %s)를 늘리세요.",
                100 * dropped / len(table), *(f"{value:,}" for value in quantiles), f"{max_length:,}",
            )  # fmt: skip

    def _settings_of(self, stage: Literal["rows", "examples"]) -> str:
        """The settings that a stage of the cache depends on, as part of its key."""
        return json.dumps(cache_dependencies(self.task.settings, stage), ensure_ascii=False)


def _fitting(column: Column, available: Sequence[str]) -> list[str]:
    """The one that is named so or, where the name is the default, those of usual names."""
    name = clean_name(column.name or "")
    if name in available:
        return [name]
    return [other for other in available if other.casefold() in column.usual] if column.is_default() else []


def _leave_out(raw: Raw, split: str, why: str) -> None:
    _log.warning(
        "%s: %s %s 데이터로 쓰지 않습니다. 예측하려면 학습한 뒤 predict --input에 쓰세요.", raw.where, why, split
    )


def _nothing_to_score(where: str) -> DataError:
    return DataError(
        "라벨이 있는 평가할 데이터가 없습니다.",
        where=where,
        remedy="정답이 있는 데이터를 지정하거나, 정답 없이 예측하려면 predict를 쓰세요.",
    )
