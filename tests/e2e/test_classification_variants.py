"""Pairs, scores and several labels a text, on real rows: train, evaluate and predict through the command line."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, check_evaluate_repeats_training, read_json
from tests.support.paths import ROOT


def flags_for(recipe: str, model: Path, data: Path, output_dir: Path) -> list[str]:
    """A recipe cut down to a tiny model and one epoch."""
    return [
        "--config", str(ROOT / "recipes" / f"{recipe}.yaml"), "--model_name", str(model), "--dataset", str(data),
        "--output_dir", str(output_dir), "--epochs", "1", "--learning_rate", "3e-3", "--max_length", "64",
        "--set", f"data.dataset_cache_dir={output_dir.parent / 'cache'}", "--set", "logging.progress_bar=false",
    ]  # fmt: skip


def pipeline_scores(output_dir: Path, inputs: list[Any]) -> list[dict[str, float]]:
    """What transformers makes of the saved model: each input's score by label."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(output_dir), top_k=None, device="cpu")
    return [{found["label"]: found["score"] for found in result} for result in classify(inputs)]


def test_pairs_of_klue_nli(cli: Cli, tiny_model: Path, real_data: Path, tmp_path: Path) -> None:
    records = read_json(real_data / "klue-nli" / "klue-nli-v1.1_dev.json")
    data, output_dir = tmp_path / "klue-nli.json", tmp_path / "model"
    data.write_text(json.dumps(records[:300], ensure_ascii=False), encoding="utf-8")
    run = cli(*flags_for("klue-nli", tiny_model, data, output_dir), "--set", "data.test_split=0.1")
    assert run.code == 0, run.err
    assert read_json(output_dir / "config.json")["label2id"] == {"contradiction": 0, "entailment": 1, "neutral": 2}
    summary = read_json(output_dir / "summary.json")
    assert sum(summary["rows"].values()) == 300
    assert summary["expectation"]["verdict"] == "not comparable"
    assert "비교하지 않습니다. 그 점수는 klue/roberta-base 모델의 것" in run.err
    check_evaluate_repeats_training(cli, output_dir)

    pairs = [(record["premise"], record["hypothesis"]) for record in records[300:305]]
    predicted = cli(
        "predict", "--no-mixed_precision", "--output_dir", output_dir, stdin="".join(f"{a}\t{b}\n" for a, b in pairs)
    )
    assert predicted.code == 0, predicted.err
    records = [json.loads(line) for line in predicted.out.splitlines()]
    expected = pipeline_scores(output_dir, [{"text": a, "text_pair": b} for a, b in pairs])
    for pair, record, scores in zip(pairs, records, expected, strict=True):
        assert (record["premise"], record["hypothesis"]) == pair
        assert record["label"] == max(scores, key=lambda name: scores[name])
        assert record["score"] == pytest.approx(scores[record["label"]], abs=1e-4)


def test_scores_of_korsts(cli: Cli, tiny_model: Path, real_data: Path, tmp_path: Path) -> None:
    data, output_dir = tmp_path / "korsts", tmp_path / "model"
    data.mkdir()
    for name, count in (("sts-train.tsv", 301), ("sts-dev.tsv", 101), ("sts-test.tsv", 101)):
        with (real_data / "korsts" / name).open(encoding="utf-8") as lines:
            (data / name).write_text("".join(itertools.islice(lines, count)), encoding="utf-8")
    run = cli(*flags_for("korsts", tiny_model, data, output_dir), "--set", "model.num_labels=null")
    assert run.code == 0, run.err
    assert "회귀(text-regression)" in run.err
    assert read_json(output_dir / "summary.json")["rows"] == {"train": 300, "validation": 100, "test": 100}
    assert {"pearson", "spearman"} <= set(check_evaluate_repeats_training(cli, output_dir))

    with (data / "sts-test.tsv").open(encoding="utf-8") as lines:
        pairs = [tuple(line.rstrip("\n").split("\t")[5:7]) for line in itertools.islice(lines, 1, 6)]
    predicted = cli("predict", "--no-mixed_precision", "--output_dir", output_dir, "--input", data / "sts-test.tsv")
    assert predicted.code == 0, predicted.err
    records = [json.loads(line) for line in predicted.out.splitlines()]
    assert len(records) == 100
    expected = pipeline_scores(output_dir, [{"text": a, "text_pair": b} for a, b in pairs])
    for record, pair, scores in zip(records, pairs, expected, strict=False):
        assert (record["sentence1"], record["sentence2"]) == pair
        assert [record["predicted_score"]] == pytest.approx(list(scores.values()), abs=1e-4)


def test_several_labels_for_a_review(cli: Cli, tiny_model: Path, real_data: Path, tmp_path: Path) -> None:
    data, output_dir = tmp_path / "reviews.csv", tmp_path / "model"
    texts = write_labelled_reviews(real_data / "nsmc" / "ratings_train.txt", data, 300)
    run = cli(*flags_for("multi-label", tiny_model, data, output_dir), "--epochs", "2")
    assert run.code == 0, run.err
    config = read_json(output_dir / "config.json")
    assert list(config["label2id"]) == ["긍정", "긴 글", "짧은 글"]
    threshold = config["decision_threshold"]
    assert 0.05 <= threshold <= 0.95
    assert check_evaluate_repeats_training(cli, output_dir)["threshold"] == threshold

    predicted = cli(
        "predict", "--no-mixed_precision", "--output_dir", output_dir, stdin="".join(f"{text}\n" for text in texts[:20])
    )
    assert predicted.code == 0, predicted.err
    records = [json.loads(line) for line in predicted.out.splitlines()]
    for record, scores in zip(records, pipeline_scores(output_dir, texts[:20]), strict=True):
        chosen = {name: score for name, score in scores.items() if score >= threshold}
        assert dict(zip(record["label"], record["score"], strict=True)) == pytest.approx(chosen, abs=1e-4)


def write_labelled_reviews(source: Path, target: Path, count: int) -> list[str]:
    """Reviews with their sentiment and length as labels, as a JSON list and divided by commas in turn; the texts."""
    with source.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in itertools.islice(lines, 1, count + 1)]
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number, (_, text, sentiment) in enumerate(rows):
            length = ["짧은 글"] if len(text) < 20 else ["긴 글"] if len(text) > 50 else []
            labels = (["긍정"] if sentiment == "1" else []) + length
            as_list = number % 2 == 0 or not labels
            writer.writerow([text, json.dumps(labels, ensure_ascii=False) if as_list else ",".join(labels)])
    return [text for _, text, _ in rows]
