"""Sets as AI Hub gives them: folders deep, raw and labelled files apart, a document in a file, and zip archives."""

from __future__ import annotations

import json
import os
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from exceptions import DataError
from finetuning.config.schema import DataSettings
from finetuning.data.sources import Raw, find_sources


def document(number: int) -> str:
    """A question with its answer, the only row of a file of AI Hub's."""
    return json.dumps(
        {"qa_id": number, "question": f"{number}번 기준은?", "answer": f"{number} mmHg"}, ensure_ascii=False
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8-sig")


class OfKoreanWindows(zipfile.ZipInfo):
    """A member whose name is in CP949, which its flags do not say."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("cp949"), self.flag_bits


class OfMacOS(zipfile.ZipInfo):
    """A member whose name is in UTF-8 and single letters, which its flags do not say."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return unicodedata.normalize("NFD", self.filename).encode(), self.flag_bits


def pack(path: Path, files: dict[str, str], kind: type[zipfile.ZipInfo] = zipfile.ZipInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(kind(name), content.encode("utf-8-sig"))
    return path


def read(path: Path, tmp_path: Path, **settings: Any) -> dict[str, Raw]:
    data = {"dataset_name": str(path), "dataset_cache_dir": str(tmp_path / "cache"), **settings}
    return find_sources(DataSettings.model_validate(data))


def numbers(raw: Raw) -> list[int]:
    return [row["qa_id"] for row in raw.rows]


def test_labelled_files_below_folders_of_splits_are_read(tmp_path: Path) -> None:
    home = tmp_path / "120.의학지식 학습용 데이터"
    write(home / "3.개방데이터" / "1.데이터", {
        "Training/01.원천데이터/TS_검증/1.json": '{"text": "원문"}',
        **{f"Training/02.라벨링데이터/TL_검증/{n}.json": document(n) for n in (1, 2)},
        "Training/02.라벨링데이터/TL_내과/깊은/3.json": document(3),
        "Training/02.라벨링데이터/설명.txt": "읽어 보세요",
        "Validation/02.라벨링데이터/VL_내과/4.json": document(4),
        "Other/안내.json": "{}",
    })  # fmt: skip
    found = read(home, tmp_path)
    assert {split: numbers(raw) for split, raw in found.items()} == {"train": [1, 2, 3], "validation": [4]}
    told = " ".join(found["train"].notes)
    assert (
        "train 3개, validation 1개" in told
        and "원천데이터의 파일 1개" in told
        and "split인지 알 수 없는 파일 1개" in told
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", [zipfile.ZipInfo, OfKoreanWindows, OfMacOS])
def test_archives_are_read_as_they_are_downloaded(tmp_path: Path, kind: type[zipfile.ZipInfo]) -> None:
    home = tmp_path / "set"
    (home / "1.Training" / "원천데이터").mkdir(parents=True)
    (home / "1.Training" / "원천데이터" / "TS1.zip").write_bytes(b"not looked into")
    pack(home / "1.Training" / "라벨링데이터" / "TL1.zip", {f"내과/{n}.json": document(n) for n in (2, 1)}, kind)
    pack(home / "2.Validation" / "라벨링데이터" / "VL1.zip", {"외과/3.json": document(3), "__MACOSX/._3.json": "?"})
    for _ in range(2):  # the second time they are unpacked already
        found = read(home, tmp_path)
        assert {split: numbers(raw) for split, raw in found.items()} == {"train": [1, 2], "validation": [3]}
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 2
    assert [path.parent.name for path in sorted((tmp_path / "cache").rglob("?.json"))].count("내과") == 2
    assert "unpacked" in " ".join(found["train"].notes)


def test_an_archive_beside_its_own_folder_is_not_read_twice(tmp_path: Path) -> None:
    pack(tmp_path / "set" / "Training" / "TL1.내과.zip", {"1.json": document(1)})
    write(tmp_path / "set" / "Training" / "TL1.내과", {"1.json": document(1)})
    assert numbers(read(tmp_path / "set", tmp_path)["train"]) == [1]


def test_splits_within_one_archive(tmp_path: Path) -> None:
    files = {"set/Training/1.json": document(1), "set/Validation/2.json": document(2)}
    found = read(pack(tmp_path / "Validation.zip", files), tmp_path)
    assert {split: numbers(raw) for split, raw in found.items()} == {"train": [1], "validation": [2]}
    found = read(pack(tmp_path / "one.zip", {"글.csv": "text,label\n좋다,1\n"}), tmp_path)
    assert [dict(row) for row in found["train"].rows] == [{"text": "좋다", "label": "1"}]


def test_documents_without_a_split_are_training_data(tmp_path: Path) -> None:
    write(tmp_path / "set", {f"문서/{n}.json": document(n) for n in range(3)})
    found = read(tmp_path / "set", tmp_path)
    assert {split: numbers(raw) for split, raw in found.items()} == {"train": [0, 1, 2]}
    labelled = {f"Sample/02.라벨링데이터/{n}.json": document(n) for n in range(3)}
    write(tmp_path / "sample", {"Sample/01.원천데이터/0.txt": "원문", **labelled})
    assert numbers(read(tmp_path / "sample", tmp_path)["train"]) == [0, 1, 2]
    write(tmp_path / "set", {"문서/목록.csv": "id\n1\n"})  # what is which is the user's to say
    with pytest.raises(DataError, match="찾지 못했습니다"):
        read(tmp_path / "set", tmp_path)


def test_documents_of_any_shape_are_read_by_the_path_to_their_rows(tmp_path: Path) -> None:
    shape = {"info": {"id": 7}, "Entities": [{"Thing": "이혼", "Topic": "가사"}, {"Thing": "위자료", "Topic": "가사"}]}
    write(tmp_path / "set", {f"Training/라벨링데이터/{n}.json": json.dumps(shape) for n in range(2)})
    found = read(tmp_path / "set", tmp_path, records="Entities[*]")
    assert [row["Thing"] for row in found["train"].rows] == ["이혼", "위자료"] * 2


def test_files_named_after_splits_are_read_as_before(tmp_path: Path) -> None:
    write(
        tmp_path / "set", {"train.csv": "text,label\n좋다,1\n", "문서/1.json": document(1), "문서/2.json": document(2)}
    )
    assert [dict(row) for row in read(tmp_path / "set", tmp_path)["train"].rows] == [{"text": "좋다", "label": "1"}]


def test_a_member_cannot_be_written_outside(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"../../train/1.json": document(1), "/train/2.json": document(2)})
    assert numbers(read(path, tmp_path)["train"]) == [1, 2]
    inside = tmp_path / "cache" / "unpacked"
    assert sorted(one for one in tmp_path.rglob("*.json")) == sorted(one for one in inside.rglob("*.json"))


def test_archives_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.zip", {"train/1.json": document(1) * 50}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[60:70] = b"0123456789"
    (tmp_path / "damaged.zip").write_bytes(damaged)
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    pack(tmp_path / "pictures.zip", {"1.png": "?"})
    for name, said in {
        "cut": "깨졌거나",
        "damaged": "깨졌거나",
        "locked": "암호",
        "pictures": "찾지 못했습니다",
    }.items():
        with pytest.raises(DataError, match=said) as error:
            read(tmp_path / f"{name}.zip", tmp_path)
        assert f"{name}.zip" in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.json"))


LABELS, RAW = "02.라벨링데이터", "01.원천데이터"
CELLS = "text,label\n좋다,1\n"


def test_names_of_macos_mean_what_they_say(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"학습/1.json": document(1), "검증/2.json": document(2)}, OfMacOS)
    assert {split: numbers(raw) for split, raw in read(path, tmp_path).items()} == {"train": [1], "validation": [2]}
    files = {f"Training/{LABELS}/1.json": document(1), f"Training/{RAW}/2.json": document(2)}
    write(tmp_path / "set", {unicodedata.normalize("NFD", name): content for name, content in files.items()})
    assert numbers(read(tmp_path / "set", tmp_path)["train"]) == [1]


def test_what_lies_at_the_top_wins_over_files_deep_below(tmp_path: Path) -> None:
    write(tmp_path / "set", {
        "test.csv": CELLS, "dev.csv": CELLS, "결과/2026/test_predictions.csv": "text,label\n예측,0\n",
        "models/run/dev_predictions.jsonl": '{"text": "예측", "label": "0"}',
    })  # fmt: skip
    found = read(tmp_path / "set", tmp_path)
    assert {split: [row["text"] for row in raw.rows] for split, raw in found.items()} == {
        "validation": ["좋다"], "test": ["좋다"],
    }  # fmt: skip


@pytest.mark.parametrize("cache", [".", "models/cache"])
def test_what_this_program_wrote_is_not_read_as_data(tmp_path: Path, cache: str) -> None:
    home = tmp_path / "set"
    pack(home / "Training.zip", {"1.json": document(1), "2.json": document(2)})
    write(home, {
        "models/run/settings.yaml": "model: {}", "models/run/summary.json": "{}",
        "models/run/train/3.json": document(3), "models/run/checkpoints/state.json": "{}",
        "models/group/sweep.json": "{}", "models/group/one/train/4.json": document(4),
    })  # fmt: skip
    for _ in range(2):  # the second time there is a cache
        found = read(home, tmp_path, dataset_cache_dir=str(home / cache))
        assert {split: numbers(raw) for split, raw in found.items()} == {"train": [1, 2]}
    assert list((home / cache / "unpacked").rglob("2.json"))


def test_tables_beside_json_are_told_or_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", {"x/Training/본문.csv": CELLS, "x/Training/라벨설명.json": '{"description": "?"}'})
    with pytest.raises(DataError, match="어느 것을 읽을지") as error:
        read(tmp_path / "a", tmp_path)
    assert "본문.csv" in str(error.value) and "라벨설명.json" in str(error.value)
    write(tmp_path / "b", {"x/Training/목록.csv": CELLS, **{f"x/Training/{n}.json": document(n) for n in (1, 2)}})
    found = read(tmp_path / "b", tmp_path)
    assert numbers(found["train"]) == [1, 2] and "다른 형식의 파일 1개(목록.csv 등)" in " ".join(found["train"].notes)
    write(tmp_path / "c", {f"x/Training/{LABELS}/목록.csv": CELLS, f"x/Training/{LABELS}/1.json": document(1)})
    assert numbers(read(tmp_path / "c", tmp_path)["train"]) == [1]


def test_what_is_missing_of_an_unpacked_archive_is_unpacked_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {f"train/{n}.json": document(n) for n in (1, 2, 3)})
    read(path, tmp_path)
    unpacked = {file.name: file for file in (tmp_path / "cache").rglob("*.json")}
    unpacked["2.json"].unlink()
    unpacked["3.json"].write_bytes(b"")
    assert numbers(read(path, tmp_path)["train"]) == [1, 2, 3]
    assert not list((tmp_path / "cache").rglob("*.partial-*"))


