"""What the page asks of the commands: each file of many runs is read once, files have the names that a person gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetuning.commands import board_work
from finetuning.commands.board_work import Workplace
from finetuning.web.language import korean
from finetuning.web.work import Chosen
from tests.support.summaries import write_finished

RUNS = 200


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    opened = Workplace(tmp_path / "models", tmp_path / "uploads", [])
    yield opened
    opened.close()


def test_a_tab_reads_each_of_many_runs_once(work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", minversion="6.0.0", reason="the page needs Gradio 6 (make board)")
    from finetuning.web.page import build

    for number in range(RUNS):
        folder = write_finished(tmp_path / "models" / f"run-{number:03}", steps=number)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "settings.yaml").write_text("model: {task: text-classification}\n", encoding="utf-8")
    page = build(work, korean, ("/en/", "English"))
    openings = [one for one in page.fns.values() if any(event == "select" for _, event in one.targets)]
    assert len(openings) == 3
    for opening in openings:
        read: Counter[Path] = Counter()
        whole = Path.open

        def counted(path: Path, *given: Any, read: Counter[Path] = read, whole: Any = whole, **named: Any) -> Any:
            read[path] += path.name == "summary.json"
            return whole(path, *given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", counted)
            shown = opening.fn(*[None] * len(opening.inputs))
        assert len(+read) == RUNS and sorted(read.values())[-2] == 1  # that of the run which is shown is read again
        assert f"run-{RUNS - 1}" in str(shown)


def test_a_column_of_labels_is_asked_for_by_its_name(work: Workplace, tmp_path: Path) -> None:
    reviews = tmp_path / "uploads" / ("3f" * 32) / "영화.csv"  # as Gradio keeps what is uploaded
    reviews.parent.mkdir(parents=True)
    lines = [f"재미있는 영화 {n},긍정\n지루한 영화 {n},부정\n" for n in range(20)]
    reviews.write_text("내용,구분\n" + "".join(lines), encoding="cp949")  # a name that no list of names has
    found = work.look(Chosen(data=str(reviews)))
    assert found.task == "text-classification" and found.problem is not None
    assert {one.role: one.found for one in found.asked if one.is_needed} == {"text": "내용", "label": None}
    assert found.problem[1] == "영화.csv"
    told = work.look(Chosen(data=str(reviews), task=found.task, columns={"label_column": "구분"}))
    assert told.problem is None and told.labels == {"긍정": 20, "부정": 20}
    reviews.write_text("내용,번호\n" + "".join(f"재미있는 영화 {n},{n}\n" for n in range(40)), encoding="utf-8")
    assert work.look(Chosen(data=str(reviews))).problem is None  # texts alone


def test_a_predicted_file_has_the_name_that_a_person_gave(
    work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []

    def printed(words: Sequence[str]) -> Iterator[str]:
        run.extend(words)
        yield ""

    monkeypatch.setattr(board_work, "_printed", printed)
    model, given = tmp_path / "models" / "리뷰", tmp_path / "uploads" / "3f2a" / "내 리뷰.csv"
    result, command = work.predict_file(str(model), str(given))
    assert run[run.index("--input") + 1] == str(given) and run[run.index("--output") + 1] == str(result)
    assert result.name == "내 리뷰-result.csv"
    assert "'내 리뷰.csv'" in command and "'내 리뷰-result.csv'" in command and "uploads" not in command
