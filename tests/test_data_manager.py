"""Sources as people have them: names with white space or of a Mac, splits without labels, files renamed."""

from __future__ import annotations

import logging
import shlex
import unicodedata
from pathlib import Path

import pytest

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.data.columns import find_columns
from finetuning.data.sources import Raw
from finetuning.tasks.registry import find_task, refined_task
from finetuning_app import build_parser
from tests.support.rows import Make, managers_of

ROWS = "".join(f"좋은 영화 {n},{'긍정' if n % 2 else '부정'}\n" for n in range(20))


@pytest.fixture
def manager(tmp_path: Path) -> Make:
    """A DataManager of a folder of files given by name; `task` and settings of `data` by keyword."""
    return managers_of(tmp_path)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


# --- labels and names as people write them ---


def test_white_space_around_labels_and_names_is_no_part_of_them(manager: Make) -> None:
    data = manager({"train.csv": "text, label\n" + ROWS.replace(",긍정", ", 긍정 ")})
    assert data.label_names(data.load_splits()) == ("긍정", "부정")


def test_whole_floats_are_the_integers_they_were(manager: Make) -> None:
    train, test = "".join(f"글 {n},{n % 2}.0\n" for n in range(20)), "가,1\n나, 0.00\n"
    data = manager({"train.csv": "text,label\n" + train, "test.csv": "text,label\n" + test})
    splits = data.load_splits()
    assert data.label_names(splits) == ("0", "1")
    assert splits["test"].labels() == ["1", "0"]


@pytest.mark.parametrize(("cell", "label"), [("1.50", "1.50"), ("-0.0", "0"), ("v1.0", "v1.0"), (" 3.0 ", "3")])
def test_other_numbers_are_left_as_they_are(cell: str, label: str) -> None:
    for kind in ("text-classification", "multi-label-classification"):
        found = find_task(Settings.model_validate({"model": {"task": kind}})).reads.prepare(
            {"text": "글", "label": cell}
        )
        assert found["label"] in (label, [label])


def test_scores_may_have_white_space(manager: Make) -> None:
    lines = "".join(f"글 {n}, {n % 5}.5\n" for n in range(20))
    splits = manager({"train.csv": "text,label\n" + lines}, task="text-regression").load_splits()
    assert {len(label) for rows in splits.values() for label in rows.labels()} == {3}


@pytest.mark.parametrize("seed", range(8))
def test_few_rows_keep_every_label_in_train(manager: Make, seed: int) -> None:
    data = manager({"train.csv": "text,label\n좋다,긍정\n별로다,부정\n재미있다,긍정\n그저 그렇다,중립\n"})
    data.seed = seed
    splits = data.load_splits()
    assert len(splits["validation"]) == 1
    assert data.label_names(splits) == ("긍정", "부정", "중립")


def test_a_single_row_cannot_be_divided(manager: Make) -> None:
    with pytest.raises(DataError, match="행이 1개뿐") as error:
        manager({"train.csv": "text,label\n좋다,긍정\n"}).load_splits()
    assert "검증 데이터를 따로" in error.value.remedy


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_names_made_on_a_mac_are_those_typed(manager: Make, name: str) -> None:
    lines = [f'{{"본문": "글 {n}", "라벨": "{n % 2}"}}\n' for n in range(20)]
    text = "본문,라벨\n" + ROWS if name.endswith(".csv") else "".join(lines)
    for asked in ("본문", nfd("본문")):
        splits = manager({name: nfd(text)}, text_column=asked, label_column="라벨").load_splits()
        assert len(splits["train"]) == 18


@pytest.mark.parametrize(
    ("name", "split"),
    [
        (nfd("학습.csv"), "train"),
        ("학습데이터.csv", "train"),
        ("훈련용.csv", "train"),
        ("검증용.csv", "validation"),
        ("테스트.csv", "test"),
        ("영화_시험셋.csv", "test"),
        ("평가_validation.csv", "validation"),
    ],
)
def test_korean_file_names_say_their_split(manager: Make, name: str, split: str) -> None:
    other = "nsmc_train.csv" if split != "train" else "test.csv"
    found = manager({name: "text,label\n" + ROWS, other: "text,label\n" + ROWS}).load_splits()
    assert split in found and found[split].where.endswith(name)


# --- splits without labels ---


@pytest.mark.parametrize(
    "unlabelled", ["id,text\n1,좋다\n2,나쁘다\n", "text,label\n좋다,\n나쁘다,\n"], ids=["no column", "no label"]
)
@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_split_without_labels_is_left_out_and_named(
    manager: Make, name: str, unlabelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = manager({"train.csv": "text,label\n" + ROWS, f"{name}.csv": unlabelled})
    splits = data.load_splits()
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 18, "validation": 2}
    assert all(rows.where.endswith("train.csv") for rows in splits.values())
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    for words in (f"{name}.csv", "label", "쓰지 않습니다"):
        assert words in warning


