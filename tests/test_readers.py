"""Files of every format and encoding as rows, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exceptions import DataError
from readers import SUFFIXES, open_source

ROWS = [
    {"text": "정말 재미있다 ㅋㅋ", "label": "1"},
    {"text": '그는 "최고"라고, 했다', "label": "0"},
    {"text": "뷁 똠방각하", "label": "1"},
]
CSV = 'text,label\n정말 재미있다 ㅋㅋ,1\n"그는 ""최고""라고, 했다",0\n\n뷁 똠방각하,1\n'


def rows_of(path: Path, encoding: str | None = None) -> list[dict[str, Any]]:
    return [dict(row) for row in open_source(path, encoding).rows]


def refused(path: Path, encoding: str | None = None) -> str:
    with pytest.raises(DataError) as error:
        rows_of(path, encoding)
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949"])
def test_every_encoding_gives_the_same_rows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(CSV.encode(encoding))
    source = open_source(path, None)
    assert [dict(row) for row in source.rows] == ROWS
    assert bool(source.notes) == (not encoding.startswith("utf-8"))


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    tabs = "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS)
    texts = {
        "a.csv": CSV,
        "semicolons.csv": CSV.replace("라고, 했다", "라고 했다").replace(",", ";"),
        "a.tsv": tabs,
        "a.txt": tabs,
        "a.jsonl": lines,
        "lines.json": lines,
        "a.json": json.dumps(ROWS),
        "nested.json": json.dumps({"version": "1.0", "data": ROWS}, indent=2),
        "array.jsonl": json.dumps(ROWS, indent=1),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        expected = [{**row, "text": row["text"].replace("라고, 했다", "라고 했다")} for row in ROWS]
        assert rows_of(tmp_path / name) == (expected if name == "semicolons.csv" else ROWS), name
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == ROWS


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("첫 문장\n\n둘째\t문장\r\n셋째", encoding="utf-8")
    assert rows_of(tmp_path / "a.txt") == [{"text": "첫 문장"}, {"text": "둘째\t문장"}, {"text": "셋째"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\n좋다,1\n나쁘다\n", ["3번째 줄", "2개여야", "1개"]),
        ("a.csv", 'text,label\n"두 줄\n짜리",1\n나쁘다,0,9\n', ["4번째 줄", "3개"]),
        ("a.csv", 'text,label\n좋다,1\n"안 닫힘,0\n끝,1\n', ["큰따옴표", "3번째 줄"]),
        ("a.csv", "text,text\n좋다,1\n", ["text", "여러 번"]),
        ("a.csv", "text,\n좋다,1\n", ["빈 열"]),
        ("a.csv", "", ["빈 파일"]),
        ("a.tsv", "text\tlabel\n좋다\t1\n나쁘다\n", ["3번째 줄", "tab"]),
        ("a.jsonl", '{"text": "좋다"}\n{"text": \n', ["2번째 줄", "JSON"]),
        ("a.jsonl", '{"text": "좋다"}\n[1]\n', ["2번째 줄", "list"]),
        ("a.json", '[{"text": "좋다"},\n{"text" 1}]', ["2번째 줄", "칸"]),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', ["a, b"]),
        ("a.json", "[1, 2]", ["1번째 항목"]),
        ("a.json", "[]", ["비어"]),
        ("a.json", "[" * 100_000, ["깊"]),
        ("a.parquet", "not parquet", ["Parquet"]),
        ("a.docx", "x", [".docx", ".csv"]),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, content: str, said: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    message = refused(tmp_path / name)
    assert name in message
    for words in said:
        assert words in message


def test_bytes_of_no_encoding_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n좋다,1\n".encode() + b"\xff\xfe\xff,0\n" + "끝,1\n".encode("cp949"))
    assert "3번째 줄" in refused(path)


def test_mixed_encodings_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n가각간갇갈,1\n".encode() + "끝,1\n".encode("cp949") + "똠\n".encode())
    assert "3번째 줄" in refused(path)
    assert "CP949가 섞임" in refused(path)


def test_an_encoding_that_is_named_overrules(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode("cp949"))
    assert rows_of(path, "cp949") == ROWS
    assert "utf-8" in refused(path, "utf-8")
    assert "인코딩이 없습니다" in refused(path, "no-such")
    assert "인코딩이 없습니다" in refused(path, "base64")


def test_a_workbook_named_csv_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04\x14\x00")
    assert "엑셀" in refused(tmp_path / "a.csv")


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    assert "없습니다" in refused(tmp_path / "no.csv")
    assert "폴더" in refused(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_rows_or_told(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    try:
        assert all(isinstance(row, dict) for row in rows_of(path))
    except DataError as error:
        assert str(error)


PIECES = st.lists(
    st.sampled_from(['"', ",", "\t", "\n", "\r", "{", "}", "[", ":", "1", "가", "a", "\0", "null"]), max_size=40
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=PIECES.map("".join), suffix=st.sampled_from(SUFFIXES))
def test_any_text_is_rows_or_told(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_text(content, encoding="utf-8", newline="")
    try:
        assert all(isinstance(row, dict) for row in rows_of(path))
    except DataError as error:
        assert str(error)


def test_published_files_are_read_as_they_are(real_data: Path) -> None:
    nsmc = rows_of(real_data / "nsmc" / "ratings_test.txt")
    assert len(nsmc) == 50_000
    assert {row["label"] for row in nsmc} == {"0", "1"}
    nli = open_source(real_data / "klue-nli" / "klue-nli-v1.1_dev.json", None)
    assert len(list(nli.rows)) == 3_000
    assert {"premise", "hypothesis", "gold_label"} <= set(nli.columns)
    assert len(rows_of(real_data / "korsts" / "sts-train.tsv")) > 5_000
    assert len(rows_of(real_data / "chatbot" / "ChatbotData.csv")) == 11_823
