"""Korean data as it is published: KLUE, Naver NER, 모두의 말뭉치, AI Hub, ShareGPT, Alpaca, a small file of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_manager import DataManager
from exceptions import DataError, SettingsError
from finetuning.config.schema import DataSettings, Settings
from finetuning.data.formats.registry import open_source
from finetuning.data.shapes.record_path import records
from finetuning.data.sources import find_sources
from finetuning.tasks.registry import find_task

STS = [
    {"guid": f"klue-sts-v1_dev_{n:05d}", "source": "airbnb-rtt", "sentence1": f"호스트가 친절했습니다 {n}.",
     "sentence2": f"호스트는 친절했어요 {n}.",
     "labels": {"label": 3.7, "real-label": 3.714285714285714 + n / 100, "binary-label": 1},
     "annotations": {"agreement": "0:0:0:2:5:0", "annotators": ["17"], "annotations": [4]}} for n in range(20)
]  # fmt: skip
RE = [
    {"guid": f"klue-re-v1_train_{n:05d}",
     "sentence": "〈Something〉는 조지 해리슨이 쓰고 비틀즈가 1969년 앨범 《Abbey Road》에 담은 노래다.",
     "subject_entity": {"word": "비틀즈", "start_idx": 24, "end_idx": 26, "type": "ORG"},
     "object_entity": {"word": "조지 해리슨", "start_idx": 13, "end_idx": 18, "type": "PER"},
     "label": "no_relation" if n % 2 else "org:members", "source": "wikipedia"} for n in range(20)
]  # fmt: skip
MARKED = "〈Something〉는 <obj>조지 해리슨</obj>이 쓰고 <subj>비틀즈</subj>가 1969년 앨범 《Abbey Road》에 담은 노래다."
YNAT = [
    {"guid": f"ynat-v1_dev_{n:05d}", "title": "5억원 무이자 융자는 되고 7천만원 이사비는 안된다",
     "predefined_news_category": "경제", "label": "사회" if n % 2 else "경제",
     "annotations": {"annotators": ["18"], "annotations": {"first-scope": ["사회"]}}, "url": "https://news.naver.com/",
     "date": "2017.09.21. 오후 5:09"} for n in range(20)
]  # fmt: skip
NAVER = "1\t비토리오\tPER_B\n2\t양일\tDAT_B\n3\t만에\tDAT_I\n4\t영사관\tORG_B\n5\t갔다\t-\n\n1\t끝\t-\n"
MODU = {
    "id": "NWRW1800000021", "metadata": {"title": "국립국어원 신문 말뭉치"},
    "document": [
        {"id": f"NWRW1800000021.{n}", "metadata": {"topic": "생활"},
         "paragraph": [{"id": f"NWRW1800000021.{n}.1", "form": "제목입니다"}, {"id": "2", "form": f"본문 {n}입니다."}]}
        for n in range(10)
    ],
}  # fmt: skip
MODU_NE = {
    "document": [
        {"id": "SARW1", "sentence": [
            {"id": "SARW1.1", "form": "한국에 김철수가 왔다", "word": [{"id": 1, "form": "한국에"}],
             "NE": [{"id": 1, "form": "한국", "label": "LC", "begin": 0, "end": 2},
                    {"id": 2, "form": "김철수", "label": "PS", "begin": 4, "end": 7}]},
            {"id": "SARW1.2", "form": "좋다", "word": [], "NE": []}]}
    ] * 10,
}  # fmt: skip
AI_HUB = {
    "name": "요약", "data": [
        {"doc_id": n, "category": "법률", "meta": {"publisher": "신문"},
         "paragraphs": [{"context": f"지문 {n}-{part}", "info": {"label": str(part)}} for part in range(2)]}
        for n in range(10)
    ],
}  # fmt: skip
SHAREGPT = [
    {"id": str(n), "conversations": [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "반가워요"}]}
    for n in range(20)
]
ALPACA = [{"instruction": "번역하세요.", "input": "안녕", "output": "Hello"} for _ in range(20)]


def manager(path: Path, task: str = "text-classification", **data: Any) -> DataManager:
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), **data}
    settings = Settings.model_validate({"model": {"task": task}, "data": data})
    return DataManager(settings, find_task(settings))


def first_row(path: Path, content: Any, task: str, **data: Any) -> dict[str, Any]:
    """Return the first clean row of all splits, without its number."""
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    splits = manager(path, task, **data).load_splits()
    rows = sorted((row for split in splits.values() for row in split.table), key=lambda row: row["row"])
    return {key: value for key, value in rows[0].items() if key != "row"}


def test_klue_sts_s_score_is_the_mean_of_the_annotators(tmp_path: Path) -> None:
    row = first_row(tmp_path / "klue-sts-v1.1_dev.json", STS, "text-regression")
    assert row == {"text": STS[0]["sentence1"], "text_pair": STS[0]["sentence2"], "label": "3.714285714285714"}


@pytest.mark.parametrize("kind", ["json", "csv", "python csv"])
def test_klue_re_s_entities_are_marked_in_the_sentence(tmp_path: Path, kind: str) -> None:
    content: Any = RE
    if kind != "json":
        import csv
        import io

        file = io.StringIO()
        writer = csv.DictWriter(file, fieldnames=list(RE[0]))
        writer.writeheader()
        for row in RE:
            writer.writerow({key: str(value) if kind == "python csv" else json.dumps(value) if isinstance(value, dict)
                             else value for key, value in row.items()})  # fmt: skip
        content = file.getvalue()
    row = first_row(tmp_path / f"train.{kind.split()[-1]}", content, "text-classification")
    assert row == {"text": MARKED, "label": "org:members"}


def test_a_missing_klue_re_entity_is_reported_with_its_row(tmp_path: Path) -> None:
    wrong = [*RE[:3], {**RE[3], "subject_entity": {"word": "비틀즈", "start_idx": 23, "end_idx": 25}}]
    with pytest.raises(DataError, match="subject_entity") as error:
        first_row(tmp_path / "train.json", wrong, "text-classification")
    assert "4번째 행" in error.value.where


def test_klue_ynat_is_read_by_its_titles(tmp_path: Path) -> None:
    row = first_row(tmp_path / "ynat-v1.1_train.json", YNAT, "text-classification")
    assert row == {"text": YNAT[0]["title"], "label": "경제"}


@pytest.mark.parametrize("name", ["train_data", "train.tsv", "naver.txt"])
def test_naver_ner_is_recognised_by_its_content(tmp_path: Path, name: str) -> None:
    row = first_row(tmp_path / name, NAVER * 10, "token-classification")
    assert row["text"] == "비토리오 양일 만에 영사관 갔다"
    found = [(row["text"][start:end], label) for start, end, label in json.loads(row["label"])]
    assert found == [("비토리오", "PER"), ("양일 만에", "DAT"), ("영사관", "ORG")]


def test_a_broken_line_of_naver_ner_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        first_row(tmp_path / "train.tsv", NAVER * 10 + "1\t김\tB-PER\n", "token-classification")
    assert "71번째 줄" in error.value.where


def test_modu_s_paragraphs_are_rows(tmp_path: Path) -> None:
    assert first_row(tmp_path / "NWRW1800000021.json", MODU, "fill-mask") == {"text": "제목입니다"}


def test_modu_s_entities_are_tags(tmp_path: Path) -> None:
    row = first_row(tmp_path / "NE.json", MODU_NE, "token-classification")
    assert row == {"text": "한국에 김철수가 왔다", "label": '[[0, 2, "LC"], [4, 7, "PS"]]'}


def test_nested_records_are_rows_with_what_is_around_them(tmp_path: Path) -> None:
    path = "data[*].paragraphs[*]"
    row = first_row(tmp_path / "a.json", AI_HUB, "text-classification", records=path, text_column="context",
                    label_column="info.label")  # fmt: skip
    assert row == {"text": "지문 0-0", "label": "0"}
    rows, note = records(AI_HUB, path, "a.json")
    assert len(rows) == 20 and note == ""
    assert rows[1] == {"name": "요약", "doc_id": 0, "category": "법률", "context": "지문 0-1", "info.label": "1"}


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ([{"a": [{"x": 1}]}, {"a": [{"x": 2}]}], "[*].a[*]", [{"x": 1}, {"x": 2}]),
        ({"a": {"b": [[{"x": 1}], [{"x": 2}]]}}, "a.b[*][*]", [{"x": 1}, {"x": 2}]),
        ({"문장": ["가", "나"]}, "문장[*]", [{"text": "가"}, {"text": "나"}]),
        ({"id": 1, "a": [{"id": 2}]}, "a[*]", [{"id": 2}]),
    ],
)
def test_paths(value: Any, path: str, expected: list[dict[str, Any]]) -> None:
    assert records(value, path, "a.json") == (expected, "")


def test_records_that_a_path_does_not_reach_are_counted() -> None:
    rows, note = records({"data": [{"p": [{"x": 1}]}, {"q": 1}, {"q": 2}]}, "data[*].p[*]", "a.json")
    assert rows == [{"x": 1}] and "'data[*]'에서 'p' 단계가 없는 2개" in note


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("datas[*]", ["파일의 처음", "'datas' 단계", "name, data"]),
        ("data[*].paragraph[*]", ["'data[*]'에서 'paragraph' 단계", "paragraphs"]),
        ("data.paragraphs[*]", ["'data'에서 'paragraphs' 단계", "목록(10개)"]),
        ("data[*].doc_id", ["객체도 문자열도 아닌"]),
        ("name[*]", ["'name'에서 '[*]' 단계"]),
    ],
)
def test_a_path_that_leads_nowhere_names_its_step(tmp_path: Path, path: str, said: list[str]) -> None:
    with pytest.raises(DataError) as error:
        first_row(tmp_path / "a.json", AI_HUB, "text-classification", records=path)
    for words in said:
        assert words in str(error.value)
    assert "data.records" in error.value.where


@pytest.mark.parametrize("path", ["", ".a", "a..b", "a[0]", "a[", "[*]a"])
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="records"):
        Settings.model_validate({"data": {"records": path}})


@pytest.mark.parametrize("content", [SHAREGPT, ALPACA], ids=["ShareGPT", "Alpaca"])
def test_conversations_of_usual_shapes(tmp_path: Path, content: Any) -> None:
    messages = json.loads(first_row(tmp_path / "a.json", content, "text-generation")["messages"])
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"] in {"반가워요", "Hello"}


def test_nested_scores_of_the_hub_are_plain_too() -> None:
    from datasets import Dataset

    from finetuning.data.hub import HubSplit
    from finetuning.data.shapes.registry import flat_rows

    split = HubSplit(Dataset.from_list(STS))
    columns, rows, _ = flat_rows(split.columns, split, "klue (train)")
    assert "label" in columns and "labels" not in columns
    assert next(iter(rows))["label"] == STS[0]["labels"]["real-label"]


def test_relations_are_scored_as_klue_does_without_no_relation() -> None:
    """KLUE-baseline's klue_re_micro_f1: micro-averaged over every relation but `no_relation`, counted here by hand."""
    names = ("no_relation", "org:founded", "per:title")
    truth = ["no_relation", "org:founded", "org:founded", "per:title", "no_relation", "per:title"]
    predicted = [0, 1, 0, 2, 1, 1]
    task = find_task(Settings())
    found = task.scores.metrics([np.eye(3)[best] for best in predicted], {"label": truth}, names, 0.0)
    right, said, there = 2, 4, 4  # of the relations that are said, and that are there
    assert found["relation_micro_f1"] == pytest.approx(2 * right / (said + there))
    assert "relation_micro_f1" not in task.scores.metrics([np.eye(2)[0]] * 2, {"label": ["a", "b"]}, ("a", "b"), 0.0)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("text-classification", {"label_column": "category"}),
        ("fill-mask", {}),
        ("text-generation", {"prompt_column": "text", "response_column": "category"}),
        ("text-generation", {"prompt_column": "category", "response_column": "abstractive"}),
        ("text2text-generation", {"prompt_column": "category", "response_column": "abstractive"}),
    ],
)
def test_a_nested_value_is_not_a_text(tmp_path: Path, task: str, columns: dict[str, str]) -> None:
    """AI Hub's summaries without data.records: lists of sentences were trained on as JSON."""
    documents = [
        {"category": "가나"[n % 2], "text": [[{"index": 0, "sentence": f"문장 {n}"}]], "abstractive": [f"요약 {n}"]}
        for n in range(10)
    ]
    with pytest.raises(DataError, match=r"목록이나 객체인 .*\(data\.records에 그 안의 값까지의 경로를 쓰세요\) 10행"):
        first_row(tmp_path / "train.json", {"documents": documents}, task, **columns)


