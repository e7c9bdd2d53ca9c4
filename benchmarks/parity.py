"""This program beside transformers.Trainer on NSMC: the same rows, settings and seeds; held-out accuracy of each.

Both train one epoch of windows of 32 with AdamW, learning rate 5e-5 decaying linearly, no warm-up, weight decay 0.01,
clipping at 1, max_length 128, in float32 or (--bf16) under bfloat16 autocast, and are measured on the test rows after
it. Runs are interleaved. Each runs in a process of its own, through this program's command line or through Trainer as
its examples have it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.runner import ROOT, Table, call_apart, copy_rows, flags_of, make_tiny_nsmc, program, say, summary_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nsmc", type=Path, help="a folder with ratings_train.txt and ratings_test.txt")
    parser.add_argument("model", type=Path, help="a folder with an encoder")
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bf16", action="store_true")


def tiny(folder: Path) -> list[str]:
    nsmc = make_tiny_nsmc(folder / "nsmc")
    return [str(nsmc), str(ROOT / "examples/encoder"), "--rows", "64", "--test-rows", "32", "--seeds", "0"]


def run_ours(data: Path, model: Path, output_dir: Path, seed: int, bf16: bool) -> float:
    """Train through the command line; the accuracy on test."""
    flags = {
        "--config": ROOT / "recipes" / "nsmc.yaml", "--model_name": model, "--dataset": data,
        "--output_dir": output_dir, "--epochs": 1, "--seed": seed, "--learning_rate": "5e-5", "--batch_size": 32,
        "--gradient_accumulation_steps": 1, "--max_length": 128,
    }  # fmt: skip
    settings = (
        "training.warmup_ratio=0",
        "logging.progress_bar=false",
        f"data.dataset_cache_dir={data.parent / 'cache'}",
    )
    program("train", *flags_of(flags, settings), *([] if bf16 else ["--no-mixed_precision"]))
    return float(summary_of(output_dir)["test"]["accuracy"])


def run_trainer(data: Path, model: Path, output_dir: Path, seed: int, bf16: bool) -> float:
    """Train through transformers.Trainer; the accuracy on test."""
    return float(
        call_apart("parity:train_with_trainer", data=data, model=model, output_dir=output_dir, seed=seed, bf16=bf16)
    )


def train_with_trainer(data: str, model: str, output_dir: str, seed: int, bf16: bool) -> float:
    """transformers.Trainer as its text-classification example has it."""
    import numpy as np
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    files = {"train": f"{data}/train.txt", "test": f"{data}/test.txt"}
    rows = load_dataset("csv", data_files=files, sep="\t", quoting=3, keep_default_na=False)
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = rows.map(lambda batch: tokenizer(batch["document"], truncation=True, max_length=128), batched=True)
    arguments = TrainingArguments(
        output_dir=output_dir, num_train_epochs=1, per_device_train_batch_size=32, per_device_eval_batch_size=64,
        learning_rate=5e-5, weight_decay=0.01, max_grad_norm=1.0, seed=seed, save_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=True, bf16=bf16,
    )  # fmt: skip
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=2),
        args=arguments,
        train_dataset=encoded["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    predicted = trainer.predict(encoded["test"])
    return float((np.argmax(predicted.predictions, -1) == predicted.label_ids).mean())


def run(arguments: argparse.Namespace) -> list[Table]:
    """Run both for each seed, in turns."""
    runners = {"this program": run_ours, "transformers.Trainer": run_trainer}
    accuracy: dict[str, list[float]] = {name: [] for name in runners}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    with tempfile.TemporaryDirectory() as folder:
        scratch, model = Path(folder), arguments.model.resolve()
        data = scratch / "nsmc"
        data.mkdir()
        copy_rows(arguments.nsmc / "ratings_train.txt", data / "train.txt", arguments.rows)
        copy_rows(arguments.nsmc / "ratings_test.txt", data / "test.txt", arguments.test_rows)
        # this program chooses its best epoch on validation; with one epoch the choice is empty, so a few rows will do
        copy_rows(arguments.nsmc / "ratings_train.txt", data / "validation.txt", 100, skipped=arguments.rows)
        for seed in arguments.seeds:
            for number, (name, runner) in enumerate(runners.items()):
                began = time.perf_counter()
                accuracy[name].append(runner(data, model, scratch / f"{seed}-{number}" / "model", seed, arguments.bf16))
                seconds[name].append(time.perf_counter() - began)
                say(f"seed {seed}  {name}: accuracy {accuracy[name][-1]:.4f}, {seconds[name][-1]:.0f} s")
    return [
        Table(
            ("trainer", "accuracy", "by seed", "seconds"),
            [
                {
                    "trainer": name, "accuracy": statistics.mean(found), "by seed": found,
                    "seconds": statistics.median(seconds[name]),
                }
                for name, found in accuracy.items()
            ],
        )
    ]  # fmt: skip
