"""Data for embeddings as people have them: what is read of each shape, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli

Q, P, N = "수도는?", "서울이다.", "부산이다."
PAIR = {"question": Q, "context": P, "positives": [], "negatives": []}
ONE_NEGATIVE = {**PAIR, "negatives": [N]}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pairs": ({"question": Q, "passage": P}, PAIR),
    "korean": ({"질문": Q, "문서": P, "오답": N}, ONE_NEGATIVE),
    "sentence-transformers": ({"anchor": Q, "positive": P, "negative": N}, ONE_NEGATIVE),
    "several columns": ({"query": Q, "positive": P, "negative_1": N, "negative_2": P, "negative_3": N}, ONE_NEGATIVE),
    "simcse": ({"sent0": Q, "sent1": P, "hard_neg": N}, ONE_NEGATIVE),
    "flagembedding": (
        {"query": Q, "pos": [P, "한양이다."], "neg": [N]}, {**ONE_NEGATIVE, "positives": ["한양이다."]},
    ),
    "json in a cell": ({"query": Q, "pos": f'["{P}"]', "neg": f'["{N}", "대구"]'}, {**PAIR, "negatives": [N, "대구"]}),
    "tevatron": (
        {"query_id": "1", "query": Q, "positive_passages": [{"docid": "a", "title": "수도", "text": P}],
         "negative_passages": [{"docid": "b", "text": N}]},
        {**ONE_NEGATIVE, "context": f"수도\n{P}"},
    ),
    "squad": ({"id": "1", "question": Q, "context": P, "answers": [{"text": "서울", "answer_start": 0}]}, PAIR),
    "to embed passages": ({"title": "수도", "text": P}, {"context": P, "positives": [], "negatives": []}),
    "to embed questions": ({"질문": Q}, {"question": Q, "negatives": []}),
}  # fmt: skip
SCORED: dict[str, tuple[dict[str, Any], str]] = {
    "korsts": ({"sentence1": Q, "sentence2": P, "score": "3.5"}, "3.5"),
    "nli": ({"premise": Q, "hypothesis": P, "gold_label": "neutral"}, "0.5"),
    "own names": ({"질문": Q, "문서": P, "점수": 1}, "1"),
}  # fmt: skip


def read_from(path: Path) -> DataManager:
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache")}
    settings = Settings.model_validate({"model": {"task": "embedding"}, "data": data})
    return DataManager(settings, find_task(settings))


def prepared(row: dict[str, Any], loss: str = "infonce") -> dict[str, Any]:
    task = find_task(Settings.model_validate({"model": {"task": "embedding"}, "embedding": {"loss": loss}}))
    spelled = {name.casefold(): name for name in row}
    found = {}
    for column in task.reads.columns(list(row)):
        usual = next((spelled[name] for name in column.usual if name in spelled), None)
        name = column.name if column.name in row else usual
        if name is not None:
            found[column.role] = row[name]
    return task.reads.prepare(found)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read(name: str) -> None:
    row, expected = SHAPES[name]
    assert prepared(row) == expected


@pytest.mark.parametrize("name", SCORED)
def test_scored_pairs_are_read_and_refused_under_the_other_loss(name: str) -> None:
    row, score = SCORED[name]
    assert prepared(row, "cosent") == {"question": Q, "context": P, "label": score}
    if name != "own names":
        with pytest.raises(DataError) as error:
            prepared(row)
        assert "embedding.loss=cosent" in error.value.remedy


@pytest.mark.parametrize(
    ("row", "loss", "said"),
    [
        ({"question": Q, "context": P, "answers": []}, "infonce", "지문에 답이 없는"),
        ({"question": Q, "context": P, "answers": {"text": [], "answer_start": []}}, "infonce", "지문에 답이 없는"),
        ({"query": Q, "pos": [], "neg": [N]}, "infonce", "정답 문서가 없는"),
        ({"query": [Q, Q], "pos": [P]}, "infonce", "하나가 아닌"),
        ({"query": Q, "pos": [{"docid": "a"}]}, "infonce", "텍스트가 없는 객체"),
        ({"sentence1": Q, "sentence2": P, "score": "높음"}, "cosent", "숫자가 아닌"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(row: dict[str, Any], loss: str, said: str) -> None:
    with pytest.raises(BadRow, match=said):
        prepared(row, loss)


def test_a_source_without_passages_is_refused_before_training(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("질문,점수\n수도는?,3\n강은?,4\n", encoding="utf-8")
    flags = ("--task", "embedding", "--model_name", tiny_model, "--dataset", tmp_path / "train.csv")
    done = cli(*flags, "--output_dir", tmp_path / "out")
    assert done.code == 3 and "'context' 열이 없습니다" in done.err and "data.context_column" in done.err


def test_passages_that_were_judged_not_to_answer_are_negatives(tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    lines = [f"질문 {n // 2},문서 {n},{1 - n % 2}" for n in range(8)] + ["질문 9,문서 9,0"]
    data.write_text("\n".join(["question,passage,label", *lines]), encoding="utf-8")
    rows = [dict(row) for row in read_from(data).load_to_train().table]
    assert [(row["question"], row["context"], row["negatives"]) for row in rows] == [
        (f"질문 {n}", f"문서 {2 * n}", f'["문서 {2 * n + 1}"]') for n in range(4)
    ]
    data.write_text("\n".join(["Q,A,label", *(f"질문 {n},답 {n},{n % 3}" for n in range(8))]), encoding="utf-8")
    assert len(read_from(data).load_to_train()) == 8  # classes, as of songys' chatbot data


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train.csv": "query,positive\n" + "".join(f"{n},{70 + n}\n" for n in range(9))}, "숫자입니다"),
        ({"queries.jsonl": '{"_id": "q", "text": "질문"}\n',
          "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq\td\t1\n"}, "corpus.jsonl"),
    ],
)  # fmt: skip
def test_numbers_of_texts_without_the_texts_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_from(tmp_path / "data").load_to_train()
    assert said in error.value.what