def test_an_archive_counts_as_used_when_it_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"train/1.json": document(1)})
    read(path, tmp_path)
    (folder,) = (tmp_path / "cache" / "unpacked").iterdir()
    os.utime(folder, (1, 1))
    read(path, tmp_path)
    assert folder.stat().st_mtime > 1


def test_raw_texts_in_an_archive_are_not_unpacked(tmp_path: Path) -> None:
    files = {f"{LABELS}/1.json": document(1), f"{RAW}/1.txt": "원문", f"{RAW}/2.json": document(2)}
    for path in (pack(tmp_path / "Training" / "all.zip", files).parent, pack(tmp_path / "one.zip", files)):
        found = read(path if path.is_file() else tmp_path, tmp_path)
        assert numbers(found["train"]) == [1] and "원천데이터의 파일 2개" in " ".join(found["train"].notes)
        path.unlink() if path.is_file() else (path / "all.zip").unlink()
    assert [file.name for file in (tmp_path / "cache").rglob("*.*") if file.is_file()].count("1.json") >= 1
    assert not list((tmp_path / "cache").rglob("*.txt")) and not list((tmp_path / "cache").rglob("2.json"))


def test_every_member_has_a_name_of_its_own_that_a_disk_takes(tmp_path: Path) -> None:
    long = "가" * 100
    path = pack(tmp_path / "a.zip", {
        "train/a:1.json": document(1), "train/a?1.json": document(2), f"train/{long}1.json": document(3),
        f"train/{long}2.json": document(4), "train/B.json": document(5), "train/b.json": document(6),
        f"train/{long}/7.json": document(7),
    })  # fmt: skip
    assert sorted(numbers(read(path, tmp_path)["train"])) == [1, 2, 3, 4, 5, 6, 7]
    assert len({str(file).casefold() for file in (tmp_path / "cache").rglob("*.json")}) == 7


def test_an_archive_far_smaller_than_its_files_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"train/1.json": " " * 5_000_000})
    packed = bytearray(path.read_bytes())
    at = packed.index(b"PK\x01\x02") + 24  # the size in the archive's directory
    packed[at : at + 4] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"3\.0 GiB"):
        read(path, tmp_path)
    assert not (tmp_path / "cache").exists()


def test_an_archive_without_a_split_names_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="어느 split인지 알 수 없습니다") as error:
        read(pack(tmp_path / "a.zip", {"글/가.csv": CELLS, "글/나.csv": CELLS}), tmp_path)
    assert "글/가.csv, 글/나.csv" in str(error.value) and "train, validation, test" in error.value.remedy
