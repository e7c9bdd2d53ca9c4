"""Memory: estimate beside measured peak, and tokens a second, of one setting at a time and of all together.

DATA_FOLDER holds chatbot/ChatbotData.csv and nsmc/ratings_train.txt as they are published; MODELS_FOLDER the model:
smollm2-135m, or e5-small for an encoder, where `--model bert-base` is made here with random weights. Every row trains
in a process of its own, through this program's command line or, for reference, through transformers.Trainer with the
same texts, batch and precision. The estimate is what `plan` says. Measured is the growth of the peak over what the
process had before the model was loaded: resident memory on a CPU, allocated memory on a GPU. Tokens are real ones,
padding not counted. Texts are the longest of the file, joined by twos, so that batches are of a size that matters and
nobody has to cut them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import ROOT, Table, call_apart, flags_of, make_tiny_nsmc, program, say, summary_of
from benchmarks.throughput import make_encoder

BATCH, MIB = 8, 2**20
TRAINER = "transformers.Trainer"
LEAN = ("memory.gradient_checkpointing=true", "model.dtype=bfloat16", "training.optimizer=adafactor")
ROWS = {
    "plain": (),
    "float32": ("memory.mixed_precision=false",),
    "smaller micro-batches": ("data.batch_size=2", "memory.gradient_accumulation_steps=4"),
    "gradient checkpointing": ("memory.gradient_checkpointing=true",),
    "optimizer in backward": ("memory.optimizer_in_backward=true",),
    "bfloat16 weights": ("model.dtype=bfloat16",),
    "adafactor": ("training.optimizer=adafactor",),
    "adamw_8bit": ("training.optimizer=adamw_8bit",),
    "freeze": ("model.adapter.method=freeze",),
    "lora": ("model.adapter.method=lora",),
    "lora, gradient checkpointing": ("model.adapter.method=lora", "memory.gradient_checkpointing=true"),
    "lora, 4bit": ("model.adapter.method=lora", "model.quantization=4bit"),
    "all that keep full fine-tuning": (*LEAN, "memory.optimizer_in_backward=true"),
    "all, smaller micro-batches": (*LEAN, "data.batch_size=2", "memory.gradient_accumulation_steps=4"),
}
ENCODER_ROWS = ("plain", "gradient checkpointing", "lora", "lora, gradient checkpointing")


@dataclass(frozen=True)
class Measured:
    """Bytes estimated (None: nothing estimates) and measured, real tokens a second."""

    estimate: int | None
    peak: int
    tokens_per_s: float

    def row(self, name: str) -> dict[str, Any]:
        return {
            "setting": name,
            "estimate, MiB": round(self.estimate / MIB) if self.estimate else None,
            "estimate / measured": self.estimate / self.peak if self.estimate else None,
            "measured, MiB": round(self.peak / MIB),
            "tokens/s": self.tokens_per_s,
        }


def write_data(source: Path, folder: Path, steps: int) -> None:
    """Long texts out of a published file: train.csv of `steps` batches, validation.csv of four texts.

    Each is two of the longest joined: a pair's question and answer, or a review, which keeps the first one's label.
    """
    is_reviews = source.suffix == ".txt"
    with source.open(encoding="utf-8-sig", newline="") as file:
        read = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if is_reviews else csv.DictReader(file)
        rows = [(row["document"], row["label"]) if is_reviews else (f"{row['Q']} {row['A']}", "0") for row in read]
    rows = sorted(rows, key=lambda row: len(row[0] or ""), reverse=True)
    pairs = [(f"{rows[at][0]} {rows[at + 1][0]}", rows[at][1]) for at in range(0, 2 * (steps * BATCH + 4), 2)]
    for name, part in (("train", pairs[4:]), ("validation", pairs[:4])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [("text", "label"), *part] if is_reviews else [("text",), *((t,) for t, _ in part)]
            )


def run_ours(options: tuple[str, ...], arguments: argparse.Namespace, data: Path, scratch: Path) -> Measured:
    """Plans and trains through the command line; what it came to is in summary.json and metrics.jsonl."""
    every = (
        "memory.gradient_accumulation_steps=1", f"data.batch_size={BATCH}", f"data.max_length={arguments.max_length}",
        "training.epochs=1", "generation.validation_rows=0", "generation.max_new_tokens=4", "logging.log_steps=1",
        "logging.progress_bar=false", f"data.dataset_cache_dir={scratch / 'cache'}", *options,
    )  # fmt: skip
    task = "text-classification" if arguments.work == "encoder" else "text-generation"
    is_made = arguments.model == "bert-base"
    model = make_encoder(scratch / "bert-base") if is_made else arguments.models.resolve() / arguments.model
    flags = flags_of(
        {"--task": task, "--model_name": model, "--dataset": data, "--output_dir": scratch / "model"}, every
    )
    planned = program("plan", *flags)
    program("train", *flags)
    summary = summary_of(scratch / "model")
    lines = (scratch / "model" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [record["tokens_per_s"] for record in map(json.loads, lines) if record["kind"] == "train"]
    peak = summary["peak_memory_bytes"] - summary["memory_before_model_bytes"]
    return Measured(planned_bytes(planned), peak, sorted(speeds)[len(speeds) // 2])


def planned_bytes(text: str) -> int:
    """The estimate for the model and its training out of what `plan` prints, without the program itself.

    There is room for the copy that a checkpoint is written out of, so it counts where it makes the peak.
    """
    found = re.findall(r"^  (합계|프로그램|체크포인트를 저장하는 동안): ([0-9.]+)", text, flags=re.MULTILINE)
    gib = {name: float(size) for name, size in found}
    return int((max(gib["합계"], gib.get("체크포인트를 저장하는 동안", 0.0)) - gib.get("프로그램", 0.0)) * 2**30)


def run_trainer(arguments: argparse.Namespace, data: Path) -> Measured:
    """The same through transformers.Trainer, in a process of its own."""
    model = arguments.models.resolve() / arguments.model
    peak, speed = call_apart("memory:train_with_trainer", model=model, data=data, max_length=arguments.max_length)
    return Measured(None, peak, speed)


def train_with_trainer(model: str, data: str, max_length: int) -> tuple[int, float]:
    """(bytes of growth at the peak, real tokens a second) of transformers.Trainer as its examples have it."""
    import resource

    import psutil
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    from finetuning.config.schema import Settings
    from finetuning.device.precision import autocast_precision

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = load_dataset("csv", data_files=f"{data}/train.csv")["train"]
    encoded = rows.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=max_length), remove_columns=["text"]
    )
    precision = autocast_precision(Settings())
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=BATCH, save_strategy="no",
        report_to=[], disable_tqdm=True, bf16=precision == "bf16", fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    before = psutil.Process().memory_info().rss
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = Trainer(model=loaded, args=options, train_dataset=encoded,
                      data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    speed = sum(map(len, encoded["input_ids"])) / (time.perf_counter() - began)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), speed
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, speed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--work", choices=("causal", "encoder"), default="causal")
    parser.add_argument("--model", help="a folder in MODELS_FOLDER, or bert-base")
    parser.add_argument("--rows", nargs="*", help="settings of the table to measure; all by default")
    parser.add_argument("--row", nargs=2, action="append", default=[], metavar=("NAME", "SETTINGS"),
                        help='a row of your own: NAME "section.key=value ..."')  # fmt: skip
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=256)


def tiny(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    make_tiny_nsmc(folder / "data" / "nsmc")
    words = [str(folder / "data"), str(ROOT / "examples"), "--work", "encoder", "--model", "encoder"]
    return [*words, "--rows", "plain", "--steps", "1", "--max-length", "64"]


def label(arguments: argparse.Namespace) -> str:
    """Return the name that a result is kept under."""
    return f"memory-{arguments.work}"


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train once with each setting."""
    is_encoder = arguments.work == "encoder"
    arguments.model = arguments.model or ("e5-small" if is_encoder else "smollm2-135m")
    names = arguments.rows if arguments.rows is not None else ENCODER_ROWS if is_encoder else [TRAINER, *ROWS]
    source = arguments.data / ("nsmc/ratings_train.txt" if is_encoder else "chatbot/ChatbotData.csv")
    more = {name: tuple(settings.split()) for name, settings in arguments.row}
    rows = []
    for name in [*names, *more]:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            data = scratch / "data"
            data.mkdir()
            write_data(source, data, arguments.steps)
            if name == TRAINER:
                measured = run_trainer(arguments, data)
            else:
                measured = run_ours({**ROWS, **more}[name], arguments, data, scratch)
        rows.append(measured.row(name))
        say(str(rows[-1]))
    return [Table(tuple(rows[0]), rows)]
