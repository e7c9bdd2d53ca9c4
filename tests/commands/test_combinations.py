"""What a sweep varies: lists and ranges of --set, their combinations, and the names of the folders."""

from __future__ import annotations

import pytest

from exceptions import SettingsError
from finetuning.commands.combinations import Combination, Listed, Range, axes_in, combination, grid, normalized
from finetuning.config.schema import Settings


def combinations(*assignments: str) -> list[Combination]:
    axes, fixed = axes_in(assignments)
    assert not fixed
    return grid(Settings(), [axis for axis in normalized(Settings(), axes) if isinstance(axis, Listed)])


def test_every_combination_is_there_once_and_has_a_name_that_a_person_can_read() -> None:
    found = combinations("training.learning_rate=1e-5,0.00001,3e-5", "training.epochs=2,3")
    assert [one.name() for one in found] == [
        "learning_rate=1e-5,epochs=2", "learning_rate=1e-5,epochs=3", "learning_rate=3e-5,epochs=2",
        "learning_rate=3e-5,epochs=3",
    ]  # fmt: skip
    assert found[-1].settings.training.learning_rate == 3e-5 and found[-1].settings.training.epochs == 3
    assert found[-1].words() == ["--set", "training.learning_rate=3e-5", "--set", "training.epochs=3"]


def test_a_name_needs_no_quotes_and_says_the_section_where_two_settings_share_a_name() -> None:
    found = combinations("model.name=klue/roberta-base,./my models/소형", "data.text_column=제목,본문 전체")
    assert found[-1].name() == "name=소형,text_column=본문-전체"
    both = combination(Settings(), {"model.revision": "a", "data.revision": "b"})
    assert both.name() == "model.revision=a,data.revision=b"
    long = combination(Settings(), {"data.text_column": "열" * 300})
    assert len(long.name().encode()) <= 255


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("model.adapter.target_modules=[q,k],[q,k,v]", ("[q,k]", "[q,k,v]")),
        ("data.label_map={가: 나, 다: 라},{}", ("{가: 나, 다: 라}", "{}")),
        ('data.label_separator=";","|"', ('";"', '"|"')),
        ("training.epochs=2,3,", ("2", "3")),
        ("training.early_stopping_patience=null,2", ("null", "2")),
    ],
)
def test_commas_inside_brackets_and_quotes_separate_nothing(text: str, values: tuple[str, ...]) -> None:
    assert axes_in([text]) == ([Listed(text.split("=")[0], values)], [])


@pytest.mark.parametrize(
    "text",
    ["training.epochs=2", "data.label_separator=','", "logging.trackers=[wandb,mlflow]", "data.train_file=../a.csv"],
)
def test_one_value_is_no_sweep(text: str) -> None:
    assert axes_in([text]) == ([], [text])


def test_ranges_of_integers_and_of_magnitudes() -> None:
    axes, _ = axes_in(["training.learning_rate=1e-5..5e-5", "training.epochs=2..5", "model.adapter.dropout=0..0.3"])
    assert axes == [
        Range("training.learning_rate", 1e-5, 5e-5, is_whole=False),
        Range("training.epochs", 2, 5, is_whole=True),
        Range("model.adapter.dropout", 0, 0.3, is_whole=False),
    ]
    assert [axis.is_log for axis in axes if isinstance(axis, Range)] == [True, False, False]


@pytest.mark.parametrize(
    "assignments",
    [
        ["training.epochs=5..2"],
        ["training.epochs=1-2..3"],
        ["training.epochs=2,3", "training.epochs=4,5"],
    ],
)
def test_what_is_varied_is_checked(assignments: list[str]) -> None:
    with pytest.raises(SettingsError):
        axes_in(assignments)


def test_a_wrong_value_is_named_before_anything_is_trained() -> None:
    with pytest.raises(SettingsError, match=r"-3.*1 이상"):
        combinations("training.epochs=2,-3")
    with pytest.raises(SettingsError, match=r"'training\.epoch' 설정이 없습니다"):
        combinations("training.epoch=2,3")
    with pytest.raises(SettingsError, match="조합이"):
        combinations(*(f"training.{key}={','.join(map(str, range(1, 40)))}" for key in ("epochs", "warmup_steps")))
