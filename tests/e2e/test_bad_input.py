"""Bad input: one Korean message that says what, where and what to do, the right exit code, and nothing half-made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, Run
from tests.support.paths import ROOT


def check_told(run: Run, code: int, output_dir: Path, *said: str) -> None:
    assert run.code == code, run.err
    assert "오류:" in run.err
    assert "해결:" in run.err
    assert "Traceback" not in run.err
    for words in said:
        assert words in run.err
    assert not output_dir.exists()


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


GOOD = "text,label\n" + "".join(f"좋은 영화 {n},{n % 2}\n" for n in range(20))
DATA: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "a missing column": ({"train": GOOD}, ["--label_column", "감정"], ["'감정' 열이 없습니다", "text, label"]),
    "a label that is the text": ({"train": GOOD}, ["--text_column", "label"], ["텍스트와 라벨이 같은 열", "label"]),
    "two columns that would fit": (
        {"train": "문장,리뷰,label\n" + "".join(f"제목 {n},좋은 영화 {n},{n % 2}\n" for n in range(20))},
        [],
        ["후보가 여럿", "문장, 리뷰"],
    ),
    "an empty file": ({"train": ""}, [], ["빈 파일"]),
    "only a header": ({"train": "text,label\n"}, [], ["빈"]),
    "a ragged row": ({"train": GOOD + "하나뿐\n"}, [], ["22번째 줄", "2개여야"]),
    "a label of test alone": ({"train": GOOD, "test": "text,label\n좋다,7\n"}, [], ["7", "test.csv", "1번째 행"]),
    "texts that are numbers": (
        {"train": "text,label\n" + "".join(f"{n},{n % 2}\n" for n in range(20))}, [], ["숫자", "text_column"],
    ),
    "one label alone": ({"train": GOOD.replace(",0\n", ",1\n")}, [], ["한 가지뿐"]),
    "too many empty rows": ({"train": GOOD + ",1\n,0\n"}, [], ["빈 텍스트 2행", "21, 22번째", "max_bad_rows"]),
    "no training file": ({"test": GOOD}, [], ["학습(train) 데이터가 없습니다"]),
    "two training files": ({"train": GOOD, "my_train": GOOD}, [], ["my_train.csv", "train.csv"]),
}  # fmt: skip


@pytest.mark.parametrize(("files", "flags", "said"), DATA.values(), ids=DATA)
def test_bad_data(
    cli: Cli, tiny_model: Path, tmp_path: Path, files: dict[str, str], flags: list[str], said: list[str]
) -> None:
    data, output_dir = write(tmp_path / "data", **files), tmp_path / "out" / "model"
    run = cli(
        "--model_name", tiny_model, "--dataset", data, "--output_dir", output_dir, *flags,
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    check_told(run, 3, output_dir, *said)


def test_a_missing_file_and_a_dataset_that_cannot_be_reached(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    output_dir = tmp_path / "model"
    missing = cli("--model_name", tiny_model, "--dataset", "./no/train.csv", "--output_dir", output_dir)
    check_told(missing, 3, output_dir, "데이터 파일이 없습니다", "./no/train.csv")
    offline = cli("--model_name", tiny_model, "--dataset", "imdb", "--output_dir", output_dir)
    check_told(offline, 3, output_dir, "연결할 수 없고", "quickstart.yaml")


def test_unavailable_models_are_reported(cli: Cli, reviews: Path, tmp_path: Path) -> None:
    output_dir = tmp_path / "model"
    offline = cli("--model_name", "klue/roberta-base", "--dataset", reviews, "--output_dir", output_dir)
    check_told(offline, 4, output_dir, "연결할 수 없고", "quickstart.yaml")
    missing = cli("--model_name", "./no/model", "--dataset", reviews, "--output_dir", output_dir)
    check_told(missing, 4, output_dir, "모델 폴더가 없습니다")
    empty = cli("--model_name", tmp_path, "--dataset", reviews, "--output_dir", output_dir)
    check_told(empty, 4, output_dir, "config.json")


@pytest.mark.parametrize("damage", ["truncated weights", "not a config"])
def test_a_broken_model(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    broken, output_dir = tmp_path / "broken", tmp_path / "out" / "model"
    shutil.copytree(tiny_model, broken)
    if damage == "truncated weights":
        (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    else:
        (broken / "config.json").write_text("{")
    run = cli("--model_name", broken, "--dataset", reviews, "--output_dir", output_dir)
    check_told(run, 4, output_dir, "broken")


def test_an_output_folder_that_cannot_be_written(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    output_dir = tmp_path / "file" / "model"
    run = cli("--model_name", tiny_model, "--dataset", reviews, "--output_dir", output_dir)
    assert run.code == 5
    assert "output_dir" in run.err
    assert "Traceback" not in run.err


SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "an unknown flag": (["--learning_rat", "1"], ["--learning_rat", "혹시 --learning_rate입니까?"]),
    "a flag without its value": (["--epochs"], ["--epochs", "값"]),
    "a flag out of range": (["--epochs", "0"], ["--epochs", "training.epochs", "1 이상"]),
    "an unknown setting": (["--set", "training.epoch=1"], ["training.epochs"]),
    "a missing file": (["--config", "no.yaml"], ["no.yaml", "없습니다"]),
    "an unknown command": (["tarin"], ["tarin", "혹시 train입니까?"]),
}


@pytest.mark.parametrize(("flags", "said"), SETTINGS.values(), ids=SETTINGS)
def test_wrong_settings_are_refused_before_anything_heavy(cli: Cli, flags: list[str], said: list[str]) -> None:
    run = cli(*flags)
    assert run.code == 2
    assert "Traceback" not in run.err
    for words in said:
        assert words in run.err


def test_an_unknown_task_is_refused(cli: Cli) -> None:
    run = cli("--task", "text-clasification")
    assert run.code == 2
    assert "text-classification" in run.err


@pytest.mark.parametrize("arguments", [["--help"], ["--epochs", "0"]])
def test_help_and_refusals_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, finetuning_app\n"
        "try:\n    finetuning_app.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'accelerate', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_evaluate_before_training_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "첫 모델").mkdir()
    run = cli("evaluate", "--output_dir", tmp_path / "첫모델")
    assert run.code == 4
    assert "아직 저장된 모델이 없습니다" in run.err
    assert f"혹시 {tmp_path / '첫 모델'}입니까?" in run.err


def hub_error(name: str) -> Exception:
    """An OSError as transformers raises it over an error of the Hub's client."""
    from huggingface_hub import errors

    kind: Any = getattr(errors, name)
    outer = OSError("no such thing")
    outer.__cause__ = kind.__new__(kind)
    return outer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GatedRepoError", "로그인"),
        ("RepositoryNotFoundError", "그런 모델이 없습니다"),
        ("OfflineModeIsEnabled", "연결할 수 없고"),
    ],
)
def test_errors_of_the_hub_are_distinguished(name: str, said: str) -> None:
    from finetuning.config.schema import Settings
    from finetuning.models.errors import explain

    assert said in str(explain(hub_error(name), "모델", "someone/model", Settings(), "text-classification"))
