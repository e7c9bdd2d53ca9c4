"""Texts that act on a terminal, forge lines of the log, or would take for ever: shown escaped, and bounded."""

from __future__ import annotations

import csv
import json
import time
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tests.support.cli import Cli, arguments_for

ACTS = "\x1b]0;가짜\x07\x1b[31m\u202e뒤집\u2066\x9b2J\r"
FORGED = "좋다\n2026-01-01 - INFO - 가장 좋은 모델을 저장했습니다"
FAMILY = "👨\u200d👩\u200d👧"


def acting(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and (unicodedata.category(c) == "Cc" or c in "\u202e\u2066\u2028")]


def hostile_reviews(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 40), ("test", 10)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                label = "긍정\x1b[0m" if number % 2 else "부정"
                writer.writerow([f"{number} {FORGED} {FAMILY} {ACTS}", label])
    return folder


def test_what_is_shown_of_the_data_is_escaped(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = hostile_reviews(tmp_path / "data")
    flags = arguments_for(tiny_model, data, tmp_path / "model", "--epochs", "1")
    planned = cli("plan", *flags)
    assert planned.code == 0, planned.err
    trained = cli(*flags)
    assert trained.code == 0, trained.err
    for shown in (planned.out, planned.err, trained.out, trained.err):
        assert acting(shown.replace("\r학습", "학습")) == []
        assert not any(line.startswith("2026-01-01") for line in shown.splitlines())
    assert "\\n2026-01-01" in trained.err and FAMILY in trained.err  # the samples, with a whole family
    wrong = tmp_path / "wrong.csv"
    with wrong.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["좋다", f"모름\n  해결: rm{ACTS}"]])
    refused = cli("evaluate", "--output_dir", tmp_path / "model", "--dataset", wrong, "--set",
                  f"data.dataset_cache_dir={tmp_path / 'cache'}")  # fmt: skip
    assert refused.code == 3, refused.err
    assert acting(refused.err) == []
    assert sum(line.startswith("  해결:") for line in refused.err.splitlines()) == 1


def test_predictions_for_programs_are_the_texts_as_they_came(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": FAMILY + ACTS}) + "\n", encoding="utf-8")
    run = cli("predict", "--task", "fill-mask", "--model_name", tiny_model, "--input", tmp_path / "in.jsonl")
    assert run.code == 0, run.err
    assert acting(run.out) == []
    assert json.loads(run.out)["text"] == FAMILY + ACTS
    assert FAMILY in run.out


def test_no_cell_of_the_csv_runs_as_a_formula_if_asked(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    texts = ["=HYPERLINK(1)", "+1+cmd", "-2", "@SUM(1)", " =1", "좋다 = 나쁘다", "-"]
    source, made = tmp_path / "in.jsonl", tmp_path / "out.csv"
    rows = [{"text": "좋다", "=more": text} for text in texts]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("predict", "--task", "fill-mask", "--model_name", tiny_model, "--input", source)
    assert cli(*words, "--output", made).code == 0
    with made.open(encoding="utf-8-sig", newline="") as file:
        assert [row["=more"] for row in csv.DictReader(file)] == texts
    assert cli(*words, "--output", made, "--defuse_formulas").code == 0
    with made.open(encoding="utf-8-sig", newline="") as file:
        found = [row["'=more"] for row in csv.DictReader(file)]
    assert found == ["'=HYPERLINK(1)", "'+1+cmd", "-2", "'@SUM(1)", "' =1", "좋다 = 나쁘다", "'-"]
    refused = cli(*words, "--output", tmp_path / "out.jsonl", "--defuse_formulas")
    assert refused.code == 2 and ".csv로 끝나는" in refused.err


def workbook(path: Path, sheet: str | list[bytes]) -> Path:
    """An .xlsx whose one sheet has this XML, or chunks of it."""
    import openpyxl

    openpyxl.Workbook().save(path.with_suffix(".plain"))
    with zipfile.ZipFile(path.with_suffix(".plain")) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for part in plain.infolist():
            if not part.filename.startswith("xl/worksheets/"):
                made.writestr(part, plain.read(part))
                continue
            with made.open(part.filename, "w", force_zip64=True) as file:
                for chunk in [sheet.encode()] if isinstance(sheet, str) else sheet:
                    file.write(chunk)
    return path


HEAD = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
CELL = '<c t="inlineStr"><is><t>{}</t></is></c>'
NAMES = f'<row r="1">{CELL.format("text")}{CELL.format("label")}</row>'
END = "</sheetData></worksheet>"


@pytest.mark.parametrize("kind", ["row", "cell", "bomb"])
def test_a_small_workbook_cannot_take_all_time_or_memory(kind: str, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    row = f'<row r="{99_999_999_999 if kind == "row" else 2}">{CELL.format("좋다")}{CELL.format("0")}</row>'
    sheet: str | list[bytes] = HEAD + NAMES + row + END
    if kind == "cell":
        before, after = (HEAD + NAMES + row).encode().split("좋다".encode())
        sheet = [before, *[b"a" * (1 << 20)] * 200, after, END.encode()]
    if kind == "bomb":
        sheet = [(HEAD + NAMES).encode(), *[b"<row/>" * 200_000] * 300, END.encode()]
    path = workbook(tmp_path / "a.xlsx", sheet)
    assert path.stat().st_size < 2_000_000
    begin = time.monotonic()
    run = cli(*arguments_for(tiny_model, path, tmp_path / "model"))
    assert run.code == 3, run.err
    said = {"row": "엑셀의 마지막 행(1,048,576)을 넘습니다", "cell": "칸 하나가", "bomb": "압축을 풀면"}
    assert said[kind] in run.err and "a.xlsx" in run.err
    assert time.monotonic() - begin < 60
