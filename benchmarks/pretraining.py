"""What the bundled encoder's pretraining is worth: fine-tuned on NSMC beside the same shape from random weights.

usage: python benchmarks/pretraining.py NSMC_FOLDER [--encoder examples/encoder] [--seeds 0 1 2]

Both are fine-tuned on the first 10,000 rows of ratings_train.txt with the same settings, and measured on the first
5,000 rows of ratings_test.txt, which the pretraining never saw. Validation rows come out of the 10,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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


def accuracy_of(model: Path, nsmc: Path, output_dir: Path, seed: int) -> float:
    """Fine-tunes through the command line and returns the accuracy on the test rows."""
    flags = [
        "--config", ROOT / "recipes" / "nsmc.yaml", "--model_name", model, "--dataset", nsmc,
        "--output_dir", output_dir, "--learning_rate", "2e-4", "--epochs", "3", "--seed", seed,
        "--set", "training.warmup_ratio=0.1", "--set", "training.weight_decay=0.01",
        "--set", "data.train_rows=10000", "--set", "data.test_rows=5000", "--set", "logging.progress_bar=false",
        "--set", f"data.dataset_cache_dir={output_dir.parent.parent / 'cache'}",
    ]  # fmt: skip
    command = [sys.executable, ROOT / "finetuning_app.py", *flags]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=ROOT)
    return float(json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))["test"]["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsmc", type=Path)
    parser.add_argument("--encoder", type=Path, default=ROOT / "examples" / "encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        encoder = arguments.encoder.resolve()
        starts = {"pretrained": encoder, "random weights": randomised(encoder, Path(scratch) / "random")}
        found: dict[str, list[float]] = {name: [] for name in starts}
        for seed in arguments.seeds:
            for name, model in starts.items():
                output_dir = Path(scratch) / f"{name.replace(' ', '-')}-{seed}" / "model"
                found[name].append(accuracy_of(model, arguments.nsmc.resolve(), output_dir, seed))
                print(f"seed {seed}  {name}: accuracy {found[name][-1]:.4f}", flush=True)
    means = {name: statistics.mean(values) for name, values in found.items()}
    for name, mean in means.items():
        print(f"{name}: mean accuracy {mean:.4f} over {len(arguments.seeds)} seeds")
    print(f"difference: {100 * (means['pretrained'] - means['random weights']):.2f} points")


if __name__ == "__main__":
    main()
