"""sweep and train --seeds: a run for each combination, resumable, with one table; real runs are few here."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from exceptions import FinetuningError, SettingsError, StopRequested
from finetuning.commands import run_group as group_of_runs
from finetuning.commands import seeds, sweep
from finetuning.commands.command_line import build_parser
from finetuning.config.metadata import fields_of
from finetuning.config.schema import Settings
from finetuning_app import read_settings
from tests.support.cli import Cli, arguments_for
from tests.support.forked import run_forked, stop_at
from tests.support.paths import ROOT
from tests.support.summaries import values_in, write_finished, write_stopped

Launch = Callable[[Sequence[str]], int]
GRID = ["--set", "training.learning_rate=1e-5,3e-5", "--set", "training.epochs=2,3"]


def run_group(module: ModuleType, words: Sequence[str], launch: Launch) -> None:
    """What the program does with a command line, with another way to start the runs."""
    arguments = build_parser().parse_args(list(words))
    module.run(arguments, read_settings(arguments), launch)


class Trainer:
    """Writes what a run leaves, without training, and keeps the command lines."""

    def __init__(
        self, validation: Callable[[float], float] = lambda rate: rate * 1e4, codes: Sequence[int] = ()
    ) -> None:
        self.validation, self.codes = validation, list(codes)
        self.commands: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> int:
        self.commands.append(list(words))
        code = self.codes.pop(0) if self.codes else 0
        if code == 0:
            folder = Path(words[words.index("--output_dir") + 1])
            score = self.validation(float(values_in(list(words)).get("training.learning_rate", "1e-5")))
            write_finished(folder, best_validation_accuracy=score)
            (folder / "checkpoints" / "step-00000120").mkdir(parents=True, exist_ok=True)
            (folder / "checkpoints" / "step-00000120" / "model.safetensors").write_bytes(b"0" * 2**20)
        return code


def names_in(commands: Sequence[Sequence[str]]) -> list[str]:
    return [Path(words[words.index("--output_dir") + 1]).name for words in commands]


def test_each_combination_is_trained_once_and_the_best_of_validation_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer()
    words = ["sweep", *GRID, "--dataset", "a.csv", "--seed", "7", "--output_dir", str(tmp_path / "s")]
    run_group(sweep, words, trainer)
    assert names_in(trainer.commands) == [
        "learning_rate=1e-5,epochs=2", "learning_rate=1e-5,epochs=3", "learning_rate=3e-5,epochs=2",
        "learning_rate=3e-5,epochs=3",
    ]  # fmt: skip
    first = trainer.commands[0]
    assert first[:5] == ["train", "--dataset", "a.csv", "--seed", "7"] and "--resume" not in first
    assert not list((tmp_path / "s").glob("*/checkpoints"))
    shown = capsys.readouterr()
    assert "가장 좋은 학습 (검증 정확도 0.3000): learning_rate=3e-5,epochs=2" in shown.out
    assert "predict --output_dir" in shown.out
    assert "체크포인트 4.0 MiB는 지우고" in shown.out
    # again, with one value more: what is finished is left alone
    run_group(sweep, [word.replace("1e-5,3e-5", "1e-5,3e-5,5e-5") for word in words], trainer)
    assert names_in(trainer.commands[4:]) == ["learning_rate=5e-5,epochs=2", "learning_rate=5e-5,epochs=3"]
    assert "가장 좋은 학습 (검증 정확도 0.5000)" in capsys.readouterr().out


def test_a_stopped_run_is_resumed_and_the_others_begin(tmp_path: Path) -> None:
    words = ["sweep", *GRID, "--output_dir", str(tmp_path), "--keep_checkpoints"]

    def stop_in_the_second(command: Sequence[str]) -> int:
        if stopping.commands:
            write_stopped(Path(command[command.index("--output_dir") + 1]), step=5)
            raise StopRequested(signal.SIGINT)
        return stopping(command)

    stopping, trainer = Trainer(), Trainer()
    with pytest.raises(StopRequested):
        run_group(sweep, words, stop_in_the_second)
    run_group(sweep, [*words, "--resume"], trainer)
    assert ["--resume" in command for command in trainer.commands] == [True, False, False]
    assert len(list(tmp_path.glob("*/checkpoints/step-00000120/model.safetensors"))) == 4


def test_failing_runs_are_in_the_table_and_in_the_exit_code_and_are_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", *GRID, "--output_dir", str(tmp_path)]
    with pytest.raises(FinetuningError, match="4개 가운데 2개가 실패") as error:
        run_group(sweep, words, Trainer(codes=[0, 3, 0, -9]))
    assert error.value.exit_code == 3
    shown = capsys.readouterr().out
    assert "실패: 데이터 오류" in shown and "강제 종료됨" in shown and "가장 좋은 학습" in shown
    again = Trainer()
    run_group(sweep, words, again)
    assert names_in(again.commands) == ["learning_rate=1e-5,epochs=3", "learning_rate=3e-5,epochs=3"]


def test_a_dry_look_lists_the_runs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output_dir, trainer = tmp_path / "s", Trainer()
    run_group(sweep, ["sweep", *GRID, "--output_dir", str(output_dir), "--dry_run"], trainer)
    shown = capsys.readouterr().out
    assert "학습 4개" in shown and "learning_rate=3e-5,epochs=2 (새로 학습)" in shown
    assert not trainer.commands and not output_dir.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep"], "바꿔 볼 값이 없습니다"),
        (["sweep", "--set", "training.learning_rate=1e-5..5e-5"], "몇 번 시도할지"),
        (["sweep", "--set", "model.output_dir=a,b"], "값을 하나만"),
        (["sweep", "--set", "training.epochs=2,-3"], "-3"),
        (["train", "--seeds", "1"], "2 이상"),
        (["train", "--seeds", "2", "--checkpoint_path", "x"], "함께 쓸 수 없습니다"),
        (["train", "--dry_run"], "여러 번 학습할 때만"),
        (["evaluate", "--trials", "3"], "--trials 플래그는"),
    ],
)
def test_a_command_line_that_cannot_be_run_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        run_group(seeds if "--seeds" in words else sweep, words, Trainer())
    assert said in str(error.value)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    words = ["sweep", *GRID, "--output_dir", str(tmp_path)]
    run_group(sweep, words, Trainer())
    with pytest.raises(SettingsError, match=r"data\.dataset_name imdb → b\.csv"):
        run_group(sweep, [*words, "--dataset", "b.csv"], Trainer())
    run_group(sweep, [*words, "--set", "logging.log_steps=1"], Trainer())  # no result depends on it
    with pytest.raises(SettingsError, match="이미 다른 학습"):
        run_group(sweep, [*words[:-1], str(tmp_path / "learning_rate=1e-5,epochs=2")], Trainer())


def test_a_setting_that_is_newer_than_the_folder_trains_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = "training.label_smoothing"
    words, trainer = ["sweep", *GRID, "--output_dir", str(tmp_path)], Trainer()
    with monkeypatch.context() as earlier:
        older = [field for field in fields_of(Settings) if field.key != newer]
        earlier.setattr(group_of_runs, "fields_of", lambda section: older)
        run_group(sweep, words, trainer)
    run_group(sweep, words, trainer)
    assert len(trainer.commands) == 4
    with pytest.raises(SettingsError, match=r"training\.label_smoothing 0\.0 → 0\.1"):
        run_group(sweep, [*words, "--set", f"{newer}=0.1"], trainer)
    run_group(sweep, [*words, "--set", f"{newer}=0.0,0.1"], trainer)
    assert len(trainer.commands) == 8


def test_a_search_goes_on_as_if_it_was_never_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    words = ["sweep", "--set", "training.learning_rate=1e-6..1e-3", "--set", "data.batch_size=8,16", "--output_dir"]

    def peak(rate: float) -> float:
        return 1 - abs(rate - 5e-5)

    whole, halves, rest = Trainer(peak), Trainer(peak), Trainer(peak)
    run_group(sweep, [*words, str(tmp_path / "whole"), "--trials", "14"], whole)
    run_group(sweep, [*words, str(tmp_path / "halves"), "--trials", "6"], halves)
    run_group(sweep, [*words, str(tmp_path / "halves"), "--trials", "14"], rest)
    tried = names_in(whole.commands)
    assert len(set(tried)) == 14
    assert names_in(halves.commands) + names_in(rest.commands) == tried
    rates = [float(values_in(command)["training.learning_rate"]) for command in whole.commands]
    assert all(1e-6 <= rate <= 1e-3 for rate in rates)
    assert "가장 좋은 학습" in capsys.readouterr().out


def test_seeds_have_one_table_with_mean_and_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([0.7, 0.8, 0.9])

    def launch(words: Sequence[str]) -> int:
        score = next(scores)
        write_finished(
            Path(words[words.index("--output_dir") + 1]), best_validation_accuracy=score, test={"accuracy": score},
            quality=None,
        )  # fmt: skip
        return 0

    run_group(seeds, ["train", "--seeds", "3", "--seed", "5", "--output_dir", str(tmp_path)], launch)
    assert sorted(path.parent.name for path in tmp_path.glob("*/summary.json")) == ["seed=5", "seed=6", "seed=7"]
    shown = capsys.readouterr().out
    assert "test 정확도: 평균 0.8000 ± 0.1000 (시드 3개, 최저 0.7000, 최고 0.9000)" in shown
    assert "시드만 바꿔도" in shown


@pytest.fixture(scope="module")
def real_sweep(
    tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, FinetuningError]:
    """Two seeds and two columns, one of which is not there, really trained, one step each."""
    folder = tmp_path_factory.mktemp("sweep") / "s"
    words = [
        "sweep", *arguments_for(tiny_model, reviews, folder, "--epochs", "1"), "--batch_size", "40",
        "--set", "training.seed=1,2", "--set", "data.text_column=text,absent",
    ]  # fmt: skip
    with pytest.raises(FinetuningError) as error:
        run_group(sweep, words, lambda words: run_forked(words, ROOT, "", 300)[0])
    return folder, error.value


def test_real_runs_of_a_sweep_share_their_data_and_differ_in_what_is_varied(
    real_sweep: tuple[Path, FinetuningError], cli: Cli
) -> None:
    folder, error = real_sweep
    assert error.exit_code == 3 and "2개가 실패" in error.what
    good = [folder / f"seed={seed},text_column=text" for seed in (1, 2)]
    summaries = [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in good]
    assert [summary["seed"] for summary in summaries] == [1, 2]
    assert not any((run / "checkpoints").exists() for run in good)
    assert (good[0] / "model.safetensors").read_bytes() != (good[1] / "model.safetensors").read_bytes()
    shown = cli("runs", folder.parent)
    assert shown.code == 0 and f"{folder.name}/seed=1,text_column=text" in shown.out


def test_a_stop_saves_the_run_and_prints_the_command_that_goes_on(
    tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    words = [
        "sweep", *arguments_for(tiny_model, reviews, tmp_path / "s", "--epochs", "40"), "--log_level", "INFO",
        "--set", "training.seed=1,2",
    ]  # fmt: skip
    code, log = stop_at(words, "epoch 1/40", signal.SIGINT)
    assert code == 130, log
    assert log.rstrip().splitlines()[-1].endswith("--resume") and " sweep " in log.rstrip().splitlines()[-1]
    assert (tmp_path / "s" / "seed=1").is_dir() and not (tmp_path / "s" / "seed=2").exists()
    assert list((tmp_path / "s" / "seed=1" / "checkpoints").iterdir())


class KlueTrainer:
    """Writes what a run of each recipe leaves, without training."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.commands = failing, list[list[str]]()

    def __call__(self, words: Sequence[str]) -> int:
        self.commands.append(list(words))
        recipe = words[words.index("--recipe") + 1]
        if recipe == self.failing:
            return 4
        metrics = {"macro_f1": 0.86, "accuracy": 0.87} if recipe == "klue-ynat" else {"loss": 0.1}
        write_finished(Path(words[words.index("--output_dir") + 1]), test=metrics)
        return 0


