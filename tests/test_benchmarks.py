"""Benchmarks: one command names them all, results are kept, and the tables of docs are made from them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import decoding, parsing, readme, runner, states, task_tables
from benchmarks.__main__ import NAMES, main
from tests.support.paths import ROOT


def test_the_help_names_every_benchmark() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0
    assert all(f"    {name} " in done.stdout or f"    {name}\n" in done.stdout for name in NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_benchmark_says_what_it_measures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    doc = importlib.import_module(f"benchmarks.{name}").__doc__
    assert doc is not None and doc.splitlines()[0] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_a_tiny_run_prints_a_table_and_keeps_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(runner.RESULTS.iterdir())
    main(["scale", "--tiny"])
    head, line, row = capfd.readouterr().out.splitlines()
    assert head.startswith("| rows |") and set(line) == {"|", "-"} and row.startswith("| 20,000 |")
    assert set(runner.RESULTS.iterdir()) == before


def test_a_result_says_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    table = runner.Table(("name", "seconds"), [{"name": "this program", "seconds": 1.25}])
    path = runner.save("parity", {"rows": 10, "model": tmp_path / "model", "left_out": None}, [table])
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result == runner.newest("parity")
    assert {"cpu", "cpu_flags", "cores", "threads", "memory_bytes", "python", "torch"} <= result["machine"].keys()
    assert result["arguments"] == {"rows": 10, "model": "model"}
    assert result["tables"][0]["rows"] == table.rows
    assert table.markdown().splitlines() == ["| name | seconds |", "|---|---|", "| this program | 1.25 |"]


@pytest.mark.parametrize("document", readme.DOCUMENTS)
def test_tables_of_the_documents_are_those_of_the_newest_results(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = 5 if "memory" in document else len(task_tables.TABLES)
    assert text.count("<!-- benchmark ") == text.count("<!-- /benchmark -->") == blocks
    assert readme.rendered(text, document) == text


def test_tables_of_tasks_tell_means_ranges_and_what_is_added_seed_by_seed() -> None:
    def row(words: str, decoding: str, scores: list[float]) -> dict[str, Any]:
        return {"words": words, "decoding": decoding, "f1": 0.0, "f1 by seed": scores}

    tables = [
        {"columns": ["words", "decoding", "f1", "f1 by seed"], "rows": [
            row("cut", "constrained", [0.5 * scale, 0.7 * scale]), row("cut", "free", [0.4 * scale, 0.5 * scale]),
            row("whole", "constrained", [0.6 * scale, 0.6 * scale]), row("whole", "free", [0.1 * scale, 0.1 * scale]),
        ]} for scale in (1, 100)
    ]  # fmt: skip
    lines = task_tables.decoding_table({"tables": tables}, "en").splitlines()
    assert [[cell.strip() for cell in line.split("|")[-3:-1]] for line in lines[2:]] == [
        ["0.600 (0.500–0.700)", "60.0 (50.0–70.0)"], ["0.450 (0.400–0.500)", "45.0 (40.0–50.0)"],
        ["0.600 (0.600–0.600)", "60.0 (60.0–60.0)"], ["0.100 (0.100–0.100)", "10.0 (10.0–10.0)"],
        ["+0.150 (+0.100–+0.200)", "+15.0 (+10.0–+20.0)"], ["+0.000 (-0.100–+0.100)", "+0.0 (-10.0–+10.0)"],
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems let it go on")
def test_what_a_benchmark_started_ends_when_the_benchmark_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    trains = "import sys, time\nwith open(sys.argv[1], 'w') as out:\n    print('on', file=out, flush=True)\n"
    trains += "    time.sleep(30)\n    print('it went on', file=out)\n"
    measures = "import sys\nfrom benchmarks import runner\nrunner._run([sys.executable, '-c', *sys.argv[1:]])\n"
    benchmark = subprocess.Popen([sys.executable, "-c", measures, trains, str(pipe)], cwd=ROOT)
    with pipe.open(encoding="utf-8") as lines:
        assert lines.readline() == "on\n"
        benchmark.kill()
        benchmark.wait()
        assert lines.read() == ""


def test_runs_of_decoding_are_kept_one_by_one_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int, bool]] = []

    def trained(function: str, **run: Any) -> list[dict[str, Any]]:
        asked.append((run["name"], run["seed"], run["cut"]))
        shared = {"task": run["name"], "seed": run["seed"], "cut": run["cut"], "rows": 10}
        return [{**shared, "decoding": kind, "entity_macro_f1": run["seed"] / 4, "entity_micro_f1": 0.5}
                for kind in ("constrained", "free")]  # fmt: skip

    monkeypatch.setattr(decoding, "call_apart", trained)
    command = ["decoding", "--tiny", "--only", "ner", "--kept", str(tmp_path / "kept.jsonl")]
    main([*command, "--words", "whole", "--seeds", "0"])
    assert asked == [("ner", 0, False)]
    main([*command, "--seeds", "0", "1"])
    assert asked[1:] == [("ner", 0, True), ("ner", 1, True), ("ner", 1, False)]
    capsys.readouterr()
    main([*command, "--seeds"])
    assert len(asked) == 4
    assert "| cut | constrained | 10 | 0, 1 | 0.125 | 0, 0.25 |" in capsys.readouterr().out


def test_runs_of_parsing_are_kept_and_told_by_encoder_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def trained(arguments: argparse.Namespace, seed: int, mine: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append((mine["parser"], seed))
        scores = {"uas": seed / 4, "las": 0.5, "klue_uas_macro_f1": 0.5, "klue_las_macro_f1": 0.5}
        return [{"seed": seed, **parser, "sentences": 8, "words": 40, **scores}
                for parser in ({"parser": "the next word"}, mine)]  # fmt: skip

    monkeypatch.setattr(parsing, "train_and_score", trained)
    command = ["parsing", "--tiny", "--kept", str(tmp_path / "kept.jsonl"), "--seeds", "0", "1"]
    for encoder in ("one", "one", "other"):
        monkeypatch.setattr(parsing, "tiny", lambda folder, encoder=encoder: ["dp.tsv", encoder])
        main(command)
    assert asked == [("one", 0), ("one", 1), ("other", 0), ("other", 1)]
    lines = capsys.readouterr().out.splitlines()[-9:]
    assert [line.split(" | ")[:2] for line in lines] == [
        [f"| {seed}", parser] for seeds in (["0", "1"], ["mean"])
        for parser in ("the next word", "one", "other") for seed in seeds
    ]  # fmt: skip
    assert all(line.startswith("| mean") == ("| 0.125 | 0.5 |" in line) for line in lines)


def test_made_dialogues_have_the_published_shape_and_naive_states_are_scored(tmp_path: Path, real_data: Path) -> None:
    from finetuning.data.formats.registry import open_source
    from finetuning.data.shapes.registry import flat_rows

    states.make_splits(real_data / "klue-dst" / "ontology.json", tmp_path / "data", 30, 12, seed=1)
    rows: dict[str, list[Any]] = {}
    for path in (tmp_path / "data").iterdir():
        source = open_source(path, None)
        columns, found, _ = flat_rows(source.columns, source.rows, path.name)
        assert {"guid", "turn", "prompt", "response"} <= set(columns)
        rows[path.stem] = list(found)
    assert not {row["guid"] for row in rows["train"]} & {row["guid"] for row in rows["test"]}
    empty, before = states.naive_scores(rows["test"])
    nothing = sum(row["response"] == "없음" for row in rows["test"]) / len(rows["test"])
    assert empty["joint_goal_accuracy"] == pytest.approx(nothing)
    assert empty["joint_goal_accuracy"] <= before["joint_goal_accuracy"] < 1
    right = states.scored("right", [{**row, "generated": row["response"]} for row in rows["test"]])
    assert right["joint_goal_accuracy"] == right["slot_f1"] == 1
