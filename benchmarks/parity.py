"""This program beside transformers.Trainer on NSMC: the same rows, settings and seeds; held-out accuracy of each.

usage: python benchmarks/parity.py NSMC_FOLDER MODEL_FOLDER [--rows 6400] [--test-rows 2000] [--seeds 0 1 2] [--bf16]

Both train one epoch of windows of 32 with AdamW, learning rate 5e-5 decaying linearly, no warm-up, weight decay 0.01,
clipping at 1, max_length 128, in float32 or (--bf16) under bfloat16 autocast, and are measured on the test rows after
it. Runs are interleaved. Each runs in a process of its own, through this program's command line or through Trainer as
its examples have it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_rows(source: Path, target: Path, rows: int, skipped: int = 0) -> None:
    """The published file's header and its first rows, after those skipped."""
    with source.open(encoding="utf-8") as lines:
        header = next(lines)
        target.write_text(header + "".join(islice(lines, skipped, skipped + rows)), encoding="utf-8")


def run_ours(data: Path, model: Path, output_dir: Path, seed: int, bf16: bool) -> float:
    """Trains through the command line and returns the accuracy on test."""
    arguments = {
        "--config": ROOT / "recipes" / "nsmc.yaml", "--model_name": model, "--dataset": data,
        "--output_dir": output_dir, "--epochs": 1, "--seed": seed, "--learning_rate": "5e-5", "--batch_size": 32,
        "--gradient_accumulation_steps": 1, "--max_length": 128,
    }  # fmt: skip
    flags = [str(part) for pair in arguments.items() for part in pair]
    options = [
        "training.warmup_ratio=0",
        "logging.progress_bar=false",
        f"data.dataset_cache_dir={data.parent / 'cache'}",
    ]
    for option in options:
        flags += ["--set", option]
    command = [sys.executable, str(ROOT / "finetuning_app.py"), *flags, *([] if bf16 else ["--no-mixed_precision"])]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return float(json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))["test"]["accuracy"])


def run_trainer(data: Path, model: Path, output_dir: Path, seed: int, bf16: bool) -> float:
    """Trains through transformers.Trainer, in a process of its own, and returns the accuracy on test."""
    command = [sys.executable, __file__, str(data), str(model), "--trainer-seed", str(seed), "--out", str(output_dir)]
    command += ["--bf16"] if bf16 else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def train_with_trainer(data: Path, model_folder: Path, output_dir: Path, seed: int, bf16: bool) -> float:
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
    files = {"train": str(data / "train.txt"), "test": str(data / "test.txt")}
    rows = load_dataset("csv", data_files=files, sep="\t", quoting=3, keep_default_na=False)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    encoded = rows.map(lambda batch: tokenizer(batch["document"], truncation=True, max_length=128), batched=True)
    arguments = TrainingArguments(
        output_dir=str(output_dir), num_train_epochs=1, per_device_train_batch_size=32, per_device_eval_batch_size=64,
        learning_rate=5e-5, weight_decay=0.01, max_grad_norm=1.0, seed=seed, save_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=True, bf16=bf16,
    )  # fmt: skip
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=2),
        args=arguments,
        train_dataset=encoded["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    predicted = trainer.predict(encoded["test"])
    return float((np.argmax(predicted.predictions, -1) == predicted.label_ids).mean())


def compare(arguments: argparse.Namespace) -> None:
    """Runs both for each seed, turn and turn about, and prints one table."""
    runners = {"this program": run_ours, "transformers.Trainer": run_trainer}
    accuracy: dict[str, list[float]] = {name: [] for name in runners}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "nsmc"
        data.mkdir()
        write_rows(arguments.nsmc / "ratings_train.txt", data / "train.txt", arguments.rows)
        write_rows(arguments.nsmc / "ratings_test.txt", data / "test.txt", arguments.test_rows)
        # this program chooses its best epoch on validation; with one epoch the choice is empty, so a few rows will do
        write_rows(arguments.nsmc / "ratings_train.txt", data / "validation.txt", 100, skipped=arguments.rows)
        for seed in arguments.seeds:
            for number, (name, runner) in enumerate(runners.items()):
                began = time.perf_counter()
                found = runner(
                    data, arguments.model.resolve(), Path(scratch) / f"{seed}-{number}" / "model", seed, arguments.bf16
                )
                accuracy[name].append(found)
                seconds[name].append(time.perf_counter() - began)
                print(f"seed {seed}  {name}: accuracy {found:.4f}, {seconds[name][-1]:.0f} s", flush=True)
    print("\n| trainer | accuracy, mean | by seed | seconds, median |\n|---|---|---|---|")
    for name, found_all in accuracy.items():
        by_seed = ", ".join(f"{value:.4f}" for value in found_all)
        print(f"| {name} | {statistics.mean(found_all):.4f} | {by_seed} | {statistics.median(seconds[name]):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsmc", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--trainer-seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer_seed is None:
        compare(arguments)
    else:
        print(
            train_with_trainer(arguments.nsmc, arguments.model, arguments.out, arguments.trainer_seed, arguments.bf16)
        )


if __name__ == "__main__":
    main()
