"""Each task on real Korean data with a real model, beside what is had for nothing: majority, zero, or no training.

DATA_FOLDER holds klue-nli/, korsts/, klue-ner/, korquad/ and chatbot/ as they are published; MODELS_FOLDER holds
e5-small and smollm2-135m. Every run is this program's own command line with the recipe of the task, seed 42, and the
settings below, which are cut down to what two CPU cores do in ten minutes a task (KorSTS: twenty). A tenth of the
published dev files is held out for test and another for validation (of KorQuAD's first 800 questions, whole
paragraphs); KorSTS has its own splits, used whole; of the chatbot's pairs, shuffled by seed 0, the first 300 are for
test and the next 300 for validation.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import ROOT, Table, flags_of, program, say, summary_of

COLUMNS = ("task", "rows", "metric", "trained", "for nothing")
ANSWERS = 10


@dataclass(frozen=True)
class Job:
    """One training run. data: below DATA_FOLDER; options: further settings; metrics: what the table shows."""

    recipe: str
    model: str
    data: str
    options: tuple[str, ...]
    metrics: tuple[str, ...]


JOBS = {
    job.recipe: job
    for job in (
        Job("klue-nli", "e5-small", "klue-nli/klue-nli-v1.1_dev.json",
            ("training.learning_rate=1e-4", "training.epochs=2", "data.test_split=0.1"),
            ("accuracy", "macro_f1")),
        Job("korsts", "e5-small", "korsts",
            ("training.learning_rate=1e-4", "training.epochs=3"),
            ("pearson", "spearman", "f1_at_3")),
        Job("klue-ner", "e5-small", "klue-ner/klue-ner-v1.1_dev.tsv",
            ("training.learning_rate=2e-4", "training.epochs=2", "data.test_split=0.1"),
            ("entity_macro_f1", "char_macro_f1")),
        Job("korquad", "e5-small", "korquad/KorQuAD_v1.0_dev.json",
            ("training.learning_rate=2e-4", "training.epochs=1", "data.test_split=0.1", "data.train_rows=800",
             "data.max_length=256", "data.batch_size=16", "question_answering.doc_stride=64",
             "question_answering.max_answer_length=50"),
            ("exact_match", "f1", "rouge_w")),
    )
}  # fmt: skip
EVERY_JOB = ("training.warmup_ratio=0.1", "training.weight_decay=0.01")
CHATBOT = ("training.epochs=1", "training.learning_rate=2e-4", "data.batch_size=16", "data.train_rows=500",
           "generation.max_new_tokens=60")  # fmt: skip


def train_flags(recipe: str, model: Path, data: Path, scratch: Path, options: tuple[str, ...]) -> list[str]:
    flags = {
        "--config": ROOT / "recipes" / f"{recipe}.yaml", "--model_name": model, "--dataset": data,
        "--output_dir": scratch / "model", "--seed": 42,
    }  # fmt: skip
    return flags_of(flags, (*options, f"data.dataset_cache_dir={scratch / 'cache'}", "logging.progress_bar=false"))


def measure(job: Job, data: Path, models: Path, scratch: Path) -> list[dict[str, Any]]:
    """Train; a row of the table for each metric, with what is had for nothing."""
    flags = train_flags(job.recipe, models / job.model, data / job.data, scratch, (*EVERY_JOB, *job.options))
    program("train", *flags)
    summary = summary_of(scratch / "model")
    rows = ", ".join(f"{name} {count:,}" for name, count in summary["rows"].items())
    baseline = majority(flags) if job.recipe == "klue-nli" else {}
    return [
        dict(zip(COLUMNS, (job.recipe, rows, name, summary["test"][name], baseline.get(name, 0.0)), strict=True))
        for name in job.metrics
    ]


def majority(flags: list[str]) -> dict[str, float]:
    """Accuracy and macro-F1 on the test rows of answering what is most frequent in train."""
    from sklearn.metrics import accuracy_score, f1_score

    from data_manager import DataManager
    from finetuning.tasks.registry import find_task
    from finetuning_app import build_parser, read_settings

    settings = read_settings(build_parser().parse_args(["train", *flags]))
    splits = DataManager(settings, find_task(settings)).load_splits()
    most = Counter(splits["train"].labels()).most_common(1)[0][0]
    truth = list(splits["test"].labels())
    guess = [most] * len(truth)
    return {
        "accuracy": float(accuracy_score(truth, guess)),
        "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0)),
    }


def measure_chatbot(data: Path, models: Path, scratch: Path) -> list[dict[str, Any]]:
    """Loss on held-out pairs before and after training, and answers to held-out questions as they come."""
    with (data / "chatbot" / "ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        pairs = list(csv.DictReader(file))
    random.Random(0).shuffle(pairs)
    folder = scratch / "chatbot"
    folder.mkdir()
    for name, part in (("test", pairs[:300]), ("validation", pairs[300:600]), ("train", pairs[600:])):
        write_csv(folder / f"{name}.csv", part)
    model = Path(shutil.copytree(models / "smollm2-135m", scratch / "untrained"))  # evaluate writes beside the model
    flags = train_flags("chatbot", model, folder, scratch, CHATBOT)
    program("evaluate", *flags)
    before = json.loads((model / "metrics-test.json").read_text(encoding="utf-8"))
    program("train", *flags)
    after = summary_of(scratch / "model")["test"]
    questions = "".join(f"{pair['Q']}\n" for pair in pairs[:ANSWERS])
    say("answers to held-out questions")
    for line in program("predict", "--output_dir", scratch / "model", stdin=questions).splitlines():
        record = json.loads(line)
        say(f"  {record['Q']} → {record['generated']}")
    return [
        dict(zip(COLUMNS, ("chatbot", "train 500, test 300", name, after[name], before[name]), strict=True))
        for name in ("loss", "loss_per_char")
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="a folder with klue-nli, korsts, klue-ner, korquad and chatbot")
    parser.add_argument("models", type=Path, help="a folder with e5-small and smollm2-135m")
    parser.add_argument("tasks", nargs="*", default=[*JOBS, "chatbot"])


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train every task in turn. For nothing is had: the majority's answer, zero, or (chatbot) the untrained model."""
    data, models = arguments.data.resolve(), arguments.models.resolve()
    rows: list[dict[str, Any]] = []
    for name in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            is_chatbot = name == "chatbot"
            rows += measure_chatbot(data, models, scratch) if is_chatbot else measure(JOBS[name], data, models, scratch)
    return [Table(COLUMNS, rows)]
