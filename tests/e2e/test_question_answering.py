"""Questions of KorQuAD, some made unanswerable as KLUE-MRC has them: through the command line from training to use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.answering import character_tokenizer
from tests.support.cli import Cli, check_evaluate_repeats_training, read_json
from tests.support.paths import ROOT

QUESTIONS = 150


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a one-layer BERT of random weights and a tokenizer of Korean characters."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=256,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("characters") / "model"
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def documents(real_data: Path) -> list[dict[str, Any]]:
    """The first documents that have enough questions, every fifth question without an answer."""
    taken: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for document in read_json(real_data / "korquad" / "KorQuAD_v1.0_dev.json")["data"]:
        taken.append(document)
        questions += [question for paragraph in document["paragraphs"] for question in paragraph["qas"]]
        if len(questions) >= QUESTIONS:
            break
    for question in questions[::5]:
        question |= {"is_impossible": True, "plausible_answers": question["answers"], "answers": []}
    return taken


def test_from_training_to_use(
    cli: Cli, encoder: Path, documents: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output_dir = tmp_path / "korquad.json", tmp_path / "model"
    data.write_text(json.dumps({"version": "1.0", "data": documents}, ensure_ascii=False), encoding="utf-8")
    flags = [
        "--config", ROOT / "recipes" / "korquad.yaml", "--model_name", encoder, "--dataset", data,
        "--output_dir", output_dir, "--epochs", "1", "--learning_rate", "3e-3", "--max_length", "256",
        "--set", "data.test_split=0.2", "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
        "--set", "logging.progress_bar=false",
    ]  # fmt: skip
    plan = cli("plan", *flags)
    assert plan.code == 0, plan.err
    rows, examples = (int(number) for number in re.search(r"train: (\d+)행 → 예제 (\d+)개", plan.out).groups())  # type: ignore[union-attr]
    assert examples > 2 * rows
    run = cli(*flags)
    assert run.code == 0, run.err
    assert "답이 없는 질문" in run.err
    summary = read_json(output_dir / "summary.json")
    assert sum(summary["rows"].values()) >= QUESTIONS
    metrics = check_evaluate_repeats_training(cli, output_dir)
    assert {"exact_match", "f1", "rouge_w"} <= set(metrics)
    assert metrics["null_threshold"] == read_json(output_dir / "config.json")["null_threshold"]
    check_predictions(cli, output_dir, documents[0], tmp_path / "asked.json")
    check_card(output_dir, capsys)


def check_predictions(cli: Cli, output_dir: Path, document: dict[str, Any], asked: Path) -> None:
    """Of a published file without its answers, and of a line: the same answer, a part of the context."""
    bare = [
        {
            "context": paragraph["context"],
            "qas": [{"id": question["id"], "question": question["question"]} for question in paragraph["qas"]],
        }
        for paragraph in document["paragraphs"][:3]
    ]
    asked.write_text(json.dumps({"data": [{"paragraphs": bare}]}, ensure_ascii=False), encoding="utf-8")
    run = cli("predict", "--output_dir", output_dir, "--input", asked)
    assert run.code == 0, run.err
    found = [json.loads(line) for line in run.out.splitlines()]
    assert [record["id"] for record in found] == [qa["id"] for paragraph in bare for qa in paragraph["qas"]]
    for record in found:
        assert 0 <= record["score"] <= 1
        if record["answer"]:
            assert record["context"][record["start"] : record["end"]] == record["answer"]
        else:
            assert (record["start"], record["end"]) == (None, None)
    first = found[0]
    run = cli("predict", "--output_dir", output_dir, stdin=f"{first['question']}\t{first['context']}\n")
    assert run.code == 0, run.err
    alone = json.loads(run.out)
    assert (alone["answer"], alone["start"]) == (first["answer"], first["start"])


def check_card(output_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the model card says of using the model does run, and prints a part of the context."""
    card = (output_dir / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.S)[1].replace("이 폴더의 경로", str(output_dir))  # type: ignore[index]
    capsys.readouterr()
    names: dict[str, Any] = {}
    exec(code, names)
    printed = capsys.readouterr().out.strip()
    assert printed
    assert printed in names["context"]
