"""Rows to examples on all cores: the same in the same order, and ends of every kind without a process left over."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from exceptions import DataError, ResourceError, StopRequested
from finetuning.data import parallel
from finetuning.data.tokenizing import usable_examples, write_examples

ROWS = 6500
forks = pytest.mark.skipif(not parallel.can_fork(), reason="processes are not forked here")


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that the machine has three cores; check that no test leaves a process or the variable behind."""
    monkeypatch.setattr(parallel, "cores", lambda: 3)
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)  # transformers' pipelines set it for the process
    yield
    assert multiprocessing.active_children() == []
    assert "TOKENIZERS_PARALLELISM" not in os.environ


@pytest.fixture(scope="module")
def table() -> Dataset:
    return Dataset.from_dict({"row": list(range(1, ROWS + 1)), "text": [str(n) for n in range(1, ROWS + 1)]})


def encoded(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Make two examples of each row whose number is divisible by three, and one of each other row."""
    numbers = [number for number in columns["row"] for _ in range(1 + (number % 3 == 0))]
    return {"row": numbers, "input_ids": [[len(str(number))] * (number % 7) for number in numbers]}


def test_processes_write_what_one_would_in_the_order_of_the_rows(table: Dataset, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()

    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        (pids / str(os.getpid())).touch()
        return encoded(columns)

    write_examples(table, encode, tmp_path / "examples.arrow")
    assert Dataset.from_file(str(tmp_path / "examples.arrow"))[:] == encoded(table[:])
    # this one encodes a row first, so that what an encoder loads is there before the others are forked
    assert len(list(pids.iterdir())) == 1 + (3 if parallel.can_fork() else 0)


def test_few_rows_are_not_worth_processes(table: Dataset, tmp_path: Path) -> None:
    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        assert multiprocessing.parent_process() is None
        return encoded(columns)

    write_examples(table.select(range(1500)), encode, tmp_path / "examples.arrow")
    assert len(Dataset.from_file(str(tmp_path / "examples.arrow"))) == 2000


@pytest.mark.parametrize("first", [1, 2500, ROWS + 1])
def test_lists_that_are_empty_at_first_get_the_type_of_the_others(table: Dataset, tmp_path: Path, first: int) -> None:
    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        return {"trained": [[True] if number >= first else [] for number in columns["row"]], "row": columns["row"]}

    write_examples(table, encode, tmp_path / "examples.arrow")
    assert Dataset.from_file(str(tmp_path / "examples.arrow"))[:] == encode(table[:])


def test_an_error_in_a_process_is_raised_unchanged(table: Dataset, tmp_path: Path) -> None:
    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        if 4321 in columns["row"]:
            raise DataError("라벨이 이상합니다.", where="4,321번째 행", remedy="고치세요.")
        return encoded(columns)

    with pytest.raises(DataError) as caught:
        write_examples(table, encode, tmp_path / "examples.arrow")
    assert (caught.value.where, caught.value.remedy) == ("4,321번째 행", "고치세요.")


@forks
def test_a_killed_process_is_reported(table: Dataset, tmp_path: Path) -> None:
    parent = os.getpid()

    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        if 4321 in columns["row"] and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return encoded(columns)

    with pytest.raises(ResourceError, match="비정상 종료되었습니다") as caught:
        write_examples(table, encode, tmp_path / "examples.arrow")
    assert "-9" in caught.value.where and caught.value.remedy


@forks
def test_a_stop_ends_every_process_at_once(table: Dataset, tmp_path: Path) -> None:
    """Ctrl+C reaches the whole process group. The workers ignore it and wait until the parent ends them."""
    parent = os.getpid()

    def stop(number: int, _frame: Any) -> None:
        raise StopRequested(number)

    def encode(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        os.kill(os.getpid(), signal.SIGINT)
        if columns["row"][0] == 1:
            os.kill(parent, signal.SIGINT)
        while True:
            signal.pause()

    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(StopRequested):
            write_examples(table, encode, tmp_path / "examples.arrow")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_row_without_an_example_is_dropped_also_where_another_has_two() -> None:
    rows = Dataset.from_dict({"row": [1, 2], "text": ["둘", "없음"]})
    table = Dataset.from_dict({"row": [1, 1, 2], "input_ids": [[5], [6], []]})
    examples = usable_examples(table, rows)
    assert len(examples) == 2
    assert examples.rows["row"][:] == [1]
