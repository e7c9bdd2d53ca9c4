"""What the bundled encoder's pretraining is worth: fine-tuned on NSMC beside the same shape from random weights.

Both are fine-tuned on the first 10,000 rows of ratings_train.txt with the same settings, and measured on the first
5,000 rows of ratings_test.txt, which the pretraining never saw. Validation rows come out of the 10,000.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.runner import ROOT, Table, flags_of, make_tiny_nsmc, program, say, summary_of

STARTS = ("pretrained", "random weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nsmc", type=Path, help="a folder with ratings_train.txt and ratings_test.txt")
    parser.add_argument("--encoder", type=Path, default=ROOT / "examples" / "encoder")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--test-rows", type=int, default=5_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=STARTS, help="measure one start alone")


def tiny(folder: Path) -> list[str]:
    return [str(make_tiny_nsmc(folder / "nsmc")), "--rows", "64", "--test-rows", "32", "--seeds", "0"]


def randomised(encoder: Path, target: Path) -> Path:
    """The encoder's config and tokenizer with new random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(encoder)
    config.dtype = torch.float32
    AutoModelForMaskedLM.from_config(config).save_pretrained(target)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(target)
    return target


def accuracy_of(model: Path, output_dir: Path, seed: int, arguments: argparse.Namespace) -> float:
    """Fine-tune through the command line; the accuracy on the test rows."""
    flags = {
        "--config": ROOT / "recipes" / "nsmc.yaml", "--model_name": model, "--dataset": arguments.nsmc.resolve(),
        "--output_dir": output_dir, "--learning_rate": "2e-4", "--epochs": 3, "--seed": seed,
    }  # fmt: skip
    settings = (
        "training.warmup_ratio=0.1", "training.weight_decay=0.01", f"data.train_rows={arguments.rows}",
        f"data.test_rows={arguments.test_rows}", "logging.progress_bar=false",
        f"data.dataset_cache_dir={output_dir.parent.parent / 'cache'}",
    )  # fmt: skip
    program("train", *flags_of(flags, settings))
    return float(summary_of(output_dir)["test"]["accuracy"])


def run(arguments: argparse.Namespace) -> list[Table]:
    """Fine-tune from both starts, or from one, seed by seed."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, encoder = Path(folder), arguments.encoder.resolve()
        starts = dict(zip(STARTS, (encoder, randomised(encoder, scratch / "random")), strict=True))
        starts = {name: model for name, model in starts.items() if arguments.only in (None, name)}
        found: dict[str, list[float]] = {name: [] for name in starts}
        for seed in arguments.seeds:
            for name, model in starts.items():
                output_dir = scratch / f"{name.replace(' ', '-')}-{seed}" / "model"
                found[name].append(accuracy_of(model, output_dir, seed, arguments))
                say(f"seed {seed}  {name}: accuracy {found[name][-1]:.4f}")
    means = {name: statistics.mean(values) for name, values in found.items()}
    rows = [{"start": name, "accuracy": means[name], "by seed": values} for name, values in found.items()]
    if len(means) == len(STARTS):
        rows.append({"start": "difference", "accuracy": means["pretrained"] - means["random weights"]})
    return [Table(("start", "accuracy", "by seed"), rows)]
