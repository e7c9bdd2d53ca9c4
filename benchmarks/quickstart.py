"""The quick start, seed by seed, beside a model that counts words.

Words are split at spaces, weighted by TF-IDF and given to a logistic regression, whose C is the better of two on the
validation file. Both learn from the training file of the bundled reviews and are scored on their test file.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.runner import ROOT, Table, flags_of, program, say, summary_of

REVIEWS = ROOT / "examples" / "reviews"
C = (1.0, 10.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 0, 1])
    parser.add_argument("--rows", type=int, help="this many rows of the training file, for a run that measures nothing")


def tiny(folder: Path) -> list[str]:
    return ["--rows", "64", "--seeds", "0"]


def accuracy_of_words(folder: Path) -> float:
    """Return the accuracy on test.csv of a logistic regression on the words of train.csv.

    Args:
        folder: Has train.csv, validation.csv and test.csv with the columns text and label.

    Returns:
        The accuracy of the C that is best on validation.csv.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    splits = {}
    for split in ("train", "validation", "test"):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        splits[split] = [row["text"] for row in rows], [row["label"] for row in rows]
    words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True).fit(splits["train"][0])
    counted = {split: words.transform(texts) for split, (texts, _) in splits.items()}
    models = [LogisticRegression(C=c, max_iter=1000).fit(counted["train"], splits["train"][1]) for c in C]
    best = max(models, key=lambda model: model.score(counted["validation"], splits["validation"][1]))
    return float(best.score(counted["test"], splits["test"][1]))


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train by the recipe with each seed, and count words once."""
    words = accuracy_of_words(REVIEWS)
    accuracies, seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            output_dir = Path(scratch) / f"seed-{seed}" / "model"
            settings = [f"data.dataset_cache_dir={scratch}/cache", "logging.progress_bar=false"]
            settings += [f"data.train_rows={arguments.rows}"] if arguments.rows else []
            flags = {"--config": ROOT / "recipes" / "quickstart.yaml", "--output_dir": output_dir, "--seed": seed}
            began = time.monotonic()
            program("train", *flags_of(flags, settings))
            seconds.append(time.monotonic() - began)
            accuracies.append(float(summary_of(output_dir)["test"]["accuracy"]))
            say(f"seed {seed}: accuracy {accuracies[-1]:.4f} in {seconds[-1]:.0f} s")
    rows = [
        {
            "model": "the quick start",
            "accuracy": statistics.mean(accuracies),
            "by seed": accuracies,
            "seconds": seconds,
        },
        {"model": "words counted", "accuracy": words},
    ]
    return [Table(("model", "accuracy", "by seed", "seconds"), rows)]
