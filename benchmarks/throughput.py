"""Training speed beside transformers.Trainer and the bare limit: the same model, rows, window, precision and machine.

Set OMP_NUM_THREADS to the number of cores. DATA is NSMC's folder for an encoder and ChatbotData.csv for a causal model.

encoder: a BERT-base shape (12 layers, 768) from random weights with the bundled encoder's tokenizer, on NSMC, 16 × 4
examples a step, max_length 128. causal: full fine-tuning on questions and answers, 16 examples a step, max_length 512;
TRL's SFTTrainer takes part where `pip install -r benchmarks/requirements.txt` was done.

Each run is a process of its own. Contenders take turns, each round with its own seed, after one round that does not
count; the first two steps of a run do not count either, nor does compiling before them. All take the rows in one order,
but for a Trainer that sorts them. The table has medians; the loss is that of the trained model, in float32 without
dropout, on rows that nobody trained on: the mean and range over the seeds. The bare limit is the same model on as many
real tokens in rows without padding: forward, backward, step, nothing else, so its loss means nothing.

A second table says what the machine's matrix products reach in the same run, measured between the rounds, and which
part of this program's step they take, by torch's profiler in the round that does not count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.runner import ROOT, Table, call_apart, copy_rows, make_tiny_nsmc, say

HELD_OUT = 128
CONTENDERS = {
    "encoder": {
        "ours": "this program, bf16",
        "trainer": "Trainer, bf16",
        "trainer-float32": "Trainer, float32 (its default)",
        "trainer-tuned": "Trainer, tuned: bf16, group_by_length, fused",
        "trainer-compiled": "Trainer, bf16, torch_compile",
        "bare": "bare limit, bf16",
    },
    "causal": {
        "ours": "this program, bf16",
        "ours-compiled": "this program, bf16, torch_compile",
        "sft": "SFTTrainer, bf16",
        "sft-packing": "SFTTrainer, bf16, packing",
        "bare": "bare limit, bf16",
    },
}


def make_encoder(folder: Path, **size: int) -> Path:
    """A BERT-base shape, or one that differs in `size`, with random weights and the bundled encoder's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "examples" / "encoder")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=2, **size)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def matrix_rate() -> list[float]:
    """Return GFLOP/s of products of a layer's shapes in bfloat16, forward and backward; the best of 20 each."""
    import time

    import torch

    tokens, narrow, wide = 1024, 768, 3072
    rows, weight = torch.randn(tokens, narrow).bfloat16(), torch.randn(wide, narrow).bfloat16()
    upstream, found = torch.randn(tokens, wide).bfloat16(), list[float]()
    for product in (lambda: rows @ weight.t(), lambda: upstream @ weight, lambda: upstream.t() @ rows):
        seconds = []
        for _ in range(20):
            since = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - since)
        found.append(round(2 * tokens * narrow * wide / min(seconds) / 1e9, 1))
    return found


def write_rows(source: Path, folder: Path, rows: int) -> None:
    """Write train, and validation of the rows after it, as files of the source's kind with its header."""
    folder.mkdir()
    copy_rows(source, folder / f"train{source.suffix}", rows)
    copy_rows(source, folder / f"validation{source.suffix}", HELD_OUT, skipped=rows)


def table(names: dict[str, str], runs: dict[str, list[dict[str, float]]]) -> Table:
    """Medians over the runs; of the loss, the mean and all values."""
    speeds = {name: [one["examples"] / one["seconds"] for one in runs[name]] for name in runs}
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    rows = []
    for name in runs:
        losses = [one["loss"] for one in runs[name]]
        rows.append({
            "name": name, "contender": names[name], "examples/s": speed[name], "by run": speeds[name],
            "this program is": None if name == "ours" else speed["ours"] / speed[name],
            "loss": None if name == "bare" else statistics.mean(losses), "loss by run": losses,
            "peak, GiB": statistics.median(one["peak"] for one in runs[name]) / 2**30,
        })  # fmt: skip
    return Table(("contender", "examples/s", "by run", "this program is", "loss", "loss by run", "peak, GiB"), rows)


def products(rates: list[list[float]], share: float) -> Table:
    """The machine's matrix products: their rates over the rounds, and their part of this program's step."""
    found = Table(("bfloat16 product of 1,024 tokens, 768 and 3,072", "GFLOP/s", "by round"))
    names = ("forward", "backward, of the input", "backward, of the weight")
    for name, by_round in zip(names, zip(*rates, strict=True), strict=True):
        found.rows.append({
            found.columns[0]: name, "GFLOP/s": statistics.median(by_round), "by round": list(by_round)
        })  # fmt: skip
    found.title = f"Matrix products take {share:.0%} of the CPU time of this program's step."
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work", choices=sorted(CONTENDERS))
    parser.add_argument("data", type=Path, help="NSMC's folder, or ChatbotData.csv")
    parser.add_argument("--model", type=Path, help="the model's folder; an encoder is made where it is left out")
    parser.add_argument("--adapter", choices=("none", "lora"), default="none", help="what is trained of the model")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders that take part; this program always does")


def label(arguments: argparse.Namespace) -> str:
    """Return the name that a result is kept under; models that the tables do not show have one of their own."""
    model = arguments.model.resolve().name.lower() if arguments.model and arguments.work == "causal" else "smollm2-135m"
    named = [] if model == "smollm2-135m" else [model]
    return "-".join(
        ["throughput", arguments.work, *named, *([] if arguments.adapter == "none" else [arguments.adapter])]
    )


def tiny(folder: Path) -> list[str]:
    data, model = make_tiny_nsmc(folder / "nsmc"), ROOT / "examples" / "encoder"
    return ["encoder", str(data), "--model", str(model), "--rows", "192", "--runs", "1", "--only", "trainer", "bare"]


def run(arguments: argparse.Namespace) -> list[Table]:
    """Run the contenders in turns, after one round that does not count."""
    names = CONTENDERS[arguments.work]
    taking_part = [name for name in names if name == "ours" or not arguments.only or name in arguments.only]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in taking_part}
    rates, share = list[list[float]](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = arguments.data / "ratings_train.txt" if arguments.work == "encoder" else arguments.data
        write_rows(source, scratch / "data", arguments.rows or (640 if arguments.work == "encoder" else 160))
        model = arguments.model.resolve() if arguments.model else make_encoder(scratch / "model")
        for number in range(arguments.runs + 1):
            for name in taking_part:
                found = call_apart(
                    "contenders:contend",
                    work=arguments.work,
                    name=name,
                    data=scratch / "data",
                    model=model,
                    seed=number,
                    adapter=arguments.adapter,
                    is_profiled=name == "ours" and number == 0,
                )
                share = found.get("products", share)
                say(f"{number or 'warm-up'}  {name}: {found}")
                if number:
                    runs[name].append(found)
            rates.append(call_apart("throughput:matrix_rate"))
    return [table(names, runs), products(rates, share)]
