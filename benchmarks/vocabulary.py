"""What new Korean pieces are worth: the same texts in the same windows, with and without model.extend_vocabulary.

usage: python benchmarks/vocabulary.py NSMC_FOLDER MODEL [--reviews 500] [--pieces 8000] [--learning_rate 3e-4]

Reviews of ratings_train.txt are joined to documents of ten, a line each, so that hardly any character is the first of
its text, which nothing predicts. Both runs are measured on documents of ratings_test.txt: tokens for each character,
and loss for each character, which compares across tokenizers. The pieces are learned from the documents trained on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
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


def run(*arguments: object) -> None:
    """The program in a process of its own."""
    command = [sys.executable, ROOT / "finetuning_app.py", *arguments]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def tokens_per_character(folder: Path, documents: list[str]) -> float:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return sum(len(tokenizer(text)["input_ids"]) for text in documents) / sum(map(len, documents))


def flags(model: Path, data: Path, output_dir: Path, learning_rate: float) -> list[object]:
    """One epoch of continued pretraining, nothing generated, the split that is measured left whole."""
    return [
        "--model_name", model, "--task", "text-generation", "--dataset", data, "--output_dir", output_dir,
        "--epochs", 1, "--batch_size", 1, "--gradient_accumulation_steps", 1, "--max_length", 2048,
        "--learning_rate", learning_rate, "--set", "training.lr_scheduler=cosine", "--set", "training.warmup_ratio=0.1",
        "--set", "text_generation.format=text", "--set", "generation.validation_rows=0",
        "--set", "generation.max_new_tokens=1", "--set", "data.validation_rows=4",
        "--set", "logging.progress_bar=false", "--set", f"data.dataset_cache_dir={output_dir.parent / 'cache'}",
    ]  # fmt: skip


def main() -> None:
    """One line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsmc", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--reviews", type=int, default=500)
    parser.add_argument("--held_out", type=int, default=100)
    parser.add_argument("--pieces", type=int, default=8000)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        data = scratch / "data"
        data.mkdir()
        trained = write_documents(arguments.nsmc / "ratings_train.txt", arguments.reviews, data / "train.jsonl")
        held_out = write_documents(arguments.nsmc / "ratings_test.txt", arguments.held_out, data / "test.jsonl")
        print(f"{sum(map(len, trained)):,} characters trained, {sum(map(len, held_out)):,} held out", flush=True)
        print("                      tokens/character   loss/character   seconds")
        model = arguments.model.resolve()
        for pieces in (arguments.pieces, None):
            output_dir, since = scratch / f"pieces-{pieces}", time.perf_counter()
            run(
                *flags(model, data, output_dir, arguments.learning_rate),
                *(["--set", f"model.extend_vocabulary={pieces}"] if pieces else []),
            )
            seconds = time.perf_counter() - since
            summary: dict[str, Any] = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
            tokens, name = tokens_per_character(output_dir, held_out), f"{pieces:,} pieces" if pieces else "as it is"
            print(
                f"{name:<22}{tokens:>16.3f} {summary['test']['loss_per_char']:>16.4f} {seconds:>9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
