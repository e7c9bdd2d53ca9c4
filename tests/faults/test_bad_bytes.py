"""Random settings and random files: each ends in a right reading or in an error that is meant for a person.

`make soak` tries 2,000 cases of each property, `make test` a few.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from config_manager import ConfigManager
from data_manager import DataManager
from exceptions import DataError, FinetuningError, SettingsError
from finetuning.config.schema import Settings
from finetuning.data.formats.registry import SUFFIXES, open_source
from finetuning.tasks.registry import find_task
from finetuning_app import build_parser, read_settings
from tests.support.paths import ROOT

CASES = pytest.mark.parametrize("cases", [30, pytest.param(2000, marks=pytest.mark.soak)])
ENCODINGS = (
    None,
    "utf-8",
    "cp949",
    "euc-kr",
    "utf-16",
    "utf-32",
    "utf-7",
    "ascii",
    "idna",
    "punycode",
    "hex",
    "no",
    "",
)
GOOD_CSV = ("text,label\n" + "".join(f'"좋은 영화, {n}",{n % 2}\n' for n in range(20))).encode()
GOOD_JSONL = "".join(
    json.dumps({"text": f"좋은 영화 {n}", "label": n % 2}, ensure_ascii=False) + "\n" for n in range(20)
)

text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["한글", "텍스트", "\0", "\u2028", "﻿", "=1"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | text
    | st.sampled_from([10**400, -(10**400), 1e308, "\ud800", "\udcff"])
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
)
pieces = st.sampled_from(
    [b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800",
     b"##", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x00\x00\xfe\xff", "한글".encode(), "한글".encode("cp949"),
     "한글".encode("utf-16-le"), b"text", b"label", b'{"text": "a"}', b"text,label\n", b"O", b"B-PS", b"1e999", b"\x80"]
)  # fmt: skip
mixed = st.lists(pieces | st.binary(max_size=4), max_size=40).map(b"".join)


def explore(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], cases: int) -> None:
    """Tries a property on so many cases."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @tried(max_examples=cases, deadline=None, suppress_health_check=quiet, derandomize=cases < 100, database=None)
    @given(strategy)
    def try_one(case: Any) -> None:
        check(case)

    try_one()


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with some cut out, replaced or put in."""
    edits = st.lists(
        st.tuples(st.integers(0, len(good)), st.integers(0, 8), pieces | st.binary(max_size=4)), max_size=4
    )

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = good
        for place, dropped, put in changes:
            content = content[:place] + put + content[place + dropped :]
        return content

    return edits.map(apply)


def check_read(path: Path, encoding: str | None) -> None:
    """The file is read as rows whose cells can be written as UTF-8, or it is refused with an error."""
    try:
        source = open_source(path, encoding)
        for row in source.rows:
            assert set(row) == set(source.columns)
            json.dumps(row, ensure_ascii=False).encode()
    except DataError as error:
        check_told(error)


def check_told(error: FinetuningError) -> None:
    assert error.what and error.where
    str(error).encode()  # a person's terminal must take it


@CASES
@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".ndjson"])
def test_any_bytes_as_any_format(tmp_path: Path, suffix: str, cases: int) -> None:
    def check(case: tuple[bytes, str | None]) -> None:
        path = tmp_path / f"data{suffix}"
        path.write_bytes(case[0])
        check_read(path, case[1])

    good = GOOD_JSONL.encode() if suffix in {".json", ".jsonl"} else GOOD_CSV
    explore(st.tuples(mixed | st.binary(max_size=200) | damaged(good), st.sampled_from(ENCODINGS)), check, cases)


@CASES
def test_any_values_as_json(tmp_path: Path, cases: int) -> None:
    def check(case: tuple[Any, bool, str]) -> None:
        value, is_ascii, suffix = case
        path = tmp_path / f"data{suffix}"
        path.write_bytes(json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))
        check_read(path, None)

    rows = st.lists(st.dictionaries(text, values, max_size=3), max_size=5)
    shapes = values | rows | st.fixed_dictionaries({"data": values | rows}) | st.fixed_dictionaries(
        {"data": st.lists(st.fixed_dictionaries({"paragraphs": values | rows}), max_size=2)}
    )  # fmt: skip
    explore(st.tuples(shapes, st.booleans(), st.sampled_from([".json", ".jsonl"])), check, cases)


@CASES
def test_any_table_as_parquet(tmp_path: Path, cases: int) -> None:
    typed = (
        st.tuples(st.just(pa.string()), st.lists(text, min_size=2, max_size=2))
        | st.tuples(st.just(pa.binary()), st.lists(st.binary(max_size=6), min_size=2, max_size=2))
        | st.tuples(st.just(pa.timestamp("ns")), st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=2))
        | st.tuples(st.just(pa.duration("ns")), st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=2))
        | st.tuples(st.just(pa.date32()), st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2))
        | st.tuples(st.just(pa.time64("ns")), st.lists(st.integers(0, 86_399 * 10**9), min_size=2, max_size=2))
        | st.tuples(st.just(pa.decimal128(38, 10)), st.just([Decimal("1.5"), None]))
        | st.tuples(st.just(pa.list_(pa.struct([("when", pa.timestamp("ns"))]))), st.just([[{"when": 1}], None]))
        | st.tuples(st.just(pa.map_(pa.string(), pa.int8())), st.just([[("a", 1)], []]))
        | st.tuples(st.just(pa.float16()), st.just([float("nan"), float("inf")]))
        | st.tuples(st.just(pa.null()), st.just([None, None]))
    )

    def check(
        case: tuple[list[tuple[str, tuple[pa.DataType, list[Any]]]], list[tuple[int, int, bytes]] | None],
    ) -> None:
        columns, edits = case
        arrays = [pa.array(cells, kind) for _, (kind, cells) in columns]
        written = io.BytesIO()
        pq.write_table(pa.table(arrays, names=[name for name, _ in columns]), written)
        content = written.getvalue()
        for place, dropped, put in edits or []:
            content = content[: place % len(content)] + put + content[place % len(content) + dropped :]
        path = tmp_path / "data.parquet"
        path.write_bytes(content or b"PAR1")
        check_read(path, None)

    names = text | st.just("text")
    edits = st.none() | st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 8), st.binary(max_size=4)), max_size=3)
    explore(st.tuples(st.lists(st.tuples(names, typed), min_size=1, max_size=4), edits), check, cases)


@CASES
def test_any_rows_of_a_run(tmp_path: Path, cases: int) -> None:
    def check(content: bytes) -> None:
        path = tmp_path / "train.csv"
        path.write_bytes(content)
        data = {"dataset_name": str(path), "dataset_cache_dir": str(tmp_path / "cache"), "max_bad_rows": 0.5}
        settings = Settings.model_validate({"data": data})
        manager = DataManager(settings, find_task(settings))
        try:
            splits = manager.load_splits()
            names = manager.label_names(splits)
        except DataError as error:
            check_told(error)
            return
        assert len(names) > 1
        assert all(cell.strip() for rows in splits.values() for cell in rows.table["text"][:])

    explore(damaged(GOOD_CSV), check, cases)


@CASES
def test_any_yaml_as_settings(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "my.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            ConfigManager.load(path, {})
        except SettingsError as error:
            check_told(error)

    keys = st.sampled_from([*Settings.model_fields, "epochs", "adapter", "name", "level", "format"]) | text
    sections = st.dictionaries(keys, st.dictionaries(keys, values, max_size=3) | values, max_size=3)
    written = sections.map(lambda value: yaml.safe_dump(_without_surrogates(value), allow_unicode=True).encode())
    explore(written | mixed | damaged((ROOT / "config.yaml").read_bytes()), check, cases)


def _without_surrogates(value: Any) -> Any:
    return json.loads(json.dumps(value).encode().decode("utf-8").replace("\\ud", "d"))


@CASES
def test_any_words_on_the_command_line(cases: int) -> None:
    flags = sorted(build_parser()._option_string_actions)
    words = (
        st.sampled_from([flag for flag in flags if flag not in {"-h", "--help"}])
        | text
        | st.builds(
            "{}={}".format, st.sampled_from(["training.epochs", "data.packing", "model.adapter.r", "x.y"]), text
        )
        | st.sampled_from(["train", "plan", "verify-resume", "--set", "", "-", "--", "\udcff"])
    )

    def check(argv: list[str]) -> None:
        try:
            read_settings(build_parser().parse_args(argv))
        except SettingsError as error:
            assert error.what

    explore(st.lists(words, max_size=5), check, cases)


def test_yaml_that_refers_to_itself_ends_at_once(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    names = "abcdefghijk"
    for before, name in itertools.pairwise(names):
        bomb += f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for content in (
        bomb,
        f"{bomb}training:\n  epochs: *k\n",
        "training: &t\n  epochs: *t\n",
        "&a [*a]",
        "model: &m {x: *m}",
    ):
        (tmp_path / "my.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError) as error:
            ConfigManager.load(tmp_path / "my.yaml", {})
        assert len(str(error.value)) < 5000


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_nesting_without_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    for content in ("[" * 200_000, '{"a":' * 200_000, '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError):
            list(open_source(path, None).rows)


def test_huge_fields_are_read_whole(tmp_path: Path) -> None:
    huge = "가나다 " * 1_000_000
    for name, content in (("a.csv", f'text,label\n"{huge}",1\n'), ("a.jsonl", json.dumps({"text": huge}) + "\n")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert [row["text"] for row in open_source(tmp_path / name, None).rows] == [huge]


def test_dates_of_a_spreadsheet_are_text(tmp_path: Path) -> None:
    table = pa.table({"day": [date(2026, 1, 2)], "moment": [datetime(2026, 1, 2, 3, 4)]})
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = open_source(tmp_path / "a.parquet", None).rows
    assert row["day"] == "2026-01-02" and row["moment"].startswith("2026-01-02 03:04")
