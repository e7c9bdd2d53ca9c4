"""Reward models: rewards in every layout are those of transformers' own forward, and predict gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.ops.dense_attention import without_padding
from finetuning.tasks.registry import find_task
from finetuning.windows.layouts import Layout, OneRow, Padded
from tests.support.preference import PAIRS, pair_rows, with_template, write_rows
from tests.support.runs import StopAfter, run_train


@pytest.fixture(scope="module")
def folder(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tiny_causal, tmp_path_factory.mktemp("reward") / "model")


@pytest.mark.parametrize("layout", [OneRow, Padded])
def test_rewards_are_those_of_transformers(folder: Path, layout: type[Layout]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    task: Any = find_task(Settings.model_validate({"model": {"task": "reward"}}))
    task.scores.fit_model(model, tokenizer)
    rows = [task.reads.prepare(dict(row)) for row in pair_rows()]
    cells = {name: [json.dumps(row[name], ensure_ascii=False) for row in rows] for name in ("messages", "rejected")}
    made = task.encodes.encode({"row": range(len(rows)), **cells}, tokenizer, (), 96)
    examples = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    shape = layout(64, 96)
    cut = shape.together(torch.arange(len(examples)).numpy())
    batch = shape.collate(task, [[examples[i] for i in row] for row in cut], tokenizer, None)
    with torch.no_grad(), without_padding(model, batch.dense):
        found = task.scores.forward(model, batch)
    texts = [asked + answer + "</s>" for asked, *answers in PAIRS for answer in answers]
    with torch.no_grad():
        alone = [float(model(**tokenizer(text, return_tensors="pt")).logits) for text in texts]
    assert found.tolist() == pytest.approx(alone, abs=1e-5)


def test_a_trained_model_scores_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    data = write_rows(tmp_path / "data" / "train.jsonl", pair_rows() * 3)
    run_train(
        ["--task", "reward", "--model_name", str(folder), "--dataset", str(data), "--batch_size", "6", "--epochs", "8",
         "--learning_rate", "1e-2", "--max_length", "96", "--no-mixed_precision", "--output_dir",
         str(tmp_path / "model"), "--set", "logging.progress_bar=false", "--set",
         f"data.dataset_cache_dir={tmp_path / 'cache'}"],
        StopAfter(),
    )  # fmt: skip
    asked = write_rows(tmp_path / "asked.jsonl", [
        {"prompt": row["prompt"], "completion": row[role]} for row in pair_rows() for role in ("chosen", "rejected")
    ])  # fmt: skip
    done = cli("predict", "--output_dir", tmp_path / "model", "--input", asked)
    assert done.code == 0, done.err
    rewards = [json.loads(line)["reward"] for line in done.out.splitlines()]
    assert len(rewards) == 2 * len(PAIRS)
    assert sum(good > bad for good, bad in zip(rewards[::2], rewards[1::2], strict=True)) == len(PAIRS)
