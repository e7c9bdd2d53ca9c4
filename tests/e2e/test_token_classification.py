"""Named entities on real rows of KLUE-NER: train, evaluate and predict through the command line."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, data_flags
from tests.support.paths import ROOT
from tests.support.tagging import is_legal

LINES = (
    "경찰은 또 자금을 관리한 박씨의 딸(32)과 김모(33)씨 등 16명을 입건했다.\n\n수학 A형의 1등급 커트라인은 평균 96점\n"
)


@pytest.fixture(scope="module")
def trained(cli: Cli, tiny_model: Path, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, made with the recipe from sentences that it learns by heart."""
    folder = tmp_path_factory.mktemp("ner")
    (folder / "data").mkdir()
    text = (real_data / "klue-ner" / "klue-ner-v1.1_dev.tsv").read_text(encoding="utf-8")
    sentences = text.split("\n\n")
    for name, start, end in (("train", 0, 100), ("dev", 0, 20), ("test", 0, 30)):
        (folder / "data" / f"klue-ner_{name}.tsv").write_text("\n\n".join(sentences[start:end]), encoding="utf-8")
    run = cli(
        "--config", ROOT / "recipes" / "klue-ner.yaml", "--model_name", tiny_model, "--dataset", folder / "data",
        "--output_dir", folder / "model", "--learning_rate", "5e-3", "--max_length", "64", "--batch_size", "4",
        "--epochs", "8",
        "--set", f"data.dataset_cache_dir={folder / 'cache'}", "--set", "logging.progress_bar=false",
        "--set", "training.save_steps=1000", "--no-mixed_precision",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "정답 " in run.err
    return folder / "model"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_evaluating_repeats_what_training_reported(cli: Cli, trained: Path) -> None:
    reported = read_json(trained / "summary.json")
    assert reported["rows"] == {"train": 100, "validation": 20, "test": 30}
    assert read_json(trained / "config.json")["label2id"]["O"] == 0
    assert len(read_json(trained / "config.json")["label2id"]) == 13
    run = cli("evaluate", "--output_dir", trained, *data_flags(trained))
    assert run.code == 0, run.err
    saved = read_json(trained / "metrics-test.json")
    assert {name: saved[name] for name in reported["test"]} == pytest.approx(reported["test"], abs=1e-6)
    assert saved["entity_micro_f1"] > 0.02


def test_predictions_are_spans_that_transformers_agrees_with(cli: Cli, trained: Path) -> None:
    from transformers import pipeline

    run = cli("predict", "--output_dir", trained, stdin=unicodedata.normalize("NFD", LINES))
    assert run.code == 0, run.err
    records = [json.loads(line) for line in run.out.splitlines()]
    assert ["entities" in record for record in records] == [True, False, True]
    tag = pipeline("token-classification", model=str(trained), device="cpu", ignore_labels=[])
    compared = 0
    for record, text in zip(records, LINES.splitlines(), strict=True):
        if not text:
            continue
        found = {place: "O" for place, letter in enumerate(text) if not letter.isspace()}
        for entity in record["entities"]:
            start, end, label = entity["start"], entity["end"], entity["label"]
            assert text[start:end] == entity["text"]
            assert 0 < entity["score"] <= 1
            found |= {place: label for place in range(start, end)}
        pieces = tag(text)
        if not is_legal([piece["entity"] for piece in pieces]):
            continue  # it chooses each tag by itself
        theirs = {place: piece["entity"].split("-")[-1] for piece in pieces
                  for place in range(piece["start"], piece["end"]) if not text[place].isspace()}  # fmt: skip
        assert {place: label for place, label in found.items() if place in theirs} == theirs
        assert set(theirs.values()) != {"O"}
        compared += 1
    assert compared


def test_predictions_for_tokens_are_those_for_their_text(cli: Cli, trained: Path, tmp_path: Path) -> None:
    text = LINES.splitlines()[0]
    (tmp_path / "new.jsonl").write_text(
        json.dumps({"tokens": list(text)}) + "\n" + json.dumps({"tokens": text.split()}) + "\n", encoding="utf-8"
    )
    run = cli("predict", "--output_dir", trained, "--input", tmp_path / "new.jsonl")
    assert run.code == 0, run.err
    characters, words = (json.loads(line) for line in run.out.splitlines())
    assert characters["tokens"] == list(text)
    assert characters["entities"] == words["entities"] != []
