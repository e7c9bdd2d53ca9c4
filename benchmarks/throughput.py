"""Training speed beside transformers.Trainer and the bare limit: the same model, rows, window, precision and machine.

usage: OMP_NUM_THREADS=2 python benchmarks/throughput.py encoder NSMC_FOLDER [--rows 640] [--runs 3]
       OMP_NUM_THREADS=2 python benchmarks/throughput.py causal CHATBOT_CSV --model SMOLLM2_FOLDER [--rows 160]

encoder: a BERT-base shape (12 layers, 768) from random weights with the bundled encoder's tokenizer, on NSMC, 16 × 4
examples a step, max_length 128. causal: full fine-tuning on questions and answers, 16 examples a step, max_length 512;
TRL's SFTTrainer takes part where `pip install -r benchmarks/requirements.txt` was done.

Each run is a process of its own. Contenders take turns, each round with its own seed, after one round that does not
count; the first two steps of a run do not count either, nor does compiling before them. All take the rows in one order,
but for a Trainer that sorts them. The table has medians; the loss is that of the trained model, in float32 without
dropout, on rows that nobody trained on: the mean and range over the seeds. The bare limit is the same model on as many
real tokens in rows without padding: forward, backward, step, nothing else, so its loss means nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 128
CONTENDERS = {
    "encoder": {
        "ours": "this program, bf16",
        "trainer": "Trainer, bf16",
        "trainer-float32": "Trainer, float32 (its default)",
        "trainer-tuned": "Trainer, tuned: bf16, group_by_length, fused",
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


def make_encoder(folder: Path) -> Path:
    """A BERT-base shape with random weights and the bundled encoder's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "examples" / "encoder")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_rows(source: Path, folder: Path, rows: int) -> None:
    """train, and validation of the rows after it, as files of the source's kind with its header."""
    folder.mkdir()
    with source.open(encoding="utf-8") as lines:
        header = next(lines)
        for name, count in (("train", rows), ("validation", HELD_OUT)):
            (folder / f"{name}{source.suffix}").write_text(header + "".join(islice(lines, count)), encoding="utf-8")


def run(work: str, contender: str, data: Path, model: Path, seed: int) -> dict[str, float]:
    """One contender's run: seconds of the steps that count, examples in them, held-out loss, peak memory."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "contenders.py"),
        work,
        contender,
        str(data),
        str(model),
        str(seed),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(names: dict[str, str], runs: dict[str, list[dict[str, float]]]) -> str:
    """The table in Markdown."""

    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in runs[name])

    speeds = {name: sorted(one["examples"] / one["seconds"] for one in runs[name]) for name in runs}
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    lines = ["| contender | examples/s | this program is | loss after it | peak memory |", "|---|---|---|---|---|"]
    for name in runs:
        losses = sorted(one["loss"] for one in runs[name])
        loss = "" if name == "bare" else f"{statistics.mean(losses):.4f} ({losses[0]:.4f} to {losses[-1]:.4f})"
        ratio = "" if name == "ours" else f"{speed['ours'] / speed[name]:.2f} ×"
        memory = f"{median(name, 'peak') / 2**30:.2f} GiB"
        rate = f"{speed[name]:.1f} ({speeds[name][0]:.1f} to {speeds[name][-1]:.1f})"
        lines.append(f"| {names[name]} | {rate} | {ratio} | {loss} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=sorted(CONTENDERS))
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, help="causal: the model's folder")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders that take part; this program always does")
    arguments = parser.parse_args()
    names = CONTENDERS[arguments.work]
    taking_part = [name for name in names if name == "ours" or not arguments.only or name in arguments.only]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in taking_part}
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.data / "ratings_train.txt" if arguments.work == "encoder" else arguments.data
        write_rows(source, Path(scratch) / "data", arguments.rows or (640 if arguments.work == "encoder" else 160))
        model = arguments.model.resolve() if arguments.model else make_encoder(Path(scratch) / "model")
        for number in range(arguments.runs + 1):
            for name in taking_part:
                found = run(arguments.work, name, Path(scratch) / "data", model, seed=number)
                print(f"{number or 'warm-up'}  {name}: {found}", flush=True)
                if number:
                    runs[name].append(found)
    print("\n" + report(names, runs))


if __name__ == "__main__":
    main()
