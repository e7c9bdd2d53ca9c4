"""`training.preset`, `--recipe` and `plan`'s advice through the commands: what wins, what is kept, what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from exceptions import SettingsError
from finetuning.config.recipes import recipe_path
from finetuning_app import build_parser
from tests.support.cli import Cli, read_json
from tests.support.planning import prepared_for
from tests.support.runs import StopAfter, check_resumed_is_whole

AUTO = ("--set", "training.preset=auto")


@pytest.fixture
def flags(tiny_model: Path, reviews: Path, tmp_path: Path) -> list[str]:
    return ["--model_name", str(tiny_model), "--dataset", str(reviews), "--max_length", "48",
            "--set", "logging.progress_bar=false", "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}"]  # fmt: skip


def test_flags_and_the_users_file_win_over_the_preset_and_each_value_has_its_origin(
    flags: list[str], tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("training:\n  warmup_ratio: 0.3\n", encoding="utf-8")
    prepared, _, _ = prepared_for([*flags, *AUTO, "--config", str(own), "--learning_rate", "1e-3"])
    settings, origins = prepared.session.settings, prepared.session.origins
    assert (settings.training.warmup_ratio, settings.training.learning_rate) == (0.3, 1e-3)
    assert (settings.data.batch_size, settings.training.epochs) == (16, 20)  # 72 rows: as many steps as there may be
    assert origins.of(settings, "training.learning_rate") == "명령줄"
    assert origins.of(settings, "training.warmup_ratio") == "own.yaml"
    assert origins.of(settings, "training.epochs") == "preset" and "400스텝" in origins.preset["training.epochs"]
    assert origins.preset["training.lr_scheduler"].startswith("KLUE-baseline")
    assert "  preset의 lr_scheduler: KLUE-baseline" in "\n".join(origins.lines(settings))
    assert origins.of(settings, "training.weight_decay") == "기본값"


def test_without_it_nothing_is_chosen(flags: list[str]) -> None:
    prepared, _, _ = prepared_for(flags)
    assert prepared.session.settings.training.learning_rate == 2e-5 and not prepared.preset


def test_lora_has_its_own_rate(flags: list[str]) -> None:
    prepared, _, _ = prepared_for([*flags, *AUTO, "--set", "model.adapter.method=lora"])
    assert prepared.session.settings.training.learning_rate == 5e-4


def test_a_resumed_run_has_the_values_of_the_first_and_settings_yaml_holds_them(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    check_resumed_is_whole([*flags, *AUTO, "--epochs", "2"], StopAfter(looks=3), tmp_path)
    saved = yaml.safe_load((tmp_path / "halved" / "model" / "settings.yaml").read_text(encoding="utf-8"))
    assert saved["training"]["learning_rate"] == 5e-5 and saved["training"]["warmup_ratio"] == 0.1
    assert saved["training"]["preset"] == "auto" and saved["memory"]["gradient_accumulation_steps"] == 1


def test_recipes_are_found_by_name() -> None:
    parse: Callable[[list[str]], object] = build_parser().parse_args
    assert build_parser().parse_args(["--recipe", "nsmc"]).config == recipe_path("nsmc.yaml")
    with pytest.raises(SettingsError, match="'nmsc' 레시피가 없습니다") as error:
        parse(["--recipe", "nmsc"])
    assert "혹시 nsmc입니까?" in error.value.remedy and "klue-ner" in error.value.remedy
    with pytest.raises(SettingsError, match="함께 쓸 수 없습니다"):
        parse(["--recipe", "nsmc", "--config", "own.yaml"])


def test_plan_says_where_values_come_from_and_what_to_change(cli: Cli, flags: list[str]) -> None:
    run = cli("plan", *flags, "--set", "model.adapter.method=lora", "--time")
    assert run.code == 0, run.err
    assert "training.learning_rate: 2e-5 (기본값)" in run.out and "model.adapter.method: lora (명령줄)" in run.out
    assert "로만 예측하면 0.5000입니다" in run.out
    assert "스텝뿐입니다" in run.out and "--set training.preset=auto를 붙이면" in run.out
    assert "LoRA에 흔히 쓰는 0.0005의 25분의 1입니다" in run.out
    assert "예상 시간: 학습 " in run.out
    assert "--time" not in run.err.partition("이 설정으로 학습하기")[2], "train has no such flag"


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"]])
def test_plan_for_several_processes_ends_with_the_launcher_that_starts_them(
    cli: Cli, flags: list[str], given: list[str]
) -> None:
    run = cli(*given, "plan", *flags)
    assert run.code == 0, run.err
    assert "프로세스 2개일 때" in run.out and "distributed.shard: full" in run.out
    said = run.err.partition("이 설정으로 학습하기")[2]
    assert "torchrun --nproc_per_node 2 " in said and "--processes" not in said and " plan" not in said


def test_plan_says_which_way_of_dividing_a_run_would_refuse(cli: Cli, flags: list[str]) -> None:
    run = cli("plan", "--processes", "2", *flags, "--set", "training.optimizer=adafactor")
    assert run.code == 0, run.err
    (whole,) = (line for line in run.out.splitlines() if "distributed.shard: none" in line)
    (divided,) = (line for line in run.out.splitlines() if "distributed.shard: full" in line)
    assert "GiB" in whole
    assert "GiB" not in divided and "training.optimizer: adafactor 설정을 쓸 수 없습니다" in divided


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (
            "text-generation",
            ("neftune_alpha=5", "label_smoothing=0.1", "layerwise_lr_decay=0.9", "lr_scheduler=warmup_stable_decay"),
        ),
        ("token-classification", ("class_weights=balanced", "lr_scheduler=cosine_with_min_lr", "warmup_ratio=0.2")),
    ],
)
def test_noise_weights_and_schedules_are_those_of_a_run_that_was_never_stopped(
    flags_for: Callable[[str], list[str]], tmp_path: Path, task: str, settings: tuple[str, ...]
) -> None:
    flags = [*flags_for(task), *(word for setting in settings for word in ("--set", f"training.{setting}"))]
    check_resumed_is_whole(flags, StopAfter(looks=2), tmp_path)
    saved = yaml.safe_load((tmp_path / "halved" / "model" / "settings.yaml").read_text(encoding="utf-8"))["training"]
    if task == "token-classification":
        assert set(saved["class_weights"]) == {"O", "B-PS"} and saved["class_weights"]["B-PS"] > 1
    else:
        summary = read_json(tmp_path / "whole" / "model" / "summary.json")
        assert "학습 전" in summary["quality"]["findings"][0]["text"]
