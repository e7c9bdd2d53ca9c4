"""Golden losses: 20 steps of three recipes, so that a change of layout cannot change the mathematics unseen.

They are recorded on instructions that every x86-64 machine of the last ten years has, with one thread, in float32.
`python -m tests.golden.test_golden_losses` records them anew: only in a commit that says which behaviour changed.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.forked import run_forked
from tests.support.paths import ROOT

RECORDED = Path(__file__).with_name("losses.json")
EVERYWHERE = {
    "HF_HUB_OFFLINE": "1", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip
MODULE = "tests.golden.test_golden_losses"  # its name also where it is run, to record
STEPS = 20
SAME = 1e-5  # relative: libraries of mathematical functions differ by this much, a changed order of rows by far more

# recipe → its flags beside the recipe's own
RECIPES = {
    "quickstart": ("--batch_size", "16"),
    "pretrain-encoder": (
        "--model_name", "examples/encoder", "--dataset", "examples/reviews", "--text_column", "text",
        "--max_length", "64", "--batch_size", "16", "--gradient_accumulation_steps", "1",
        "--set", "model.save_dtype=null",
    ),
    "chatbot": (
        "--model_name", "{home}/causal", "--dataset", "{home}/pairs.csv", "--batch_size", "4",
        "--gradient_accumulation_steps", "4",
        "--set", "generation.validation_rows=0", "--set", "generation.max_new_tokens=1",
        "--set", "data.train_rows=337",  # of these 17 are held out
    ),
}  # fmt: skip


def make_inputs(home: Path) -> None:
    """A Llama of random weights with the tokenizer of the bundled encoder, and pairs out of the bundled reviews."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(ROOT / "examples/encoder/tokenizer.json"), eos_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]", model_max_length=128,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(home / "causal")
    tokenizer.save_pretrained(home / "causal")
    with (ROOT / "examples/reviews/train.csv").open(encoding="utf-8-sig", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with (home / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Q", "A"), *itertools.pairwise(texts)])


def train(recipe: str, home: Path) -> None:
    """Run the recipe, by the command line."""
    flags = [flag.format(home=home) for flag in RECIPES[recipe]]
    words = [
        "--config", f"recipes/{recipe}.yaml", "--output_dir", str(home / recipe), "--no-mixed_precision",
        "--epochs", "1", "--set", "data.train_rows=320", "--set", "data.test_rows=32", "--set", "logging.log_steps=1",
        "--set", f"data.dataset_cache_dir={home}/cache", "--set", "logging.progress_bar=false",
        "--set", "logging.report=false", *flags,
    ]  # fmt: skip
    code, _, said = run_forked(words, ROOT, "", 300)
    assert code == 0, said


def losses_of(home: Path) -> dict[str, list[float]]:
    """The loss of every step of each recipe: all are forked from one process, which instructions are set for."""
    done = subprocess.run(
        [sys.executable, "-c", f"from {MODULE} import *\nfor recipe in RECIPES: train(recipe, Path({str(home)!r}))"],
        cwd=ROOT, env={**os.environ, **EVERYWHERE}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for recipe in RECIPES:
        lines = (home / recipe / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found[recipe] = [line["loss"] for line in map(json.loads, lines) if line["kind"] == "train"]
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("golden")
    make_inputs(folder)
    return losses_of(folder)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the losses were recorded on x86-64")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_losses_are_those_that_were_recorded(recipe: str, found: dict[str, list[float]]) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))[recipe]
    assert len(recorded) == STEPS
    assert found[recipe] == pytest.approx(recorded, rel=SAME)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        make_inputs(Path(scratch))
        text = json.dumps(losses_of(Path(scratch)), indent=1)
    RECORDED.write_text(text + "\n", encoding="utf-8")
