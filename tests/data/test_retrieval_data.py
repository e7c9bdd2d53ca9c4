"""Queries with a corpus and judgements, NLI, and questions without an answer, as data of embeddings and rerankers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

Write = Callable[[Mapping[str, Any]], Path]
CORPUS = [{"_id": f"d{n}", "title": "수도" if n == 1 else "", "text": f"문서 {n}이다."} for n in range(6)]
QUERIES = [{"_id": f"q{n}", "text": f"질문 {n}"} for n in range(3)]
QRELS = "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td1\t2\nq0\td2\t0\nq1\td3\t1\nq2\td4\t1\nq2\td2\t0\n"


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(files: Mapping[str, Any]) -> Path:
        for name, text in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "data"

    return written


def data_of(path: Path, task: str = "embedding", loss: str = "infonce", **options: Any) -> DataManager:
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache")}
    named = {"model": {"task": task}, "data": data, "embedding": {"loss": loss, **options}}
    settings = Settings.model_validate(named)
    return DataManager(settings, find_task(settings))


def read(manager: DataManager) -> list[dict[str, Any]]:
    return [dict(row) for row in manager.load_to_train().table]


def beir(write: Write, split: str = "train", **others: str) -> Path:
    return write(
        {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), f"qrels/{split}.tsv": QRELS, **others}
    )


def test_a_folder_of_beir_is_queries_with_their_passages(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = beir(write)
    with caplog.at_level("INFO"):
        rows = read(data_of(folder))
    assert [row["question"] for row in rows] == ["질문 0", "질문 1", "질문 2"]
    assert rows[0]["context"] == "문서 0이다." and json.loads(rows[0]["positives"]) == ["수도\n문서 1이다."]
    assert json.loads(rows[0]["negatives"]) == ["문서 2이다."] and json.loads(rows[1]["negatives"]) == []
    assert "문서 6개 가운데 질문에 연결된 5개" in caplog.text
    _, scored = data_of(beir(write, "dev")).load_split("validation")
    assert len(scored) == 3


def test_a_judgement_of_a_passage_that_is_not_there_is_named(write: Write) -> None:
    folder = beir(write, **{"qrels/dev.tsv": QRELS + "q2\td99\t1\n"})
    with pytest.raises(DataError) as error:
        data_of(folder).load_splits()
    assert "d99" in error.value.what and "dev.tsv, 7번째 행" in error.value.where


def test_a_corpus_with_titles_is_read_whole(write: Write) -> None:
    path = write({"corpus.jsonl": lines(CORPUS)}) / "corpus.jsonl"
    (rows, originals), *_ = data_of(path).load_passages(path).chunks()
    assert rows.table["context"][1] == "수도\n문서 1이다." and originals[1]["_id"] == "d1"


NLI = [
    {"premise": premise, "hypothesis": f"{premise} {label}", "gold_label": label}
    for premise in ("비가 온다", "해가 진다", "눈이 온다")
    for label in ("entailment", "neutral", "contradiction")
    if not (premise == "눈이 온다" and label == "entailment")
]


def test_nli_is_triplets_under_infonce_and_scores_under_cosent(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write({"train.json": json.dumps(NLI, ensure_ascii=False)}) / "train.json"
    with caplog.at_level("INFO"):
        rows = read(data_of(path))
    assert [(row["question"], row["context"], json.loads(row["negatives"])) for row in rows] == [
        (premise, f"{premise} entailment", [f"{premise} contradiction"]) for premise in ("비가 온다", "해가 진다")
    ]
    assert "함의가 없어 뺀 전제 1개" in caplog.text
    assert [row["label"] for row in read(data_of(path, loss="cosent"))][:3] == ["1", "0.5", "0"]


NUMBERS = {"entailment": 0, "neutral": 1, "contradiction": 2}


@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_numbers_of_klue_nli_are_its_labels(write: Write, caplog: pytest.LogCaptureFixture, label: str) -> None:
    rows = [{"premise": one["premise"], "hypothesis": one["hypothesis"], label: NUMBERS[one["gold_label"]]}
            for one in NLI]  # fmt: skip
    path = write({"train.jsonl": lines(rows), "names.jsonl": lines(NLI)}) / "train.jsonl"
    for loss in ("infonce", "cosent"):
        with caplog.at_level("INFO"):
            found = read(data_of(path, loss=loss))
        assert found == read(data_of(path.with_name("names.jsonl"), loss=loss))
        assert "0 entailment, 1 neutral, 2 contradiction" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    ("names", "numbers", "said"),
    [(("sentence1", "sentence2"), (0, 1, 2), "highest_score"), (("premise", "hypothesis"), (0, 1), "entailment")],
)
def test_numbers_that_may_be_labels_of_nli_or_not_are_refused(
    write: Write, names: tuple[str, str], numbers: tuple[int, ...], said: str
) -> None:
    rows = [{names[0]: f"가 {n}", names[1]: f"나 {n}", "label": numbers[n % len(numbers)]} for n in range(9)]
    path = write({"train.jsonl": lines(rows)}) / "train.jsonl"
    for loss in ("infonce", "cosent"):
        with pytest.raises(DataError) as error:
            read(data_of(path, loss=loss))
        assert "NLI 라벨의 번호인지" in error.value.what and said in error.value.remedy


def test_scores_that_are_said_to_be_scores_are_read(write: Write) -> None:
    rows = [{"sentence1": f"가 {n}", "sentence2": f"나 {n}", "label": n % 3} for n in range(9)]
    path = write({"train.jsonl": lines(rows)}) / "train.jsonl"
    assert [row["label"] for row in read(data_of(path, loss="cosent", highest_score=2))][:3] == ["0", "1", "2"]


def test_questions_without_an_answer_are_counted_and_no_error(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    asked = [
        {"guid": str(n), "question": f"질문 {n}", "is_impossible": n % 3 == 0,
         "answers": [] if n % 3 == 0 else [{"text": "문", "answer_start": 0}]} for n in range(9)
    ]  # fmt: skip
    document = {"data": [{"title": "제목", "paragraphs": [{"context": "문맥이다.", "qas": asked}]}]}
    path = write({"train.json": json.dumps(document, ensure_ascii=False)}) / "train.json"
    with caplog.at_level("WARNING"):
        assert len(read(data_of(path))) == 6
    assert "지문에 답이 없는 질문 3행" in caplog.text