def test_a_list_of_recipes_is_trained_one_by_one_beside_the_published_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = KlueTrainer(failing="klue-nli")
    words = ["sweep", "--recipe", "klue", "--dataset", str(tmp_path / "klue"), "--model_name", "my/encoder",
             "--output_dir", str(tmp_path / "out"), "--batch_size", "8"]  # fmt: skip
    with pytest.raises(FinetuningError) as failed:
        run_group(sweep, words, trainer)
    assert failed.value.exit_code == 4
    recipes = [words[words.index("--recipe") + 1] for words in trainer.commands]
    assert recipes == names_in(trainer.commands) and len(recipes) == 8
    first, last = trainer.commands[0], trainer.commands[-1]
    assert first[first.index("--dataset") + 1] == str(tmp_path / "klue" / "ynat-v1.1")
    assert first[first.index("--model_name") + 1] == "my/encoder" and "--model_name" not in last
    assert first.count("--recipe") == first.count("--dataset") == 1 and first[first.index("--batch_size") + 1] == "8"
    table = capsys.readouterr().out
    assert re.search(r"klue-ynat.*macro-F1.*0\.8600.*0\.8507.*\+0\.0093", table)
    assert re.search(r"klue-nli.*0\.8483.*실패: 모델 오류", table)
    trainer.failing = ""
    run_group(sweep, words, trainer)
    assert [words[words.index("--recipe") + 1] for words in trainer.commands[8:]] == ["klue-nli"]