def test_paragraphs_without_questions_suggest_data_records(tmp_path: Path) -> None:
    documents = {"data": [{"title": "제목", "paragraphs": [{"context": f"글 {n}", "label": "가"}]} for n in range(9)]}
    with pytest.raises(DataError) as error:
        first_row(tmp_path / "train.json", documents, "text-classification")
    assert "data.records" in error.value.remedy


@pytest.mark.parametrize("name", ["imdb", "train.csv", "folder"])
def test_a_path_to_records_is_refused_where_there_is_no_json(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "train.csv", tmp_path / "folder" / "train.csv"):
        path.write_text("text,label\n글,0\n", encoding="utf-8")
    place = name if name == "imdb" else str(tmp_path / name)
    with pytest.raises(SettingsError, match="JSON 파일에만") as error:
        find_sources(DataSettings(dataset_name=place, records="data[*]"))
    assert "data.records: data[*]" in error.value.where
    (tmp_path / "folder" / "test.json").write_text('{"data": [{"text": "글", "label": 0}]}', encoding="utf-8")
    found = find_sources(DataSettings(dataset_name=str(tmp_path / "folder"), records="data[*]"))
    assert len(list(found["test"].rows)) == 1


def test_a_path_to_records_is_of_json_alone_and_the_run_says_so(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\n좋다,1\n", encoding="utf-8")
    assert any("data.records" in note for note in open_source(path, None, "data[*]").notes)
    assert open_source(path, None, None).notes == ()