def test_a_split_without_answers_is_left_out(manager: Make) -> None:
    pairs = "".join(f"질문 {n},답 {n}\n" for n in range(20))
    files = {"train.csv": "prompt,response\n" + pairs, "test.csv": "id,prompt\n1,질문\n"}
    assert set(manager(files, task="text-generation").load_splits()) == {"train", "validation"}
    assert set(manager(files, task="text2text-generation").load_splits()) == {"train", "validation"}


def test_there_is_nothing_to_evaluate_without_labels(manager: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="평가할"):
        manager({"test.csv": "text,label\n좋다,\n"}).load_split(None)
    with pytest.raises(DataError, match="평가할"):
        manager({}).load_file(tmp_path / "data" / "test.csv")


def test_train_without_labels_is_still_an_error(manager: Make) -> None:
    with pytest.raises(DataError, match="'label' 열이 없습니다"):
        manager({"train.csv": "id,text\n1,좋다\n", "test.csv": "text,label\n좋다,1\n"}).load_splits()


def test_no_label_of_the_hub_is_none() -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    from finetuning.data.hub import HubSplit

    features = Features({"text": Value("string"), nfd("라벨"): ClassLabel(names=["부정", "긍정"])})
    table = Dataset.from_dict({"text": ["가", "나"], nfd("라벨"): [-1, 1]}, features=features)
    split = HubSplit(table)
    assert split.columns == ("text", "라벨")
    assert [row["라벨"] for row in split] == [None, "긍정"]


# --- the cache, and prediction ---


def test_a_renamed_file_is_read_as_what_its_name_says(manager: Make, tmp_path: Path) -> None:
    path = tmp_path / "data" / "in.txt"
    data = manager({path.name: "text,id\n좋다,1\n"})
    ((rows, _),) = data.load_unlabelled(path, ()).chunks()
    assert rows.table["text"][:] == ["text,id", "좋다,1"]
    ((rows, _),) = data.load_unlabelled(path.rename(path.with_suffix(".csv")), ()).chunks()
    assert rows.table["text"][:] == ["좋다"]