@pytest.mark.parametrize("name", ["klue", "klue/klue"])
def test_a_list_of_recipes_is_read_from_the_hub_by_configuration(tmp_path: Path, name: str) -> None:
    trainer = KlueTrainer()
    run_group(sweep, ["sweep", "--recipe", "klue", "--dataset", name, "--output_dir", str(tmp_path)], trainer)
    asked = [[words[words.index(flag) + 1] for flag in ("--dataset", "--dataset_config")] for words in trainer.commands]
    assert asked == [[name, config] for config in ("ynat", "sts", "nli", "ner", "re", "dp", "mrc", "wos")]


def test_a_list_of_recipes_is_for_sweep_alone_and_varies_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        build_parser().parse_args(["train", "--recipe", "klue"])
    assert "sweep --recipe klue" in error.value.remedy
    with pytest.raises(SettingsError, match="값을 나열할 수 없습니다"):
        run_group(sweep, ["sweep", "--recipe", "klue", "--output_dir", str(tmp_path), *GRID], KlueTrainer())
    with pytest.raises(SettingsError, match="레시피마다 정해져") as refused:
        words = ["sweep", "--recipe", "klue", "--dataset_config", "ynat", "--output_dir", str(tmp_path)]
        run_group(sweep, words, KlueTrainer())
    assert "--dataset_config" in refused.value.where
