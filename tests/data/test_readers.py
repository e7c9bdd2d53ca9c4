"""Reading files of every format and encoding, and the errors for files that cannot be read."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exceptions import DataError
from finetuning.data.formats.registry import SUFFIXES, open_source

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


def sheets(path: Path, *tables: list[list[Any]]) -> Path:
    """An .xlsx of a sheet for each table."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for number, table in enumerate(tables, 1):
        sheet = book.create_sheet(f"시트{number}")
        for row in table:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "cp949"]
)
def test_every_encoding_gives_the_same_rows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(CSV.encode(encoding))
    source = open_source(path, None)
    assert [dict(row) for row in source.rows] == ROWS
    assert bool(source.notes) == (not encoding.startswith("utf-8"))


def test_the_note_on_an_encoding_has_the_right_particle(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(CSV.encode("utf-16"))
    assert open_source(path, None).notes == ("인코딩 UTF-16으로 읽었습니다.",)
    path.write_bytes(CSV.encode("cp949"))
    assert open_source(path, None).notes == ("인코딩 CP949로 읽었습니다.",)


def test_text_is_decoded_whole_where_a_character_crosses_chunks(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "a" + "가" * 700_000
    for encoding in ("utf-8", "cp949"):
        path.write_bytes(text.encode(encoding))
        assert rows_of(path) == [{"text": text}]


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
        "nested.jsonl": json.dumps({"version": "1.0", "data": ROWS}, indent=2),
        "returns.csv": CSV.replace("\n", "\r"),
        "blank-first.tsv": "\n" + tabs,
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        expected = [{**row, "text": row["text"].replace("라고, 했다", "라고 했다")} for row in ROWS]
        assert rows_of(tmp_path / name) == (expected if name == "semicolons.csv" else ROWS), name
    for name in ("a.parquet", "a_parquet.csv"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
        assert rows_of(tmp_path / name) == ROWS
    for name in ("a.xlsx", "an_xlsx.csv"):
        assert rows_of(sheets(tmp_path / name, [["text", "label"], *(list(row.values()) for row in ROWS)])) == ROWS


def test_the_delimiter_is_the_header_s_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for header in ("\ntext;label", '"text";"label"'):
        path.write_text(f"{header}\n좋다, 정말;1\n", encoding="utf-8")
        assert rows_of(path) == [{"text": "좋다, 정말", "label": "1"}]
    path.write_text('"a,b";label\n좋다;1\n', encoding="utf-8")
    assert rows_of(path) == [{"a,b": "좋다", "label": "1"}]


def test_blank_lines_are_skipped_and_empty_values_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n\n   \n,\n좋다,1\n", encoding="utf-8")
    assert rows_of(tmp_path / "a.csv") == [{"text": "", "label": ""}, {"text": "좋다", "label": "1"}]
    (tmp_path / "a.tsv").write_text("text\tlabel\n\n\t\n좋다\t1\n", encoding="utf-8")
    assert rows_of(tmp_path / "a.tsv") == [{"text": "", "label": ""}, {"text": "좋다", "label": "1"}]


def test_a_huge_value_is_read(tmp_path: Path) -> None:
    text = "가" * 200_000
    (tmp_path / "a.csv").write_text(f'text,label\n"{text}",1\n', encoding="utf-8")
    assert rows_of(tmp_path / "a.csv") == [{"text": text, "label": "1"}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_key_that_a_record_lacks_is_none(tmp_path: Path, name: str) -> None:
    records = ['{"a": 1}', '{"b": NaN}']
    text = "\n".join(records) if name == "a.jsonl" else f"[{','.join(records)}]"
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = open_source(tmp_path / name, None)
    first, second = source.rows
    assert source.columns == ("a", "b")
    assert first == {"a": 1, "b": None}
    assert second["a"] is None and second["b"] != second["b"]


def test_rows_can_be_gone_through_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    source = open_source(tmp_path / "a.csv", None)
    assert list(source.rows) == list(source.rows) == ROWS


def test_parquet_values_are_values_of_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = {
        "time": pa.array([1], pa.timestamp("ns")),
        "day": [datetime.date(2024, 1, 2)],
        "price": [decimal.Decimal("1.50")],
        "bytes": ["좋다".encode()],
        "list": [[{"day": datetime.date(2024, 1, 2)}]],
        "none": pa.array([None], pa.string()),
        "number": [1],
    }
    pq.write_table(pa.table(values), tmp_path / "a.parquet")
    (row,) = rows_of(tmp_path / "a.parquet")
    assert json.loads(json.dumps(row)) == row
    assert row["day"] == "2024-01-02" and row["list"] == [{"day": "2024-01-02"}]
    assert (row["price"], row["bytes"], row["none"], row["number"]) == ("1.50", "좋다", None, 1)
    assert row["time"].startswith("1970-01-01") and row["time"].endswith("001")


def test_a_sheet_s_cells_are_values_of_json_and_its_blank_rows_are_skipped(tmp_path: Path) -> None:
    table = [
        [],
        ["글", "점수", "날짜", None],
        [],
        ["좋다", 1.5, datetime.date(2024, 1, 2)],
        ["나쁘다", 0, None],
        [None],
    ]
    source = open_source(sheets(tmp_path / "a.xlsx", [], table, [["다른 시트"]]), None)
    assert source.columns == ("글", "점수", "날짜")
    assert list(source.rows) == list(source.rows) == [
        {"글": "좋다", "점수": 1.5, "날짜": "2024-01-02"}, {"글": "나쁘다", "점수": 0, "날짜": None},
    ]  # fmt: skip
    assert "시트2" in source.notes[0] and "시트3" in source.notes[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "빈 엑셀"),
        ([["text", "label"]], "데이터가 없습니다"),
        ([["text", "text"], ["좋다", 1]], "여러 번"),
        ([["text", None, "label"], ["좋다", 1, 1]], "빈 열"),
        ([["text"], ["좋다"], ["나쁘다", 1]], "3번째 줄"),
        ([["고객 리뷰 모음"], [], ["리뷰", "감정"], ["좋다", "긍정"]], "제목으로 보입니다: 고객 리뷰 모음"),
    ],
)
def test_a_sheet_that_is_not_a_table_is_reported(tmp_path: Path, table: list[list[Any]], said: str) -> None:
    assert said in refused(sheets(tmp_path / "a.xlsx", table))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([["좋다", "=A2"], ["나쁘다", "=A3"]], "'label'"),
        ([["=B2", "긍정"], ["=B3", "=A1"]], "'text', 'label'"),
    ],
)
def test_formulas_without_results_are_told_with_what_stores_them(
    tmp_path: Path, rows: list[list[Any]], columns: str
) -> None:
    source = open_source(sheets(tmp_path / "a.xlsx", [["text", "label"], *rows]), None)
    (note,) = source.notes
    assert f"{columns} 열의 칸이 수식" in note and "값으로 붙여" in note


