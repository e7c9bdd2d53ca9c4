"""Embeddings beside sentence-transformers' trainer: the same texts, windows, steps, seed, schedule, precision, machine.

Set OMP_NUM_THREADS to the number of cores. DATA is KorQuAD_v1.0_dev.json (speed: its passages are long; an untrained e5
finds nearly all of them) or ChatbotData.csv (a gain: answers as passages), MODEL a folder with multilingual-e5-small;
sentence-transformers takes part where `pip install -r benchmarks/requirements.txt` was done.

A passage and all its questions are on one side: passages are drawn with a fixed seed, first those that are held out,
with all their questions, and then those to train on, with one question each, so that no window has a passage twice and
the losses of all contenders are one and the same. What is compared is the model after the last step, by the held-out
questions over the held-out passages, with this program's evaluation for all.

Each run is a process of its own. Contenders take turns, each round with its own seed, after one round that does not
count (--warm_up 0 leaves it out). Seconds are the median of a run's steps, so that no evaluation or checkpoint counts.
MultipleNegativesRankingLoss takes the window at once; CachedMultipleNegativesRankingLoss is tried with each
`mini_batch_size`, and this program with each `batch_size`, whose micro-batches are of as many of the longest passages.
A contender is compared with the fastest of this program's runs that take no more memory than it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.in_process import (
    Clock,
    evaluator_of,
    manager_of,
    prepared_in,
    run_until_finished,
    session_by,
    wait_for_device,
)
from benchmarks.runner import ROOT, Table, call_apart, flags_of, say

WINDOW, MINI_BATCHES, OUR_BATCHES, LEAST_VALIDATED = 128, (8, 16, 32, 64), (16, 32), 8
_UNCOUNTED = 1  # steps of a run that warm up
_METRICS = {"recall@1": "recall_at_1", "nDCG@10": "ndcg_at_10"}


def write_pairs(source: Path, folder: Path, passages: int, held_out: int) -> None:
    """Write train, validation (a few rows, which training asks for) and test of questions and passages.

    Args:
        source: KorQuAD's JSON, or a CSV of questions and answers in its first two columns.
        folder: A new folder.
        passages: Passages to train on, with one question each.
        held_out: Passages of the test, with all their questions.
    """
    asked: dict[str, list[str]] = {}
    for question, passage in _pairs_in(source):
        asked.setdefault(passage, []).append(question)
    draw = random.Random(0)
    contexts = draw.sample(sorted(asked), passages + held_out)
    test = [(question, context) for context in contexts[:held_out] for question in asked[context]]
    train = [(draw.choice(asked[context]), context) for context in contexts[held_out:]]
    folder.mkdir()
    for name, rows in (("train", train), ("validation", test[:LEAST_VALIDATED]), ("test", test)):
        lines = [
            json.dumps({"question": question, "passage": context}, ensure_ascii=False) for question, context in rows
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pairs_in(source: Path) -> Iterator[tuple[str, str]]:
    """Questions, each with its passage."""
    if source.suffix == ".csv":
        with source.open(encoding="utf-8", newline="") as lines:
            yield from ((row[0], row[1]) for row in list(csv.reader(lines))[1:])
        return
    for document in json.loads(source.read_text(encoding="utf-8"))["data"]:
        for paragraph in document["paragraphs"]:
            yield from ((one["question"], paragraph["context"]) for one in paragraph["qas"])


def words(data: str, model: str, scratch: Path, options: dict[str, Any]) -> list[str]:
    """This program's command line for the run."""
    batch = options.get("batch", OUR_BATCHES[0])
    flags = {
        "--config": ROOT / "recipes" / "embedding.yaml", "--model_name": model, "--dataset": data, "--output_dir":
        scratch / "model", "--epochs": options["epochs"], "--seed": options["seed"], "--max_length":
        options["max_length"], "--batch_size": batch, "--gradient_accumulation_steps": WINDOW // batch,
        "--learning_rate": options["learning_rate"], "--warmup_steps": options["warmup_steps"],
    }  # fmt: skip
    settings = (
        "logging.progress_bar=false", "training.save_steps=1000000",
        f"embedding.temperature={options['temperature']}", f"data.dataset_cache_dir={options['cache']}",
    )  # fmt: skip
    return flags_of(flags, settings)


