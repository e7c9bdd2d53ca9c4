"""A reranker from the data to what it leaves: scores and ranks of `predict`, and those that others compute."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.preference import write_rows
from tests.support.reranker import LISTS, PAIRS
from tests.support.runs import StopAfter, run_train
from tests.support.texts import NEGATIVE, POSITIVE


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    rows = [
        {
            "query": f"{POSITIVE[n % 5]} {n}",
            "pos": [POSITIVE[n // 5 % 5]],
            "neg": [NEGATIVE[n % 5], NEGATIVE[n // 3 % 5]],
        }
        for n in range(40)
    ]
    data = write_rows(folder / "train.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
        run_train(
            ["--task", "reranker", "--model_name", str(tiny_model), "--dataset", str(data), "--batch_size", "8",
             "--gradient_accumulation_steps", "1", "--epochs", "8", "--learning_rate", "3e-3", "--no-mixed_precision",
             "--output_dir", str(folder / "model"), "--set", "data.validation_split=0.3", "--set",
             "logging.progress_bar=false", "--set", f"data.dataset_cache_dir={folder / 'cache'}"],
            StopAfter(),
        )  # fmt: skip
    return folder / "model"


def predicted(cli: Any, model: Path, rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    done = cli("predict", "--output_dir", model, "--input", write_rows(folder / "asked.jsonl", rows))
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_it_learns_to_rank_and_says_how_well(trained: Path, tmp_path: Path, cli: Any) -> None:
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    assert summary["validation"]["ndcg_at_10"] > 0.9
    report = (trained / "report.html").read_text(encoding="utf-8")
    assert "nDCG@10" in report
    asked = [{"query": "또", "passages": [bad, good]} for bad, good in zip(NEGATIVE, POSITIVE, strict=True)]
    assert [row["rank"] for row in predicted(cli, trained, asked, tmp_path)] == [[2, 1]] * len(POSITIVE)


def test_scores_are_the_same_in_a_list_and_alone_and_in_transformers(trained: Path, tmp_path: Path, cli: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    lists = [score for row in predicted(cli, trained, LISTS, tmp_path) for score in row["score"]]
    asked = [{"질문": row["질문"], "문서": row["문서"]} for row in PAIRS]
    alone = [row["score"] for row in predicted(cli, trained, asked, tmp_path)]
    assert lists == pytest.approx(alone, abs=1e-6)
    model, tokenizer = (cls.from_pretrained(trained) for cls in (AutoModelForSequenceClassification, AutoTokenizer))
    logits = [model(**tokenizer(row["질문"], row["문서"], return_tensors="pt")).logits.item() for row in PAIRS]
    assert alone == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-5)


def test_sentence_transformers_loads_it_with_the_same_scores(trained: Path, tmp_path: Path, cli: Any) -> None:
    models = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    theirs = models.CrossEncoder(str(trained), device="cpu").predict([(row["질문"], row["문서"]) for row in PAIRS])
    asked = [{"질문": row["질문"], "문서": row["문서"]} for row in PAIRS]
    ours = [row["score"] for row in predicted(cli, trained, asked, tmp_path)]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-5)