def test_a_second_run_logs_the_same_and_writes_nothing(
    manager: Make, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoTokenizer

    caplog.set_level(logging.INFO)
    rows = ROWS * 10 + "," + "\n" + nfd("참 좋은 영화,긍정\n") + "가 " * 80 + ",부정\n"
    said, written = [], []
    for _ in range(2):
        caplog.clear()
        data = manager({"train.csv": "text,label\n" + rows})
        splits = data.load_splits()
        for split in splits.values():
            data.encode(split, AutoTokenizer.from_pretrained(tiny_model), data.label_names(splits), 32)
        said.append([record.message for record in caplog.records])
        written.append({path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")})
    assert said[0] == said[1] and written[0] == written[1]
    for words in ("빈 텍스트 1행", "NFC로", "잘렸습니다", "검증용으로 분리합니다"):
        assert any(words in line for line in said[0]), said[0]


def test_rows_to_predict_may_be_numbers_and_keep_their_columns(manager: Make, tmp_path: Path) -> None:
    data = manager({"in.csv": "id,text,label\na1,100,\na2,,1\n"})
    ((rows, originals),) = data.load_unlabelled(None, ["100\n"]).chunks()
    assert rows.table["text"][:] == ["100"]
    ((rows, originals),) = data.load_unlabelled(tmp_path / "data" / "in.csv", ()).chunks()
    assert rows.table[:] == {"row": [1], "text": ["100"]}
    assert originals == [{"id": "a1", "text": "100", "label": ""}, {"id": "a2", "text": "", "label": "1"}]


@pytest.mark.parametrize("name", ["리뷰 데이터", "data/리뷰", "내 문서/reviews", "./reviews", "a/b/c", "C:\\reviews"])
def test_a_name_that_no_dataset_of_the_hub_has_is_a_missing_path(manager: Make, name: str) -> None:
    with pytest.raises(DataError, match="데이터 파일이 없습니다"):
        manager({}, dataset_name=name).load_splits()


def test_a_misspelled_file_is_shown_the_one_beside_it(manager: Make, tmp_path: Path) -> None:
    (tmp_path / nfd("리뷰 모음.csv")).write_text("text,label\n" + ROWS, encoding="utf-8")
    with pytest.raises(DataError) as error:
        manager({}, dataset_name=str(tmp_path / "리뷰 모음.cvs")).load_splits()
    assert f"혹시 {tmp_path / nfd('리뷰 모음.csv')}입니까?" in error.value.remedy


def test_a_name_that_a_mac_stored_in_other_letters_is_told_apart_from_the_one_that_looks_the_same(
    manager: Make, tmp_path: Path
) -> None:
    (tmp_path / nfd("리뷰.csv")).write_text("text,label\n" + ROWS, encoding="utf-8")
    with pytest.raises(DataError) as error:
        manager({}, dataset_name=str(tmp_path / "리뷰.csv")).load_splits()
    assert "자음과 모음이 나뉜" in error.value.remedy
    assert "혹시" not in error.value.remedy


def test_a_file_that_excel_keeps_while_a_table_is_open_is_no_misspelled_one(manager: Make, tmp_path: Path) -> None:
    (tmp_path / "~$리뷰.xlsx").write_bytes(b"x")
    with pytest.raises(DataError) as error:
        manager({}, dataset_name=str(tmp_path / "리뷰.xlsx")).load_splits()
    assert "혹시" not in error.value.remedy


def test_a_folder_of_one_file_without_a_split_in_its_name_is_told_how_to_use_it(manager: Make, tmp_path: Path) -> None:
    data = manager({"리뷰 모음.csv": "text,label\n" + ROWS, "설명.md": ""})
    with pytest.raises(DataError) as error:
        data.load_splits()
    assert f"--dataset {shlex.quote(str(tmp_path / 'data' / '리뷰 모음.csv'))} 플래그" in error.value.remedy
    with pytest.raises(DataError) as error:
        manager({"또 하나.csv": "text,label\n" + ROWS}).load_splits()
    assert "--dataset" not in error.value.remedy


# --- what to do about a missing column ---


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("text-classification", "--text_column"),
        ("text2text-generation", "--set data.prompt_column="),
        ("question-answering", "--set data.question_column="),
    ],
)
def test_a_missing_column_names_a_flag_that_there_is(manager: Make, task: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        manager({"train.csv": "a,b\n1,2\n"}, task=task).load_splits()
    assert said in error.value.remedy
    flags = [word for word in error.value.remedy.replace("(", " ").replace(")", " ").split() if word.startswith("--")]
    assert flags and all(flag in build_parser()._option_string_actions for flag in flags)


@pytest.mark.parametrize(
    ("first", "is_data"),
    [("배송이 정말 빨라서 마음에 들어요,긍정", True), ("별로예요,1", True), ("후기_본문,만족도", False)],
)
def test_a_file_without_a_header_is_told_to_add_one(manager: Make, first: str, is_data: bool) -> None:
    with pytest.raises(DataError, match="열이 없습니다") as error:
        manager({"train.csv": first + "\n" + ROWS}).load_splits()
    assert ("첫 줄이 열 이름이 아니라" in error.value.remedy) == is_data


# --- columns by their usual names ---


@pytest.mark.parametrize(
    ("header", "task", "roles"),
    [
        ("리뷰,감정", "text-classification", {"text": "리뷰", "label": "감정"}),
        ("댓글,레이블", "text-classification", {"text": "댓글", "label": "레이블"}),
        ("guid,title,label", "text-classification", {"text": "title", "label": "label"}),
        ("Sentence1,Sentence2,score", "text-classification",
         {"text": "Sentence1", "text_pair": "Sentence2", "label": "score"}),
        ("premise,hypothesis,gold_label", "text-classification",
         {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"}),
        ("text,sentence1,sentence2,label", "text-classification", {"text": "text", "label": "label"}),
        ("내용", "fill-mask", {"text": "내용"}),
        ("질문,답변,번호", "text-generation", {"prompt": "질문", "response": "답변"}),
        ("instruction,input,response", "text-generation",
         {"instruction": "instruction", "input": "input", "output": "response"}),
        ("원문,번역문", "text2text-generation", {"prompt": "원문", "response": "번역문"}),
        ("물음,지문,정답", "question-answering", {"question": "물음", "context": "지문", "answers": "정답"}),
    ],
)  # fmt: skip
def test_usual_names_are_found(manager: Make, header: str, task: str, roles: dict[str, str]) -> None:
    data = manager({}, task=task)
    names = tuple(header.split(","))
    assert find_columns(data.task.reads.columns(names), Raw("a.csv", names, [], "")) == roles


@pytest.mark.parametrize(
    ("header", "task", "said"),
    [
        ("제목,내용,라벨", "text-classification", ["제목, 내용", "--text_column"]),
        ("문장,감정,주제", "text-classification", ["감정, 주제", "--label_column"]),
        ("sentence1,sentence2,문장1,문장2,label", "text-classification", ["--text_column"]),
        ("질문,문의,답변", "text-generation", ["질문, 문의", "--set data.prompt_column="]),
    ],
)
def test_with_two_candidates_a_column_name_is_required(manager: Make, header: str, task: str, said: list[str]) -> None:
    with pytest.raises(DataError) as error:
        manager(
            {"train.csv": f"{header}\n" + f"{','.join('가나다라마'[: header.count(',') + 1])}\n" * 3}, task=task
        ).load_splits()
    for words in said:
        assert words in str(error.value)


def test_a_pair_that_was_found_is_one_when_it_is_predicted(manager: Make) -> None:
    rows = "sentence1,sentence2,label\n" + "".join(f"가 {n},나 {n},{n % 2}\n" for n in range(20))
    data = manager({"train.csv": rows})
    task = refined_task(data.task, *data.label_profile(data.load_splits()["train"]))
    later = DataManager(task.settings, find_task(Settings.model_validate(task.settings.model_dump())))
    ((found, _),) = later.load_unlabelled(None, ["가\t나"]).chunks()
    assert found.table[:] == {"row": [1], "text": ["가"], "text_pair": ["나"]}
    assert later.load_splits()["train"].table.column_names == ["row", "text", "text_pair", "label"]
