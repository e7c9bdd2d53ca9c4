"""Every shape in which people have their files: each is read into the rows that its author meant, with what is told
about it, or refused with the sentence that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exceptions import DataError, FinetuningError
from finetuning.config.schema import DataSettings
from finetuning.data.sources import find_sources

ROWS = [{"text": f"좋은 영화 {n}", "label": "긍정" if n % 2 else "부정"} for n in range(4)]
IDS = [{"text": row["text"], "label": ("부정", "긍정").index(row["label"])} for row in ROWS]
TAGGED = [{"tokens": ["박", "씨", "또"], "ner_tags": ["B-PS", "I-PS", "O"]}, {"tokens": ["서울"], "ner_tags": ["B-LC"]}]


@dataclass(frozen=True)
class Shape:
    """A shape of data.

    Attributes:
        write: Writes it into an empty folder; what it returns is `data.dataset_name`, None for the folder.
        rows: Split → rows that are read.
        told: What the notes say.
        refused: What the refusal says, if it is refused.
        settings: Further settings of the data.
    """

    write: Callable[[Path], str | None]
    rows: dict[str, list[dict[str, Any]]] | None = None
    told: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


def text(name: str, content: str, *others: tuple[str, str]) -> Callable[[Path], str | None]:
    """Write one file, which is the data, or several, whose folder is."""

    def write(folder: Path) -> str | None:
        for path, inside in ((name, content), *others):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(inside, encoding="utf-8", newline="")
        return None if others or "/" in name else name

    return write


def document(content: Any, name: str = "train.json") -> Callable[[Path], str | None]:
    return text(name, json.dumps(content, ensure_ascii=False))


def csv_of(rows: list[dict[str, Any]], mark: str = ",") -> str:
    return "".join(mark.join(map(str, line)) + "\n" for line in (rows[0], *(row.values() for row in rows)))


def dataset(rows: list[dict[str, Any]], **names: list[str]) -> Any:
    """A dataset of the library with class ids in some columns."""
    import datasets

    made = datasets.Dataset.from_list(rows)
    for column, classes in names.items():
        feature = datasets.ClassLabel(names=classes)
        is_list = isinstance(rows[0][column], list)
        made = made.cast_column(column, datasets.List(feature) if is_list else feature)
    return made


def hub_folder(inside: str, shards: int, ids: list[dict[str, Any]] = IDS) -> Callable[[Path], None]:
    """A dataset of the Hub, copied: Parquet shards of train with class ids."""

    def write(folder: Path) -> None:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
        made = dataset(ids, label=["부정", "긍정"])
        for number in range(shards):
            path = folder / inside / f"train-{number:05d}-of-{shards:05d}.parquet"
            made.shard(shards, number, contiguous=True).to_parquet(path)

    return write


def saved_to_disk(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    parts = {"train": dataset(IDS, label=["부정", "긍정"]), "test": dataset(IDS[:2], label=["부정", "긍정"])}
    datasets.DatasetDict(parts).save_to_disk(folder)


def tags_of_ids(folder: Path) -> str:
    rows = [{"tokens": ["박", "씨", "또"], "ner_tags": [1, 2, 0]}]
    dataset(rows, ner_tags=["O", "B-PS", "I-PS"]).to_parquet(folder / "train.parquet")
    return "train.parquet"


def names_beside(folder: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(IDS), folder / "train.parquet")
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["부정", "긍정"], "_type": "ClassLabel"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}, ensure_ascii=False), encoding="utf-8")
    return "train.parquet"


def missing_shard(folder: Path) -> None:
    hub_folder("data", 3)(folder)
    (folder / "data" / "train-00001-of-00003.parquet").unlink()


QUOTED = [{"text": f'그는 "정말" {n}', "label": "긍정"} for n in range(4)]
BARE = [{"text": '"좋다" 정말', "label": "긍정"}, {"text": '"나쁘다"', "label": "부정"}]
TWO_LINES = [{"text": "첫 줄\n둘째 줄", "label": "긍정"}, {"text": "한 줄", "label": "부정"}]
CONLL = "박 B-PS\n씨 I-PS\n또 O\n\n서울 B-LC\n\n" * 3
TRANSLATED = [{"translation": {"en": f"Hello {n}", "ko": f"안녕 {n}"}, "id": n} for n in range(3)]
PLAIN = [{key: row[key] for key in ("id",)} | row["translation"] for row in TRANSLATED]  # type: ignore[operator]

SHAPES = {
    # a dataset of the Hub on the disk
    "Parquet under data/": Shape(hub_folder("data", 1), {"train": ROWS}),
    "two shards under data/": Shape(hub_folder("data", 2), {"train": ROWS}),
    "flat shards": Shape(hub_folder(".", 2), {"train": ROWS}),
    "a shard is missing": Shape(missing_shard, refused=("3개 가운데 1개가 없습니다", "00001번")),
    "no label is -1": Shape(
        hub_folder("data", 1, [{"text": "글", "label": -1}, IDS[1]]),
        {"train": [{"text": "글", "label": None}, ROWS[1]]},
    ),
    "one configuration of several": Shape(
        hub_folder("ynat", 1), {"train": ROWS}, settings=(("dataset_config", "ynat"),)
    ),
    "several configurations": Shape(hub_folder("ynat", 1), refused=("설정(config)이 여럿", "ynat")),
    "save_to_disk": Shape(saved_to_disk, {"train": ROWS, "test": ROWS[:2]}),
    "class ids in lists": Shape(tags_of_ids, {"train": TAGGED[:1]}),
    "names in dataset_info.json": Shape(names_beside, {"train": ROWS}),
    "a folder a split": Shape(
        text("train/data.csv", csv_of(ROWS), ("test/data.csv", csv_of(ROWS[:2]))), {"train": ROWS, "test": ROWS[:2]}
    ),
    "several files of a split": Shape(
        text("train/a.csv", csv_of(ROWS[:2]), ("train/b.csv", csv_of(ROWS[2:]))), {"train": ROWS}
    ),
    "several files of other columns": Shape(
        text("train/a.csv", csv_of(ROWS[:2]), ("train/b.csv", "글,라벨\n좋다,긍정\n")),
        refused=("열이 다릅니다", "b.csv"),
    ),
    "records of shards may lack a key": Shape(
        text(
            "train-00000-of-00002.jsonl",
            '{"text": "가"}\n',
            ("train-00001-of-00002.jsonl", '{"text": "나", "label": 1}\n'),
        ),
        {"train": [{"text": "가", "label": None}, {"text": "나", "label": 1}]},
    ),
    # tables of text
    "pandas' index": Shape(
        text(
            "a.csv",
            "".join(f"{n},{line}\n" for n, line in zip(["", 0, 1, 2, 3], csv_of(ROWS).splitlines(), strict=True)),
        ),
        {"train": ROWS},
        ("index",),
    ),
    "pandas' index of another name": Shape(
        text("a.csv", "Unnamed: 0,text,label\n0,가,1\n1,나,0\n"),
        {"train": [{"text": "가", "label": "1"}, {"text": "나", "label": "0"}]},
        ("index",),
    ),
    "texts without a name": Shape(text("a.csv", ",label\n좋다,1\n"), refused=("이름이 빈 열",)),
    "empty columns at the end": Shape(
        text("a.csv", "text,label,,\n" + "".join(f"{r['text']},{r['label']},,\n" for r in ROWS)),
        {"train": ROWS},
        ("마지막 열 2개",),
    ),
    "a value in a nameless column": Shape(
        text("a.csv", "text,label,,\n좋다,1,,\n나쁘다,0,,메모\n"),
        refused=("이름이 빈 열에 값이 있습니다: 메모", "3번째 줄"),
    ),
    "a title above the names": Shape(
        text("a.csv", "2024년 고객 리뷰,,\n,,\n번호,리뷰,감정\n1,좋다,긍정\n"),
        refused=("제목으로 보입니다: 2024년 고객 리뷰", "1번째 줄"),
    ),
    "a title without separators": Shape(
        text("a.csv", "고객 리뷰\n\n리뷰,감정\n좋다,긍정\n나쁘다,부정\n"), refused=("제목으로 보입니다: 고객 리뷰",)
    ),
    "commas of one column that are not quoted": Shape(
        text("a.csv", "text\n안녕, 반가워\n좋다\n"), refused=("열이 1개여야 하는데 2개입니다", "2번째 줄")
    ),
    "a comma in each row of one column": Shape(
        text("a.csv", "text\n안녕, 반가워\n그래, 좋아\n"), refused=("그 값을 큰따옴표로 감싸세요", "1번째 줄")
    ),
    "separators at the end of rows": Shape(text("a.csv", csv_of(ROWS).replace("정\n", "정,\n")), {"train": ROWS}),
    "Excel's sep= line": Shape(text("a.csv", "sep=;\n" + csv_of(ROWS, ";")), {"train": ROWS}, ("sep=;", "1번째 줄")),
    "Excel's sep= line, tabs": Shape(
        text("a.csv", "\ufeffsep=\t\r\n" + csv_of(ROWS, "\t")), {"train": ROWS}, ("sep=",)
    ),
    "a ragged line below sep=": Shape(text("a.csv", "sep=;\ntext;label\n좋다;1\n나쁘다\n"), refused=("4번째 줄",)),
    "TSV that a program quoted": Shape(
        text("a.tsv", csv_of([{**row, "text": '"' + row["text"].replace('"', '""') + '"'} for row in QUOTED], "\t")),
        {"train": QUOTED},
        ("큰따옴표",),
    ),
    "TSV with every value quoted": Shape(
        text("a.tsv", '"text"\t"label"\n"좋다"\t"1"\n"나쁘다"\t"0"\n'),
        {"train": [{"text": "좋다", "label": "1"}, {"text": "나쁘다", "label": "0"}]},
        ("큰따옴표",),
    ),
    "TSV with lines in quotes": Shape(
        text("a.tsv", 'text\tlabel\n"첫 줄\n둘째 줄"\t긍정\n한 줄\t부정\n'), {"train": TWO_LINES}, ("큰따옴표",)
    ),
    "TSV with bare quotes": Shape(text("a.tsv", csv_of(BARE, "\t")), {"train": BARE}),
    "TSV with quotes around some texts": Shape(
        text("a.tsv", 'text\tlabel\n"좋다"\t긍정\n나쁘다\t부정\n'),
        {"train": [{"text": '"좋다"', "label": "긍정"}, {"text": "나쁘다", "label": "부정"}]},
    ),
    "TSV with quotes over lines": Shape(
        text("a.tsv", 'label\ttext\n긍정\t"좋다\n부정\t나쁘다"\n'),
        {"train": [{"label": "긍정", "text": '"좋다'}, {"label": "부정", "text": '나쁘다"'}]},
    ),
    # tables as JSON
    "to_json of pandas": Shape(
        document({column: {str(n): row[column] for n, row in enumerate(ROWS)} for column in ROWS[0]}), {"train": ROWS}
    ),
    "to_json by index": Shape(document({str(n): row for n, row in enumerate(ROWS)}), {"train": ROWS}),
    "to_json table": Shape(
        document({"schema": {"fields": [{"name": "text"}], "pandas_version": "1.4.0"}, "data": ROWS}), {"train": ROWS}
    ),
    "to_json split": Shape(
        document({"columns": list(ROWS[0]), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]}),
        {"train": ROWS},
    ),
    "to_json split, ragged": Shape(
        document({"columns": ["text", "label"], "data": [["가", 1], ["나"]]}), refused=("2개여야", "2번째 항목")
    ),
    "a list a column": Shape(document({column: [row[column] for row in ROWS] for column in ROWS[0]}), {"train": ROWS}),
    "lists of different lengths": Shape(
        document({"text": ["가", "나"], "label": [1]}), refused=("값의 수가 다릅니다", "text 2개, label 1개")
    ),
    "rows beside a short list": Shape(document({"version": ["1.0"], "data": ROWS}), {"train": ROWS}),
    # languages and tags
    "translation structs": Shape(document(TRANSLATED), {"train": PLAIN}, ("en, ko",)),
    "CoNLL with spaces": Shape(text("train.conll", CONLL), {"train": TAGGED * 3}),
    "CoNLL-2003": Shape(
        text("train.txt", "-DOCSTART- -X- -X- O\n\n" + CONLL.replace(" ", " NNG X ")),
        {"train": TAGGED * 3},
        ("열 4개",),
    ),
    "CoNLL, a ragged line": Shape(text("train.conll", CONLL * 9 + "\n한 단어 O\n"), refused=("둘이어야", "3개")),
    "BIOES": Shape(
        text("train.txt", CONLL.replace("I-PS", "E-PS").replace("B-LC", "S-LC")),
        {"train": TAGGED * 3},
        ("BIO로", "E-는 I-로", "S-는 B-로"),
    ),
    "BILOU in lists": Shape(
        document([{**TAGGED[0], "ner_tags": ["B-PS", "L-PS", "O"]}, {**TAGGED[1], "ner_tags": ["U-LC"]}]),
        {"train": TAGGED},
        ("BIO로",),
    ),
    "BIO is left as it is": Shape(text("train.txt", CONLL.replace(" ", "\t")), {"train": TAGGED * 3}),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_shape_is_read_or_refused(shape: Shape, tmp_path: Path) -> None:
    name = shape.write(tmp_path)
    where = str(tmp_path / name) if name else str(tmp_path)
    data = DataSettings.model_validate({"dataset_name": where, **dict(shape.settings)})
    if shape.refused:
        with pytest.raises(DataError) as error:
            {split: list(raw.rows) for split, raw in find_sources(data).items()}
        for words in shape.refused:
            assert words in str(error.value)
        return
    found = find_sources(data)
    assert {split: [dict(row) for row in raw.rows] for split, raw in found.items()} == shape.rows
    assert all(set(raw.columns) == set(next(iter(raw.rows))) for raw in found.values())
    told = " ".join(found["train"].notes)
    assert bool(told) == bool(shape.told)
    for words in shape.told:
        assert words in told


def test_class_names_are_part_of_the_key(tmp_path: Path) -> None:
    names_beside(tmp_path)
    data = DataSettings(dataset_name=str(tmp_path / "train.parquet"))
    before = find_sources(data)["train"].key
    information = tmp_path / "dataset_info.json"
    information.write_text(information.read_text(encoding="utf-8").replace("긍정", "좋음"), encoding="utf-8")
    assert find_sources(data)["train"].key != before


# --- files that settings name ---


def files_of(folder: Path) -> dict[str, str]:
    found = {}
    for number, split in enumerate(("train", "validation", "test"), 1):
        (folder / f"my_{number}.csv").write_text(csv_of(ROWS[:number]), encoding="utf-8")
        found[f"{split}_file"] = str(folder / f"my_{number}.csv")
    return found


def test_settings_name_the_file_of_a_split(tmp_path: Path) -> None:
    found = find_sources(DataSettings.model_validate(files_of(tmp_path)))
    assert {split: len(list(raw.rows)) for split, raw in found.items()} == {"train": 1, "validation": 2, "test": 3}


def test_a_named_file_stands_in_for_a_split_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text(csv_of(ROWS), encoding="utf-8")
    data = {"dataset_name": str(tmp_path / "data"), "test_file": files_of(tmp_path)["test_file"]}
    found = find_sources(DataSettings.model_validate(data))
    assert {split: len(list(raw.rows)) for split, raw in found.items()} == {"train": 4, "test": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset_name": "{folder}"}, "두 곳"),
        ({"train_file": "{folder}/no.csv"}, "data.train_file"),
        ({"test_file": "{folder}"}, "폴더입니다"),
        ({"revision": "main"}, "data.revision"),
    ],
)
def test_settings_that_contradict_files_are_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    changes = {key: value.format(folder=tmp_path) for key, value in changes.items()}
    data = DataSettings.model_validate({**files_of(tmp_path), **changes})
    with pytest.raises(FinetuningError, match=said):
        find_sources(data)
