"""Several datasets in one run: their rows, their share of every epoch, and the row that a message names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import DataError, SettingsError
from finetuning.config.schema import Settings
from finetuning.data.examples import Drawn, Examples
from finetuning.data.table import numbers
from finetuning.tasks.registry import find_task
from finetuning.windows.order import order_of
from tests.support.cli import Cli
from tests.support.rows import rows_of_table
from tests.support.runs import StopAfter, check_resumed_is_whole, run_train

Mixed = Callable[..., DataManager]


def csv_of(name: str, count: int) -> str:
    return "text,label\n" + "".join(f"{name} {n},{'긍정' if n % 2 else '부정'}\n" for n in range(count))


@pytest.fixture
def mixed(tmp_path: Path) -> Mixed:
    """A DataManager over files of texts, each with its weight: `mixed(first=(60, 1.0), second=(20, 3.0))`."""

    def make(**sources: tuple[int, float]) -> DataManager:
        mix = []
        for name, (count, weight) in sources.items():
            (tmp_path / f"{name}.csv").write_text(csv_of(name, count), encoding="utf-8")
            mix.append({"dataset_name": str(tmp_path / f"{name}.csv"), "weight": weight})
        return manager_of({"mix": mix}, tmp_path)

    return make


def manager_of(data: dict[str, Any], folder: Path, task: str = "text-classification") -> DataManager:
    settings = Settings.model_validate(
        {"model": {"task": task}, "data": {"dataset_cache_dir": str(folder / "cache"), **data}}
    )
    return DataManager(settings, find_task(settings))


def encoded(data: DataManager, model: Path) -> Examples:
    from transformers import AutoTokenizer

    splits = data.load_splits()
    return data.encode(splits["train"], AutoTokenizer.from_pretrained(model), data.label_names(splits), 32)


# --- rows ---


def test_every_dataset_is_in_every_split(mixed: Mixed) -> None:
    splits = mixed(first=(60, 1.0), second=(20, 3.0)).load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 72, "validation": 8}
    for rows in splits.values():
        assert {text.split()[0] for text in rows.table["text"][:]} == {"first", "second"}
        assert len(set(rows.table["row"][:])) == len(rows) and rows.table["row"][:] == sorted(rows.table["row"][:])


def test_a_dataset_s_own_splits_are_used(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, count in (("train", 10), ("dev", 4), ("test", 6)):
        (tmp_path / "folder" / f"{name}.csv").write_text(csv_of(name, count), encoding="utf-8")
    (tmp_path / "single.csv").write_text(csv_of("single", 20), encoding="utf-8")
    mix = [{"dataset_name": str(tmp_path / name)} for name in ("folder", "single.csv")]
    data = manager_of({"mix": mix}, tmp_path)
    assert {name: len(rows) for name, rows in data.load_splits().items()} == {"train": 28, "validation": 6, "test": 6}
    assert data.load_split(None)[0] == "test"


def test_each_dataset_may_name_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_of("a", 20), encoding="utf-8")
    (tmp_path / "b.csv").write_text(csv_of("b", 20).replace("text,label", "본문아님,등급"), encoding="utf-8")
    columns = {"text_column": "본문아님", "label_column": "등급"}
    mix = [{"dataset_name": str(tmp_path / "a.csv")}, {"dataset_name": str(tmp_path / "b.csv"), **columns}]
    assert len(manager_of({"mix": mix}, tmp_path).load_splits()["train"]) == 36


def test_datasets_of_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_of("a", 20), encoding="utf-8")
    (tmp_path / "b.csv").write_text(csv_of("b", 20).replace("text", "sentence1").replace(",", ",짝,")
                                    .replace("sentence1,짝,", "sentence1,sentence2,"), encoding="utf-8")  # fmt: skip
    mix = [{"dataset_name": str(tmp_path / name)} for name in ("a.csv", "b.csv")]
    with pytest.raises(DataError, match="서로 다릅니다") as error:
        manager_of({"mix": mix}, tmp_path).load_splits()
    assert "text_pair" in error.value.where and "b.csv" in error.value.where


@pytest.mark.parametrize("other", ["dataset_name", "test_file"])
def test_other_names_of_data_are_refused(tmp_path: Path, other: str) -> None:
    (tmp_path / "a.csv").write_text(csv_of("a", 20), encoding="utf-8")
    data = {"mix": [{"dataset_name": str(tmp_path / "a.csv")}], other: str(tmp_path / "a.csv")}
    with pytest.raises(SettingsError, match=r"data\.mix"):
        manager_of(data, tmp_path).load_splits()


def test_a_dataset_is_cached_by_itself(mixed: Mixed, tiny_model: Path, tmp_path: Path) -> None:
    encoded(mixed(first=(60, 1.0), second=(20, 3.0)), tiny_model)
    folder = tmp_path / "cache" / "prepared"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    encoded(mixed(second=(20, 1.0), first=(60, 9.0)), tiny_model)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_weights_are_part_of_what_a_run_is(mixed: Mixed) -> None:
    keys = [mixed(first=(60, 1.0), second=(20, weight)).load_splits()["train"].key for weight in (1.0, 2.0, 1.0)]
    assert keys[0] == keys[2] != keys[1]


def test_a_text_that_another_dataset_holds_out_is_told(
    mixed: Mixed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, count in (("a.csv", 40), ("b.csv", 30)):
        (tmp_path / name).write_text(csv_of("같은 글", count), encoding="utf-8")
    manager_of({"mix": [{"dataset_name": str(tmp_path / name)} for name in ("a.csv", "b.csv")]}, tmp_path).load_splits()
    assert any("학습 데이터에도 있는" in record.message for record in caplog.records)


# --- the order ---


def examples_of(sizes: list[int], counts: list[int]) -> Examples:
    parts = [Drawn(f"{n}.csv", size, count, 0) for n, (size, count) in enumerate(zip(sizes, counts, strict=True))]
    table = rows_of_table({"row": list(range(1, sum(sizes) + 1))}).table
    return Examples(table, np.ones(sum(sizes), dtype=np.int32), table, tuple(parts))


@given(
    parts=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 70)), min_size=1, max_size=4), seed=st.integers(0, 9)
)
def test_every_epoch_has_each_dataset_s_share_and_all_examples_take_turns(
    parts: list[tuple[int, int]], seed: int
) -> None:
    sizes, counts = [size for size, _ in parts], [count for _, count in parts]
    examples, starts = examples_of(sizes, counts), np.cumsum([0, *sizes])
    seen = Counter[int]()
    for epoch in range(5):
        order = order_of(examples, seed, epoch)
        assert len(order) == examples.per_epoch and (order == order_of(examples, seed, epoch)).all()
        owners = np.searchsorted(starts, order, side="right") - 1
        assert np.bincount(owners, minlength=len(sizes)).tolist() == counts
        seen.update(order.tolist())
        for number, size in enumerate(sizes):
            times = [seen[position] for position in range(starts[number], starts[number] + size)]
            assert max(times) - min(times) <= 1


def test_epochs_and_seeds_have_other_orders() -> None:
    examples = examples_of([50, 20], [30, 40])
    orders = [order_of(examples, seed, epoch).tolist() for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_an_epoch_is_as_long_as_all_datasets_and_divided_by_weight(mixed: Mixed, tiny_model: Path) -> None:
    examples = encoded(mixed(first=(60, 1.0), second=(20, 3.0)), tiny_model)
    assert [(part.size, part.count) for part in examples.drawn] == [(54, 18), (18, 54)]
    assert examples.per_epoch == len(examples) == 72
    rows = numbers(examples.table, "row")
    assert len(np.unique(rows)) == 72 and (rows == numbers(examples.rows, "row")).all()


def test_a_message_names_the_dataset_and_the_row_in_it(mixed: Mixed, tiny_model: Path) -> None:
    examples = encoded(mixed(first=(60, 1.0), second=(20, 3.0)), tiny_model)
    for position in (0, 53, 54, 71):
        name, number = examples.row_shown(position).rsplit(" ", 1)
        assert examples.rows[position]["text"] == f"{Path(name).stem} {int(number) - 1}"


# --- a run ---


def flags_of(data: DataManager) -> list[str]:
    mix = [source.model_dump(exclude_none=True) for source in data.data.mix]
    return ["--set", f"data.mix={json.dumps(mix)}"]


def test_a_mixed_run_is_resumed_exactly(mixed: Mixed, flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    given = flags_for("text-classification")
    place = given.index("--dataset")
    flags = [*given[:place], *given[place + 2 :], *flags_of(mixed(first=(30, 1.0), second=(10, 2.0)))]
    check_resumed_is_whole(flags, StopAfter(4), tmp_path)


@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_a_run_reports_every_dataset_by_itself(
    flags_for: Callable[[str], list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture, task: str
) -> None:
    caplog.set_level("INFO")
    given = flags_for(task)
    place = given.index("--dataset")
    first = Path(given[place + 1])
    second = first.with_name(f"second{first.suffix}")
    second.write_text(first.read_text(encoding="utf-8").replace("영화", "글"), encoding="utf-8")
    mix = json.dumps([{"dataset_name": str(first)}, {"dataset_name": str(second)}])
    flags = [*given[:place], *given[place + 2 :], "--set", f"data.mix={mix}", "--epochs", "1"]
    run_train([*flags, "--output_dir", str(tmp_path / "run" / "model")], StopAfter())
    for path in (first, second):
        line = [line for line in caplog.messages if line.startswith(f"  {path} ") and "행: " in line][-1]
        assert ("정확도" if task == "text-classification" else "손실") in line and "nan" not in line


def test_texts_of_every_source_have_the_loss_that_they_have_alone(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    """Continued pretraining with replay: what the domain gained and what the general texts lost are told apart."""
    sources = {"domain": "환자는 두통을 호소하였다", "general": "오늘은 날씨가 참 좋다"}
    for name, text in sources.items():
        (tmp_path / name).mkdir()
        for split, count in (("train", 12), ("validation", 5)):
            rows = "".join(f"{text} {n}\n" for n in range(count))
            (tmp_path / name / f"{split}.csv").write_text(f"text\n{rows}", encoding="utf-8")
    mix = json.dumps([{"dataset_name": str(tmp_path / name)} for name in sources])
    cached = ("--set", f"data.dataset_cache_dir={tmp_path / 'cache'}")
    run = cli("--task", "text-generation", "--model_name", tiny_causal, "--set", f"data.mix={mix}", "--output_dir",
              tmp_path / "model", "--epochs", "1", "--max_length", "64", "--learning_rate", "1e-2", "--set",
              "generation.validation_rows=0", "--set", "generation.max_new_tokens=2", *cached)  # fmt: skip
    assert run.code == 0, run.err
    for name in sources:
        told = re.findall(rf"{re.escape(str(tmp_path / name))} 5행: 손실 ([\d.]+)", run.err)
        alone = cli("evaluate", "--output_dir", tmp_path / "model", "--dataset", tmp_path / name, "--split",
                    "validation", *cached)  # fmt: skip
        assert alone.code == 0, alone.err
        saved = json.loads((tmp_path / "model" / "metrics-validation.json").read_text(encoding="utf-8"))
        assert len(told) >= 2  # after the epoch, and of the best model at the end
        assert float(told[-1]) == pytest.approx(saved["loss"], abs=1e-3)


def test_plan_says_how_often_each_dataset_comes(mixed: Mixed, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    flags = flags_of(mixed(first=(60, 1.0), second=(20, 3.0)))
    run = cli("plan", "--model_name", tiny_model, "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", *flags)
    assert run.code == 0, run.err
    assert "first.csv: 예제 54개에서 epoch마다 18개 (0.33번씩)" in run.out
    assert "second.csv: 예제 18개에서 epoch마다 54개 (3.00번씩)" in run.out
