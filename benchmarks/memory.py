"""Memory: estimate beside measured peak, and tokens a second, of one setting at a time and of all together.

usage: python benchmarks/memory.py DATA_FOLDER MODELS_FOLDER [--work causal|encoder] [--model NAME] [--rows plain ...]
       [--row NAME "section.key=value ..."] [--steps 4] [--max-length 256]

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
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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

    def line(self, name: str) -> str:
        estimate = f"{self.estimate / MIB:,.0f} | {self.estimate / self.peak:.2f}" if self.estimate else "| "
        return f"| {name} | {estimate} | {self.peak / MIB:,.0f} | {self.tokens_per_s:.0f} |"


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
    model = made_encoder(scratch) if arguments.model == "bert-base" else arguments.models.resolve() / arguments.model
    flags = [
        "--task", task, "--model_name", model, "--dataset", data, "--output_dir", scratch / "model",
        *(part for option in every for part in ("--set", option)),
    ]  # fmt: skip
    planned = run_program("plan", flags)
    run_program("train", flags)
    summary = json.loads((scratch / "model" / "summary.json").read_text(encoding="utf-8"))
    lines = (scratch / "model" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [record["tokens_per_s"] for record in map(json.loads, lines) if record["kind"] == "train"]
    peak = summary["peak_memory_bytes"] - summary["memory_before_model_bytes"]
    return Measured(planned_bytes(planned), peak, sorted(speeds)[len(speeds) // 2])


def run_program(command: str, flags: list[object]) -> str:
    """What a command of this program prints."""
    words = [sys.executable, ROOT / "finetuning_app.py", command, *flags]
    done = subprocess.run(
        list(map(str, words)), check=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout


def planned_bytes(text: str) -> int:
    """The estimate for the model and its training out of what `plan` prints, without the program itself.

    There is room for the copy that a checkpoint is written out of, so it counts where it makes the peak.
    """
    found = re.findall(r"^  (합계|프로그램|체크포인트를 저장하는 동안): ([0-9.]+)", text, flags=re.MULTILINE)
    gib = {name: float(size) for name, size in found}
    return int((max(gib["합계"], gib.get("체크포인트를 저장하는 동안", 0.0)) - gib.get("프로그램", 0.0)) * 2**30)


def made_encoder(scratch: Path) -> Path:
    """A BERT-base shape with random weights."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.throughput import make_encoder

    return make_encoder(scratch / "bert-base")


def run_trainer(arguments: argparse.Namespace, data: Path) -> Measured:
    """The same through transformers.Trainer, in a process of its own."""
    command = [sys.executable, __file__, arguments.data, arguments.models, "--model", arguments.model, "--max-length",
               arguments.max_length, "--trainer-data", data]  # fmt: skip
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    peak, speed = json.loads(done.stdout.splitlines()[-1])
    return Measured(None, peak, speed)


def train_with_trainer(arguments: argparse.Namespace) -> tuple[int, float]:
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

    sys.path.insert(0, str(ROOT))
    from finetuning.config.schema import Settings
    from finetuning.device.precision import autocast_precision

    folder = arguments.models.resolve() / arguments.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = load_dataset("csv", data_files=str(arguments.trainer_data / "train.csv"))["train"]
    encoded = rows.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=arguments.max_length), remove_columns=["text"]
    )
    precision = autocast_precision(Settings())
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=BATCH, save_strategy="no",
        report_to=[], disable_tqdm=True, bf16=precision == "bf16", fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    before = psutil.Process().memory_info().rss
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = Trainer(model=model, args=options, train_dataset=encoded,
                      data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    speed = sum(map(len, encoded["input_ids"])) / (time.perf_counter() - began)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), speed
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--work", choices=("causal", "encoder"), default="causal")
    parser.add_argument("--model")
    parser.add_argument("--rows", nargs="*")
    parser.add_argument("--row", nargs=2, action="append", default=[], metavar=("NAME", "SETTINGS"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--trainer-data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer_data is not None:
        print(json.dumps(train_with_trainer(arguments)))
        return
    is_encoder = arguments.work == "encoder"
    arguments.model = arguments.model or ("e5-small" if is_encoder else "smollm2-135m")
    rows = arguments.rows if arguments.rows is not None else ENCODER_ROWS if is_encoder else [TRAINER, *ROWS]
    source = arguments.data / ("nsmc/ratings_train.txt" if is_encoder else "chatbot/ChatbotData.csv")
    more = {name: tuple(settings.split()) for name, settings in arguments.row}
    print("| setting | estimate, MiB | estimate / measured | measured, MiB | tokens/s |\n|---|---|---|---|---|")
    for name in [*rows, *more]:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            data = scratch / "data"
            data.mkdir()
            write_data(source, data, arguments.steps)
            if name == TRAINER:
                measured = run_trainer(arguments, data)
            else:
                measured = run_ours({**ROWS, **more}[name], arguments, data, scratch)
        print(measured.line(name), flush=True)


if __name__ == "__main__":
    main()