def test_a_sheet_of_formulas_alone_is_not_said_to_be_empty(tmp_path: Path) -> None:
    table = [["text", "label"], ["=C2", "=D2"]]
    assert "수식" in refused(sheets(tmp_path / "a.xlsx", table))


def test_a_formula_whose_result_is_an_empty_text_has_a_result(tmp_path: Path) -> None:
    path = sheets(tmp_path / "a.xlsx", [["text", "label"], ["좋다", "=A2"], ["나쁘다", 1]])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if "worksheets/" in name)
    assert b'<c r="B2"><f>' in parts[name]
    parts[name] = parts[name].replace(b'<c r="B2"><f>', b'<c r="B2" t="str"><f>')
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    assert open_source(path, None).notes == ()


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_names_that_differ_by_spaces_alone_are_shown_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".xlsx":
        sheets(path, [["고객 리뷰", "고객  리뷰"], ["좋다", "긍정"]])
    else:
        path.write_text("고객 리뷰,고객  리뷰\n좋다,긍정\n", encoding="utf-8")
    said = refused(path)
    assert "공백" in said and "'고객 리뷰', '고객  리뷰'" in said and "pandas" not in said
    if suffix == ".csv":
        path.write_text("Text,text\n좋다,긍정\n", encoding="utf-8")
        assert rows_of(path) == [{"Text": "좋다", "text": "긍정"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", " \n \n", ["빈 파일"]),
        ("a.jsonl", "\n \n", ["빈 파일"]),
        ("a.json", '[{"text": "가\n나"}]', ["줄바꿈이 그대로", "\\n으로 쓰거나"]),
        ("a.jsonl", '{"text": "가\t나"}\n', ["탭이 그대로", "\\t로 쓰거나"]),
        ("a.json", '[{"text": "가\x1b나"}]', ["제어 문자(U+001B)가 그대로", "\\u001b"]),
        ("a.json", '[{"text": "C:\\data"}]', ["잘못된 역슬래시", "두 번(\\\\)"]),
    ],
)
def test_a_mistake_within_a_json_text_is_not_explained_by_pairs_of_marks(
    tmp_path: Path, name: str, content: str, said: list[str]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    told = refused(tmp_path / name)
    assert all(part in told for part in said) and "괄호의 짝" not in told


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_a_name_of_two_lines_is_a_name_that_can_be_typed(tmp_path: Path, suffix: str) -> None:
    """Alt+Enter in a cell of Excel."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".xlsx":
        sheets(path, [["리뷰", "감정\n(필수)"], ["좋다", "긍정"]])
    else:
        path.write_text('리뷰,"감정\n(필수)"\n좋다,긍정\n', encoding="utf-8")
    assert rows_of(path) == [{"리뷰": "좋다", "감정 (필수)": "긍정"}]


def test_a_file_that_is_not_a_spreadsheet_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text(CSV, encoding="utf-8")
    assert "엑셀 파일이 아닙니다" in refused(tmp_path / "a.xlsx")
    path = sheets(tmp_path / "b.xlsx", [["text"], ["좋다"]])
    path.write_bytes(path.read_bytes().replace(b"workbook.xml.rels", b"workbook.xml.relz"))
    assert "엑셀(.xlsx) 파일로 읽을 수 없습니다" in refused(path)


@pytest.mark.parametrize("ragged", [2, 50])
def test_a_ragged_line_makes_a_table_no_plain_text(tmp_path: Path, ragged: int) -> None:
    lines = ["id\tdocument\tlabel", *(f"{n}\t글 {n}\t1" for n in range(98))]
    lines[ragged - 1] = "7\t탭이\t더\t있다"
    (tmp_path / "ratings_train.txt").write_text("\n".join(lines), encoding="utf-8")
    assert f"{ragged}번째 줄" in refused(tmp_path / "ratings_train.txt")


def test_names_of_columns_are_composed_and_without_white_space(tmp_path: Path) -> None:
    names = [" text", unicodedata.normalize("NFD", "라벨 ")]
    (tmp_path / "a.csv").write_text(f"{names[0]},{names[1]}\n 좋다 ,1\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(json.dumps(dict(zip(names, (" 좋다 ", "1"), strict=True))), encoding="utf-8")
    for name in ("a.csv", "a.jsonl"):
        assert open_source(tmp_path / name, None).columns == ("text", "라벨")
        assert rows_of(tmp_path / name) == [{"text": " 좋다 ", "라벨": "1"}]
    (tmp_path / "a.csv").write_text("text, text\n좋다,1\n", encoding="utf-8")
    assert "'text', ' text'" in refused(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{"text": 1, " text": 2}\n', encoding="utf-8")
    assert rows_of(tmp_path / "a.jsonl") == [{"text": 1, " text": 2}]


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("첫 문장\n\n둘째\t문장\r\n셋째", encoding="utf-8")
    assert rows_of(tmp_path / "a.txt") == [{"text": "첫 문장"}, {"text": "둘째\t문장"}, {"text": "셋째"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\n좋다,1\n나쁘다\n", ["3번째 줄", "2개여야", "1개"]),
        ("a.csv", 'text,label\n"두 줄\n짜리",1\n나쁘다,0,9\n', ["4번째 줄", "3개"]),
        ("a.csv", 'text,label\n좋다,1\n"안 닫힘,0\n끝,1\n', ["큰따옴표", "3번째 줄"]),
        ("a.csv", 'text,label\n"두 줄\n짜리","안 닫힘\n끝,1\n', ["닫히지 않은", "3번째 줄"]),
        ("a.csv", 'text,label\r"두 줄\r짜리","안 닫힘\r끝,1', ["닫히지 않은", "3번째 줄"]),
        ("a.csv", 'text,label\n좋다,"', ["닫히지 않은", "2번째 줄"]),
        ("a.csv", 'text,label\n"좋다" 정말,1\n', ["큰따옴표 바로 뒤", "2번째 줄"]),
        ("a.csv", "text,label\n\n\n나쁘다\n", ["4번째 줄"]),
        ("a.csv", "text,label\r좋다,1\r나쁘다\r", ["3번째 줄"]),
        ("a.csv", "text,label\n", ["빈 파일"]),
        ("a.csv", "\ufeff", ["빈 파일"]),
        ("a.tsv", "text\tlabel\n\n", ["빈 파일"]),
        ("a.csv", "\ntext,text\n좋다,1\n", ["2번째 줄"]),
        ("a.csv", "text,text\n좋다,1\n", ["text", "여러 번"]),
        ("a.csv", "text,\n좋다,1\n", ["빈 열"]),
        ("a.csv", "", ["빈 파일"]),
        ("a.tsv", "text\tlabel\n좋다\t1\n나쁘다\n", ["3번째 줄", "tab"]),
        ("a.jsonl", '{"text": "좋다"}\n{"text": \n', ["2번째 줄", "JSON"]),
        ("a.jsonl", '{"text": "좋다"}\n{"text"\n{"text": "좋다"}\n', ["2번째 줄 8번째 칸", "끊겼습니다"]),
        ("a.jsonl", '{"text": "좋다"},\n{"text": "나쁘다"},\n', ["1번째 줄", "값이 끝난 뒤에"]),
        ("a.json", '[{"text": "좋다",}]', ["쉼표가 있습니다"]),
        ("a.json", "[{'text': '좋다'}]", ["큰따옴표로 감싸지"]),
        ("a.json", '[{"text": "C:\\리뷰"}]', ["역슬래시"]),
        ("a.json", '[{"text": "좋\n다"}]', ["줄바꿈"]),
        ("a.jsonl", '{"text": "좋다"}\n[1]\n', ["2번째 줄", "list"]),
        ("a.json", '[{"text": "좋다"},\n{"text" 1}]', ["2번째 줄", "칸"]),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', ["a, b"]),
        ("a.json", "[1, 2]", ["1번째 항목"]),
        ("a.json", "[]", ["비어"]),
        ("a.json", "[" * 100_000, ["깊"]),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000 + "}\n", ["2번째 줄", "깊"]),
        ("a.jsonl", '{"a": \n{"a": 1}\n', ["1번째 줄", "JSON"]),
        ("a.json", '[{"text": "\\ud83d"}]', ["surrogate"]),
        ("a.parquet", "not parquet", ["Parquet"]),
        ("a.docx", "x", [".docx", ".csv", "텍스트 파일로 저장"]),
        ("a.XLS", "\xd0", [".XLS", ".xlsx나 CSV"]),
        ("a.zip", "x", [".zip", "압축을 풀고"]),
    ],
)
def test_an_unreadable_file_is_reported(tmp_path: Path, name: str, content: str, said: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    message = refused(tmp_path / name)
    assert name in message
    for words in said:
        assert words in message


def test_undecodable_bytes_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n좋다,1\n".encode() + b"\xff\xfe\xff,0\n" + "끝,1\n".encode("cp949"))
    assert "3번째 줄" in refused(path)


def test_mixed_encodings_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n가각간갇갈,1\n".encode() + "끝,1\n".encode("cp949") + "똠\n".encode())
    assert "3번째 줄" in refused(path)
    assert "CP949가 섞임" in refused(path)
    path.write_bytes("좋다,1\n끝,1\n".encode("cp949") + "가각간갇갈\n".encode())
    assert "3번째 줄 (UTF-8이 섞임)" in refused(path)


def test_a_truncated_utf16_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode("utf-16")[:-1])
    assert "UTF-16 인코딩" in refused(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bytes_outside_the_named_encoding_are_reported_with_their_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"text,label{end}좋다,1{end}".encode() + b"\xb0\xa1,0")
    assert "3번째 줄" in refused(path, "utf-8")
    path.write_bytes(f"text,label{end}뷁,1{end}".encode("cp949"))
    assert "2번째 줄" in refused(path, "euc-kr")
    assert "cp949" in refused(path, "euc-kr")


@pytest.mark.parametrize("saved", ["utf-8", "utf-16-le", "utf-16-be"])
def test_the_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, saved: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(("\ufeff" + CSV).encode(saved))
    assert rows_of(path, saved) == ROWS
    assert rows_of(path) == ROWS


def test_an_encoding_that_is_named_overrules(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode("cp949"))
    assert rows_of(path, "cp949") == ROWS
    assert "utf-8" in refused(path, "utf-8")
    assert "인코딩이 없습니다" in refused(path, "no-such")
    assert "인코딩이 없습니다" in refused(path, "base64")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "CSV(UTF-8)로 저장"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_a_binary_file_named_csv_is_reported(tmp_path: Path, start: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(start)
    assert said in refused(tmp_path / "a.csv")


def test_missing_files_and_folders_are_distinguished(tmp_path: Path) -> None:
    assert "파일이 없습니다" in refused(tmp_path / "no.csv")
    assert "폴더" in refused(tmp_path)
    assert "읽을 수 없습니다" in refused(tmp_path / f"{'x' * 300}.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    assert "파이프" in refused(tmp_path / "a.csv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    (tmp_path / "a.csv").chmod(0)
    assert "권한이 없습니다" in refused(tmp_path / "a.csv")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_read_or_reported(tmp_path: Path, content: bytes, suffix: str) -> None:
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
def test_any_text_is_read_or_reported(tmp_path: Path, content: str, suffix: str) -> None:
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
