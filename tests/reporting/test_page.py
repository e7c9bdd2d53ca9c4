"""The report page and the files beside it: what the data hold stays text, much of it stays small, nothing is lost."""

from __future__ import annotations

import csv
import json
import logging
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.reporting.cases import RankedCase
from finetuning.reporting.page.blocks import pieces_of
from finetuning.reporting.page.curves import charts_of
from finetuning.reporting.page.files import _told
from finetuning.reporting.page.html import render
from finetuning.reporting.page.view import page_of_run
from finetuning.reporting.quality import Quality
from finetuning.reporting.run_report import (
    Background,
    EvaluationFacts,
    Hardware,
    MemoryFacts,
    RunReport,
    SplitFacts,
    TrainingFacts,
    build_report,
)
from finetuning.tasks.evidence import Case, Confusion, Evidence, LabelScores, Mark, Part
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli, Run, arguments_for, data_flags, read_json

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> $\\frac{ {{ 7*7 }} \x1b[31m \u202e ${x}"


class Elements(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def report_of(task_name: str, evidence: Evidence, cases: tuple[RankedCase, ...] = (), name: str = "run") -> RunReport:
    settings = Settings.model_validate({"model": {"output_dir": name, "task": task_name}, "data": {"batch_size": 7}})
    records: list[dict[str, Any]] = [
        {"kind": "train", "step": step, "epoch": 1, "loss": 1 / step, "lr": 1e-5 * step, "examples_per_s": 50,
         "memory_bytes": 2**30}
        for step in range(1, 4000)
    ]  # fmt: skip
    records.append({"kind": "eval", "step": 3999, "epoch": 1, "loss": 0.4, "accuracy": 0.8, "train_loss": 0.1})
    return build_report(
        settings, find_task(settings), {"train": 90, "test": 100_000},
        training=TrainingFacts(4000, 3999, 0.8, {"loss": 0.4}, 61.0, None),
        evaluation=EvaluationFacts("test", {"loss": 0.4, "accuracy": 0.8}, evidence=evidence, cases=cases),
        hardware=Hardware("cpu", 1, "no"),
        memory=MemoryFacts(2**30, 2**32, 2**28, 2**30),
        quality=Quality("accuracy", "test", 0.8, (0.7, 0.9), 0.5, ()),
        background=Background([SplitFacts("train", HOSTILE, 90, 3, (HOSTILE,), {HOSTILE: 90})], records=records),
    )  # fmt: skip


def page_of(report: RunReport) -> str:
    charts = charts_of(report.background.records, report.best_metric_name)
    return render(page_of_run(report, "errors.csv", "metrics-test.json"), charts, report.training.best_step)


def classified(truth: np.ndarray, said: np.ndarray, names: list[str]) -> tuple[Any, Evidence, list[np.ndarray]]:
    """A task of labels, its evidence and the predictions that it is of, with other probabilities of every row."""
    task = find_task(Settings())
    sure = np.linspace(0.5, 0.9, len(said), dtype=np.float32)
    predictions = []
    for place, chance in zip(said, sure, strict=True):
        one = np.full(len(names), (1 - chance) / len(names), dtype=np.float32)
        one[place] = chance
        predictions.append(one)
    return task, task.shows.evidence(predictions, {"label": [names[place] for place in truth]}, names), predictions


def test_texts_and_labels_of_the_data_stay_text() -> None:
    names = [HOSTILE, "긍정"]
    draw = np.random.default_rng(0)
    _, evidence, _ = classified(draw.integers(0, 2, 60), draw.integers(0, 2, 60), names)
    case = Case((Part("텍스트", HOSTILE, (Mark(3, 9, HOSTILE, "label"), Mark(5, 20, "예측", "said"))),))
    page = Elements(
        page_of(report_of("text-classification", evidence, (RankedCase(1, 0.9, True, case),), HOSTILE[:80]))
    )
    tags = [tag for tag, _ in page.found]
    assert tags.count("script") == 1 and not {"img", "iframe", "link", "base", "form"} & set(tags)
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text and "${x}" in page.text
    assert "\x1b" not in page.text and "\u202e" not in page.text and "\\x1b[31m" in page.text


def test_the_page_needs_no_network() -> None:
    _, evidence, _ = classified(np.array([0, 1, 1]), np.array([0, 0, 1]), ["부정", "긍정"])
    page = Elements(page_of(report_of("text-classification", evidence)))
    urls = [value for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")]
    assert urls and all(url is not None and url.startswith("#") for url in urls)
    policy = next(attributes["content"] for tag, attributes in page.found if "http-equiv" in attributes)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_the_verdict_comes_first_and_changed_settings_before_the_others() -> None:
    _, evidence, _ = classified(np.array([0, 1, 1]), np.array([0, 0, 1]), ["부정", "긍정"])
    text = Elements(page_of(report_of("text-classification", evidence))).text
    order = ["0.8000", "혼동 행렬", "라벨별 성능", "기본값과 다른 설정", "data.batch_size", "training.learning_rate"]
    places = [text.index(part, text.index("판정")) for part in order]
    assert places == sorted(places)


def test_many_rows_and_labels_make_a_small_page_that_says_what_it_leaves_out() -> None:
    draw, names = np.random.default_rng(0), [f"라벨 {number}" for number in range(1000)]
    truth, said = draw.integers(0, 1000, 20_000), draw.integers(0, 1000, 20_000)
    _, evidence, _ = classified(truth, said, names)
    assert evidence.ranking is not None and evidence.ranking.wrong == int((truth != said).sum())
    cases = tuple(RankedCase(n, 0.5, True, Case((Part("텍스트", "가" * 50_000),))) for n in range(200))
    html = page_of(report_of("text-classification", evidence, cases))
    assert len(html.encode()) < 2_000_000
    text = Elements(html).text
    assert "나머지 975가지는 metrics-test.json" in text and "나머지 800가지는 metrics-test.json" in text
    assert "이 페이지에는 200행까지만" in text and "49,400자 생략" in text


def test_the_matrix_and_the_scores_by_label_are_scikit_learn_s() -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    draw, names = np.random.default_rng(1), ["가", "나", "다", "라"]
    truth, said = draw.integers(0, 3, 200), draw.integers(0, 4, 200)
    _, evidence, predictions = classified(truth, said, names)
    matrix, scores = evidence.blocks[:2]
    assert isinstance(matrix, Confusion) and isinstance(scores, LabelScores)
    assert np.array_equal(matrix.counts, confusion_matrix(truth, said))
    expected = precision_recall_fscore_support(truth, said, zero_division=0)
    for place, one in enumerate(scores.scores):
        assert [one.precision, one.recall, one.f1, one.support] == pytest.approx([part[place] for part in expected])
    facts = evidence.facts()
    assert sum(count for row in facts["confusion"].values() for count in row.values()) == 200
    assert json.loads(json.dumps(facts)) == facts
    assert evidence.ranking is not None
    worst = evidence.ranking.positions
    assert set(worst.tolist()) == set(np.flatnonzero(truth != said).tolist())
    assert np.all(np.diff([float(predictions[place].max()) for place in worst]) <= 0)


def test_the_curves_are_thinned_and_keep_their_ends() -> None:
    records = [{"kind": "train", "step": step, "loss": float(step)} for step in range(1, 10_001)]
    (chart,) = charts_of(records, "accuracy")
    (line,) = chart.lines
    assert len(line.x) == 300 and line.x[-1] == 10_000
    assert float(np.mean(line.y)) == pytest.approx(5000.5, rel=0.01)


@pytest.mark.parametrize(("missing", "said"), [("matplotlib", "pip install"), (None, "읽을 수 없는 글꼴")])
def test_what_cannot_be_drawn_is_told_and_the_run_goes_on(
    missing: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    _, evidence, _ = classified(np.array([0, 1]), np.array([0, 1]), ["부정", "긍정"])
    with caplog.at_level(logging.WARNING), _told(tmp_path / "report.html"):
        if missing is None:
            raise RuntimeError("읽을 수 없는 글꼴\n둘째 줄")
        page_of(report_of("text-classification", evidence))
    (record,) = caplog.records
    assert "report.html" in record.getMessage() and said in record.getMessage()


@pytest.fixture(scope="module")
def trained(cli: Cli, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The output_dir and the log of a run on rows with further columns, one of which a spreadsheet would run."""
    folder = tmp_path_factory.mktemp("report")
    for name, count in (("train", 60), ("test", 30)):
        rows = [f'{name}-{n},"글 {n}\u200b, 좋다",{"긍정" if n % 2 else "부정"},=1+{n}' for n in range(count)]
        (folder / f"{name}.csv").write_text("\n".join(["번호,text,label,메모", *rows]), encoding="utf-8")
    run = cli(*arguments_for(tiny_model, folder, folder / "out" / "model", "--epochs", "1", "--set",
                             "logging.report=true"))  # fmt: skip
    assert run.code == 0, run.err
    return folder / "out" / "model", run


def errors_in(path: Path) -> list[dict[str, str]]:
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "Excel reads it as UTF-8 by its first bytes"
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_the_report_and_all_wrong_rows(trained: tuple[Path, Run]) -> None:
    output_dir, run = trained
    assert "report.html" in run.err and "만들지 못했습니다" not in run.err
    for name in ("curves.png", "confusion.png"):
        assert (output_dir / name).read_bytes().startswith(b"\x89PNG")
    metrics, errors = read_json(output_dir / "metrics-test.json"), errors_in(output_dir / "errors.csv")
    wrong = {(a, b): count for a, row in metrics["confusion"].items() for b, count in row.items() if a != b}
    assert len(errors) == sum(wrong.values()) > 0
    assert metrics["by_label"]["긍정"]["support"] == 15
    chances = [float(row["score"]) for row in errors]
    assert chances == sorted(chances, reverse=True)
    for row in errors:
        number = row["번호"].removeprefix("test-")
        assert row["text"] == f"글 {number}\u200b, 좋다" and row["메모"] == f"'=1+{number}"
        assert row["row"] == str(int(number) + 1) and row["predicted_label"] != row["label"]
    page = Elements((output_dir / "report.html").read_text(encoding="utf-8")).text
    assert "test 30행의 지표" in page and f"틀린 행은 {len(errors)}행" in page


def test_evaluate_leaves_a_report_of_its_split_and_keeps_files_of_others(
    trained: tuple[Path, Run], cli: Cli, tmp_path: Path
) -> None:
    output_dir, _ = trained
    data = tmp_path / "mine.csv"
    data.write_text((output_dir.parent.parent / "test.csv").read_text(encoding="utf-8"), encoding="utf-8")
    flags = ("evaluate", "--output_dir", output_dir, "--dataset", data, *data_flags(output_dir)[2:], "--set")
    (output_dir / "errors-mine.csv").write_text("내 메모", encoding="utf-8")
    kept = cli(*flags, "logging.report=true")
    assert kept.code == 0 and "덮어쓰지 않습니다" in kept.err
    assert (output_dir / "errors-mine.csv").read_text(encoding="utf-8") == "내 메모"
    (output_dir / "errors-mine.csv").unlink()
    without = cli(*flags, "logging.report=false")
    assert without.code == 0 and not list(output_dir.glob("*-mine.csv")) + list(output_dir.glob("*-mine.html"))
    assert cli(*flags, "logging.report=true").code == 0
    assert len(errors_in(output_dir / "errors-mine.csv")) == len(errors_in(output_dir / "errors.csv"))
    assert "mine" in (output_dir / "report-mine.html").read_text(encoding="utf-8")


def test_to_resume_keeps_the_report_and_makes_one_that_is_missing(trained: tuple[Path, Run], cli: Cli) -> None:
    output_dir, _ = trained
    names = ("report.html", "errors.csv", "curves.png", "confusion.png", "metrics-test.json", "summary.json")
    before = {name: (output_dir / name).read_bytes() for name in names}
    flags = ("--config", output_dir / "settings.yaml", "--resume")
    assert cli(*flags, "--set", "logging.report=true").code == 0
    assert {name: (output_dir / name).read_bytes() for name in names} == before
    (output_dir / "report.html").unlink()
    again = cli(*flags, "--set", "logging.report=true")
    assert again.code == 0 and (output_dir / "report.html").is_file(), again.err


@given(
    text=st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xAC20), min_size=1, max_size=30),
    places=st.lists(st.tuples(st.integers(0, 29), st.integers(1, 12), st.sampled_from(["PS", "LC"])), max_size=5),
)
def test_the_pieces_of_a_marked_text_are_the_text(text: str, places: list[tuple[int, int, str]]) -> None:
    marks = tuple(
        Mark(start, min(start + size, len(text)), label, "label") for start, size, label in places if start < len(text)
    )
    pieces = list(pieces_of(Part("정답", text, marks), ["LC", "PS"]))
    assert "".join(piece.text for piece in pieces) == text
    of_characters = [set(piece.classes.split()) for piece in pieces for _ in piece.text]
    for place, classes in enumerate(of_characters):
        covering = {mark.label for mark in marks if mark.start <= place < mark.end}
        assert classes == {{"LC": "k0", "PS": "k1"}[label] for label in covering}


def test_a_long_text_is_cut_around_what_is_marked_in_it() -> None:
    text = "가" * 3000 + "정답" + "나" * 900 + "예측" + "다" * 3000
    marks = (Mark(3000, 3002, "정답", "truth"), Mark(3902, 3904, "예측", "said"))
    pieces = list(pieces_of(Part("지문", text, marks), ()))
    assert [piece.text for piece in pieces if piece.classes] == ["정답", "예측"]
    assert sum(len(piece.text) for piece in pieces) < 1900 and "생략" in pieces[-1].text
