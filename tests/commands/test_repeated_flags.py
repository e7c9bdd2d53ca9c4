"""A value on the command line that is not used is told."""

from __future__ import annotations

import pytest

from finetuning.commands.command_line import build_parser
from tests.support.cli import Cli


@pytest.mark.parametrize(
    ("words", "unused", "used"),
    [
        (["--batch_size", "8", "--batch_size=4"], "--batch_size 8", "--batch_size 4"),
        (["--batch_size", "8", "--set", "data.batch_size=4"], "--batch_size 8", "--set data.batch_size=4"),
        (["--set", "data.batch_size=4", "--batch_size", "8"], "--batch_size 8", "--set data.batch_size=4"),
        (["--set", "training.seed=1", "--set", "training.seed=2"], "--set training.seed=1", "--set training.seed=2"),
        (["--mixed_precision", "--no-mixed_precision"], "--mixed_precision", "--no-mixed_precision"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config a.yaml", "--config b.yaml"),
    ],
)
def test_a_value_that_gives_way_to_another_is_named(words: list[str], unused: str, used: str) -> None:
    (note,) = build_parser().parse_args(words).unused
    assert f"{unused}은 쓰지" in note or f"{unused}는 쓰지" in note
    assert note.endswith(f"쓰는 것: {used}")


@pytest.mark.parametrize(
    "words",
    [
        ["--batch_size", "8", "--batch_size", "8"],
        ["--resume", "--resume", "--set", "training.seed=1", "--set", "data.batch_size=1"],
        ["plan", "--compare", "a", "b", "--batch_size", "8"],
    ],
)
def test_nothing_is_said_where_nothing_is_lost(words: list[str]) -> None:
    assert build_parser().parse_args(words).unused == []


def test_a_run_tells_the_value_that_it_does_not_use(cli: Cli) -> None:
    run = cli("predict", "--output_dir", "no-such", "--batch_size", "8", "--batch_size", "4")
    assert "--batch_size 8은 쓰지 않습니다" in run.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", "--dataset", "a.csv"], "--dataset를 읽지"),
        (
            ["predict", "--epochs", "3", "--set", "training.optimizer=adafactor"],
            "--epochs, --set training.optimizer를 읽지",
        ),
        (["evaluate", "--dataset", "a.csv", "--learning_rate", "1e-4"], "--learning_rate를 읽지"),
    ],
)
def test_settings_that_a_command_on_a_trained_model_does_not_read_are_named(words: list[str], named: str) -> None:
    (note,) = build_parser().parse_args(words).unused
    assert named.rpartition("를 ")[0] in note and "읽지 않습니다" in note


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--dataset", "a.csv", "--seed", "1", "--batch_size", "4"],
        ["predict", "--output_dir", "m", "--max_length", "8", "--no-mixed_precision", "--text_column", "글"],
        ["train", "--dataset", "a.csv", "--epochs", "2"],
    ],
)
def test_settings_that_are_read_are_not_named(words: list[str]) -> None:
    assert build_parser().parse_args(words).unused == []
