"""What new Korean pieces are worth: the same texts in the same windows, with and without model.extend_vocabulary.

Reviews of ratings_train.txt are joined to documents of ten, a line each, so that hardly any character is the first of
its text, which nothing predicts. Both runs are measured on documents of ratings_test.txt: tokens for each character,
and loss for each character, which compares across tokenizers. The pieces are learned from the documents trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.runner import Table, flags_of, program, say, summary_of

_REVIEWS_A_DOCUMENT = 10


def write_documents(source: Path, reviews: int, target: Path) -> list[str]:
    """The first reviews of a published NSMC file as documents in a JSONL file."""
    lines = source.read_text(encoding="utf-8").splitlines()[1 : reviews + 1]
    texts = [line.split("\t")[1] for line in lines]
    documents = [
        "\n".join(texts[start : start + _REVIEWS_A_DOCUMENT]) for start in range(0, len(texts), _REVIEWS_A_DOCUMENT)
    ]
    target.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return documents


def tokens_per_character(folder: Path, documents: list[str]) -> float:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return sum(len(tokenizer(text)["input_ids"]) for text in documents) / sum(map(len, documents))


def flags(model: Path, data: Path, output_dir: Path, learning_rate: float, pieces: int | None) -> list[str]:
    """One epoch of continued pretraining, nothing generated, the split that is measured left whole."""
    settings = [
        "training.lr_scheduler=cosine", "training.warmup_ratio=0.1", "text_generation.format=text",
        "generation.validation_rows=0", "generation.max_new_tokens=1", "data.validation_rows=4",
        "logging.progress_bar=false", f"data.dataset_cache_dir={output_dir.parent / 'cache'}",
        *([f"model.extend_vocabulary={pieces}"] if pieces else []),
    ]  # fmt: skip
    return flags_of({
        "--model_name": model, "--task": "text-generation", "--dataset": data, "--output_dir": output_dir,
        "--epochs": 1, "--batch_size": 1, "--gradient_accumulation_steps": 1, "--max_length": 2048,
        "--learning_rate": learning_rate,
    }, settings)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nsmc", type=Path, help="a folder with ratings_train.txt and ratings_test.txt")
    parser.add_argument("model", type=Path, help="a folder with a causal language model")
    parser.add_argument("--reviews", type=int, default=500)
    parser.add_argument("--held_out", type=int, default=100)
    parser.add_argument("--pieces", type=int, default=8000)
    parser.add_argument("--learning_rate", type=float, default=3e-4)


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train with new pieces and without."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = scratch / "data"
        data.mkdir()
        trained = write_documents(arguments.nsmc / "ratings_train.txt", arguments.reviews, data / "train.jsonl")
        held_out = write_documents(arguments.nsmc / "ratings_test.txt", arguments.held_out, data / "test.jsonl")
        say(f"{sum(map(len, trained)):,} characters trained, {sum(map(len, held_out)):,} held out")
        for pieces in (arguments.pieces, None):
            output_dir, since = scratch / f"pieces-{pieces}", time.perf_counter()
            program("train", *flags(arguments.model.resolve(), data, output_dir, arguments.learning_rate, pieces))
            rows.append({
                "vocabulary": f"{pieces:,} pieces more" if pieces else "as it is",
                "tokens/character": tokens_per_character(output_dir, held_out),
                "loss/character": summary_of(output_dir)["test"]["loss_per_char"],
                "seconds": time.perf_counter() - since,
            })  # fmt: skip
            say(str(rows[-1]))
    return [Table(tuple(rows[0]), rows)]