class Steps(Clock):
    """When each step ended; a GPU is waited for at each."""

    def tick(self) -> None:
        wait_for_device()
        super().tick()

    def step_seconds(self) -> float:
        """Seconds of a step: the median of those that count; it begins where the one before ended."""
        taken = [end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False)]
        return statistics.median(taken[_UNCOUNTED - 1 :])


def contend(name: str, data: str, model: str, options: dict[str, Any]) -> dict[str, float]:
    """Train as one contender and measure the model after the last step.

    Args:
        name: `untrained`, `ours-N` with a `batch_size` of N, `mnrl`, or `cached-N` with a `mini_batch_size` of N.
        data: A folder with train, validation and test.
        model: A folder with the model.
        options: Epochs, seed, max_length, learning_rate, temperature, warmup_steps, cache.

    Returns:
        Seconds of a step, examples a second, peak memory in bytes, recall@1 and nDCG@10; without training the last two.
    """
    from finetuning.device.usage import peak_bytes

    is_ours = name.startswith("ours")
    if is_ours:
        options = {**options, "batch": int(name.removeprefix("ours-"))}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepared, tokenizer = prepared_in(session_by(words(data, model, scratch, options)))
        evaluator = evaluator_of(prepared, tokenizer)
        found: dict[str, float] = {}
        if name != "untrained":
            steps = Steps(len(prepared.examples["train"]) // WINDOW * options["epochs"])
            if is_ours:
                run_until_finished(manager_of(prepared, evaluator, steps.tick_and_stop, scratch / "model"))
            else:
                _sentence_transformers(name, prepared, evaluator, steps, scratch, options)
            found = {"seconds": round(steps.step_seconds(), 3), "peak": peak_bytes(evaluator.runtime.device)}
        evaluator.model.eval()
        metrics = evaluator.evaluate(prepared.examples["test"], 0, 0).metrics
        return {**found, **{shown: round(metrics[key], 4) for shown, key in _METRICS.items()}}


def _sentence_transformers(
    name: str, prepared: Any, evaluator: Any, steps: Steps, scratch: Path, options: dict[str, Any]
) -> None:
    """Train the evaluator's model by SentenceTransformerTrainer, on our windows in our order."""
    from accelerate.state import AcceleratorState
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers import TrainerCallback

    is_bf16 = evaluator.runtime.precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.tick()

    folder = scratch / "untrained"
    prepared.session.models.save(evaluator.model, evaluator.tokenizer, folder)
    model = SentenceTransformer(str(folder), device=str(evaluator.model.device))
    model[0].model = evaluator.model  # one copy of the weights, as this program has, so that memory counts the same
    pairs = _pairs_in_our_order(prepared, options["epochs"])
    _check_tokens(model, prepared, pairs)
    scale = 1 / options["temperature"]
    loss = (
        MultipleNegativesRankingLoss(model, scale=scale)
        if name == "mnrl"
        else CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=int(name.removeprefix("cached-")))
    )
    arguments = Arguments(
        output_dir=str(scratch / "trainer"), num_train_epochs=1, per_device_train_batch_size=WINDOW,
        learning_rate=options["learning_rate"], weight_decay=0.01, warmup_steps=options["warmup_steps"],
        lr_scheduler_type="linear", bf16=is_bf16, seed=options["seed"],
        batch_sampler=_in_order, save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=evaluator.model.device.type == "cpu", dataloader_drop_last=True,
    )  # fmt: skip
    SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=loss, callbacks=[Ticks()]).train()


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    """A sampler of batches that keeps the rows' order."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def _pairs_in_our_order(prepared: Any, epochs: int) -> Any:
    """The texts with their prefixes, epoch behind epoch, each in the order in which this program takes them."""
    from datasets import Dataset

    from finetuning.windows.order import epoch_order

    examples, settings = prepared.examples["train"], prepared.session.settings
    rows = examples.rows[:]
    whole = len(examples) // WINDOW * WINDOW
    order = [
        place for epoch in range(epochs) for place in epoch_order(len(examples), settings.training.seed, epoch)[:whole]
    ]  # fmt: skip
    return Dataset.from_dict({
        "anchor": [settings.embedding.query_prefix + rows["question"][place] for place in order],
        "positive": [settings.embedding.passage_prefix + rows["context"][place] for place in order],
    })  # fmt: skip


def _check_tokens(model: Any, prepared: Any, pairs: Any) -> None:
    """Raise ValueError unless sentence-transformers reads the same token ids as this program does."""
    from finetuning.windows.order import epoch_order

    examples = prepared.examples["train"]
    first = epoch_order(len(examples), prepared.session.settings.training.seed, 0)[:WINDOW].tolist()
    for row, place in zip(pairs.select(range(WINDOW)), first, strict=True):
        ids = [model.preprocess([row[name]])["input_ids"][0].tolist() for name in ("anchor", "positive")]
        if [*ids[0], *ids[1]] != examples.table[place]["input_ids"]:
            raise ValueError(f"other tokens of the row {place}: {row}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="KorQuAD_v1.0_dev.json or ChatbotData.csv")
    parser.add_argument("model", type=Path, help="a folder with multilingual-e5-small")
    parser.add_argument("--passages", type=int, default=512, help="to train on; a multiple of the window, 128")
    parser.add_argument("--held_out", type=int, default=400, help="passages of the test")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    parser.add_argument("--temperature", type=float, default=0.02)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm_up", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--sizes", type=int, nargs="*", default=MINI_BATCHES, help="mini_batch_size of the cached loss")
    parser.add_argument("--our_sizes", type=int, nargs="+", default=OUR_BATCHES, help="this program's batch_size")
    parser.add_argument("--without_mnrl", action="store_true", help="leaves out the loss that takes the window at once")


def label(arguments: argparse.Namespace) -> str:
    """Return the name that a result is kept under: without the cached loss what is compared is the models."""
    return "embedding" if arguments.sizes else f"embedding-quality-{arguments.data.stem.split('_')[0].lower()}"


def run(arguments: argparse.Namespace) -> list[Table]:
    """Run the contenders in turns; the model before training is measured once."""
    ours = [f"ours-{size}" for size in arguments.our_sizes]
    names = [*ours, *([] if arguments.without_mnrl else ["mnrl"]), *(f"cached-{size}" for size in arguments.sizes)]
    runs: dict[str, list[dict[str, float]]] = {"untrained": [], **{name: [] for name in names}}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_pairs(arguments.data, data, arguments.passages, arguments.held_out)
        steps = arguments.passages // WINDOW * arguments.epochs
        options = {
            "epochs": arguments.epochs, "max_length": arguments.max_length, "learning_rate": arguments.learning_rate,
            "temperature": arguments.temperature, "warmup_steps": math.ceil(0.1 * steps),
            "cache": str(Path(folder) / "cache"),
        }  # fmt: skip
        for number in range(arguments.runs + arguments.warm_up):
            counts = number >= arguments.warm_up
            for name in (["untrained"] if number == 0 else []) + names:
                found = call_apart("embedding:contend", name=name, data=data, model=arguments.model.resolve(),
                                   options={**options, "seed": number})  # fmt: skip
                say(f"{number if counts else 'warm-up'}  {name}: {found}")
                if counts or name == "untrained":
                    runs[name].append(found)
    return [table(runs)]


def table(runs: dict[str, list[dict[str, float]]]) -> Table:
    """Medians of speed and memory over the runs; of the metrics their mean and all values."""
    middle = {
        name: {key: statistics.median(one[key] for one in found) for key in ("seconds", "peak")}
        for name, found in runs.items()
        if name != "untrained"
    }
    rows = []
    for name, found in runs.items():
        row: dict[str, Any] = {"contender": name}
        if name != "untrained":
            seconds, peak = middle[name]["seconds"], middle[name]["peak"]
            ours = [one["seconds"] for key, one in middle.items() if key.startswith("ours") and one["peak"] <= peak]
            row |= {
                "examples/s": WINDOW / seconds, "by run": [WINDOW / one["seconds"] for one in found],
                "this program is": None if name.startswith("ours") or not ours else seconds / min(ours),
                "peak, GiB": peak / 2**30,
            }  # fmt: skip
        for metric in _METRICS:
            row |= {metric: statistics.mean(one[metric] for one in found), f"{metric} by run": [
                one[metric] for one in found
            ]}  # fmt: skip
        rows.append(row)
    metrics = [column for metric in _METRICS for column in (metric, f"{metric} by run")]
    return Table(("contender", "examples/s", "by run", "this program is", "peak, GiB", *metrics), rows)
