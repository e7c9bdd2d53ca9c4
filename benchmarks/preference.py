"""DPO beside TRL's DPOTrainer: the same token ids, order of pairs, window, LoRA, precision and machine.

Set OMP_NUM_THREADS to the number of cores. DATA is ChatbotData.csv, MODEL a causal model; TRL takes part where
`pip install -r benchmarks/requirements.txt` was done. A pair is a question behind some earlier turns, with its answer
as the good one and another question's as the bad one: they measure speed, not taste.

Each run is a process of its own. Contenders take turns, each round with its own seed, after one round that does not
count. Seconds are those of the whole run from the loaded model on: the log-probabilities before training (TRL computes
them before training, too, which is its faster way) and all steps. Both are tried with each size of a micro-batch. The
loss is that of the last epoch's steps, which all contenders take on the same pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.in_process import Clock, evaluator_of, manager_of, prepared_in, run_until_finished, session_by
from benchmarks.runner import ROOT, Table, call_apart, flags_of, say

WINDOW, RATE, BETA, MAX_LENGTH, HELD_OUT = 32, 1e-5, 0.1, 256, 8
MICRO_BATCHES = (1, 2, 4, 8)


def write_pairs(source: Path, folder: Path, rows: int, turns: int) -> None:
    """Write train and validation of pairs; each prompt has `turns` earlier questions with their answers."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        said = [(row["Q"], row["A"]) for row in csv.DictReader(file)]
    draw = random.Random(0)
    folder.mkdir()
    for name, count in (("train", rows), ("validation", HELD_OUT)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                *earlier, (asked, answer), (_, other) = draw.sample(said, turns + 2)
                texts = [text for pair in earlier for text in pair]
                roles = ("user", "assistant") * turns
                prompt = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
                row = {
                    "prompt": [*prompt, {"role": "user", "content": asked}],
                    "chosen": [{"role": "assistant", "content": answer}],
                    "rejected": [{"role": "assistant", "content": other}],
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def words(model: Path, data: Path, scratch: Path, seed: int, size: int) -> list[str]:
    """This program's command line for a run with micro-batches of up to `size` pairs of the full length."""
    flags = {
        "--config": ROOT / "recipes" / "preference.yaml", "--model_name": model, "--dataset": data, "--output_dir":
        scratch / "model", "--epochs": 1, "--seed": seed, "--max_length": MAX_LENGTH, "--batch_size": size,
        "--gradient_accumulation_steps": WINDOW // size, "--learning_rate": RATE,
    }  # fmt: skip
    settings = ("training.warmup_ratio=0", "logging.progress_bar=false", f"preference.beta={BETA}",
                "model.adapter.dropout=0", f"data.dataset_cache_dir={scratch / 'cache'}")  # fmt: skip
    return flags_of(flags, settings)


def contend(name: str, data: str, model: str, seed: int) -> dict[str, float]:
    """Train as one contender.

    Args:
        name: `ours-N` or `trl-N`, with micro-batches of N pairs.
        data: A folder with train and validation.
        model: A folder with the model.
        seed: Seed of the order of pairs and of the adapter.

    Returns:
        Seconds, pairs, the last step's loss, and peak memory in bytes.
    """
    from finetuning.device.usage import peak_bytes

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        contender, size = name.split("-")
        prepared, tokenizer = prepared_in(session_by(words(Path(model), Path(data), scratch, seed, int(size))))
        evaluator = evaluator_of(prepared, tokenizer)
        train = {"ours": _ours, "trl": _trl}[contender]
        since = time.perf_counter()
        loss = train(int(size), prepared, evaluator, scratch)
        return {
            "seconds": round(time.perf_counter() - since, 2), "pairs": len(prepared.examples["train"]),
            "loss": round(loss, 4), "peak": peak_bytes(evaluator.runtime.device),
        }  # fmt: skip


def _ours(size: int, prepared: Any, evaluator: Any, scratch: Path) -> float:
    import dataclasses

    from finetuning.commands.references import compared

    examples = compared(prepared.session, evaluator, {"train": prepared.examples["train"]}, starts_here=True)
    prepared = dataclasses.replace(prepared, examples={**prepared.examples, **examples})
    clock = Clock(len(examples["train"]) // WINDOW, 1)
    manager = manager_of(prepared, evaluator, clock.tick_and_stop, scratch / "model")
    clock.start()
    run_until_finished(manager)
    manager.ledger.read()
    return float(manager.state.this_epoch.loss)


def _trl(size: int, prepared: Any, evaluator: Any, scratch: Path) -> float:
    """DPOTrainer on the same token ids; it adds its own LoRA to the same base."""
    from accelerate.state import AcceleratorState
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from finetuning.windows.order import epoch_order

    AcceleratorState._reset_state(reset_partial_state=True)
    seed, examples = prepared.session.settings.training.seed, prepared.examples["train"]
    rows = [_as_trl(row) for row in examples.table.select(epoch_order(len(examples), seed, 0))]
    config = DPOConfig(
        output_dir=str(scratch / "trl"), per_device_train_batch_size=size, gradient_accumulation_steps=WINDOW // size,
        num_train_epochs=1, learning_rate=RATE, weight_decay=0.01, beta=BETA, bf16=True, max_length=MAX_LENGTH,
        precompute_ref_log_probs=True, precompute_ref_batch_size=size, gradient_checkpointing=False, seed=seed,
        train_sampling_strategy="sequential", save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1,
        dataloader_drop_last=True, use_cpu=evaluator.model.device.type == "cpu",
    )  # fmt: skip

    class OfTokens(DPOTrainer):
        """DPOTrainer on rows that hold token ids already."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    trainer = OfTokens(model=evaluator.model, args=config, train_dataset=Dataset.from_list(rows),
                       processing_class=evaluator.tokenizer)  # fmt: skip
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    return statistics.mean(losses)


def _as_trl(row: Any) -> dict[str, list[int]]:
    """A pair's token ids under the names that DPOTrainer reads."""
    shared, first, _second = row["branches"]
    ids, kinds = row["input_ids"], row["trained"]
    good, bad = ids[: shared + first], ids[:shared] + ids[shared + first :]
    start = kinds.index(1)
    return {"prompt_ids": good[:start], "chosen_ids": good[start:], "rejected_ids": bad[start:]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="ChatbotData.csv")
    parser.add_argument("model", type=Path, help="a folder with a causal model, such as gemma3-270m")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--turns", type=int, default=3, help="earlier questions with answers in each prompt")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=MICRO_BATCHES, help="pairs of a micro-batch")


def run(arguments: argparse.Namespace) -> list[Table]:
    """Run the contenders in turns, after one round that does not count."""
    names = [f"{contender}-{size}" for size in arguments.sizes for contender in ("ours", "trl")]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_pairs(arguments.data, data, arguments.rows, arguments.turns)
        for number in range(arguments.runs + 1):
            for name in names:
                found = call_apart("preference:contend", name=name, data=data, model=arguments.model.resolve(),
                                   seed=number)  # fmt: skip
                say(f"{number or 'warm-up'}  {name}: {found}")
                if number:
                    runs[name].append(found)
    return [table(runs)]


def table(runs: dict[str, list[dict[str, float]]]) -> Table:
    """Medians over the runs; of the loss all values."""
    speeds = {name: [one["pairs"] / one["seconds"] for one in found] for name, found in runs.items()}
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    ours = max(value for name, value in speed.items() if name.startswith("ours"))
    rows = [
        {
            "contender": name, "pairs/s": speed[name], "by run": speeds[name],
            "our fastest is": None if name.startswith("ours") else ours / speed[name],
            "loss by run": [one["loss"] for one in found],
            "peak, GiB": statistics.median(one["peak"] for one in found) / 2**30,
        }
        for name, found in runs.items()
    ]  # fmt: skip
    return Table(("contender", "pairs/s", "by run", "our fastest is", "loss by run", "peak, GiB"), rows)
