"""One run of one contender of the throughput benchmark."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.runner import ROOT, flags_of

UNCOUNTED = 2
RATE = 5e-5
WINDOW = {"encoder": 64, "causal": 16}
MAX_LENGTH = {"encoder": 128, "causal": 512}


class Finished(Exception):
    """The last step was taken: what a run does after it is not compared."""


class Clock:
    """When each step ended."""

    def __init__(self, steps: int) -> None:
        self.steps, self.ends = steps, list[float]()

    def tick(self) -> None:
        self.ends.append(time.perf_counter())

    def tick_and_stop(self) -> None:
        """Called by this program's manager after each step, where it looks whether a stop is asked for."""
        self.tick()
        if len(self.ends) == self.steps:
            raise Finished

    def seconds(self) -> float:
        return self.ends[-1] - self.ends[UNCOUNTED - 1]


def bench_of(work: str, name: str, data: Path, model: Path, seed: int, scratch: Path) -> Any:
    """This program's own data, tokenizer and model under the benchmark's settings, by its own command line."""
    from finetuning.commands.session import prepare
    from finetuning_app import build_parser, build_session, read_settings

    options = {
        "--config": ROOT / "recipes" / ("nsmc.yaml" if work == "encoder" else "chatbot.yaml"),
        "--model_name": model, "--dataset": data, "--output_dir": scratch / "model", "--epochs": 1, "--seed": seed,
        "--max_length": MAX_LENGTH[work], "--batch_size": 16, "--gradient_accumulation_steps": WINDOW[work] // 16,
        "--learning_rate": RATE,
    }  # fmt: skip
    settings = (
        "training.warmup_ratio=0", "training.lr_scheduler=linear", "logging.progress_bar=false",
        f"data.dataset_cache_dir={scratch / 'cache'}",
        f"training.torch_compile={str(name == 'ours-compiled').lower()}",
    )  # fmt: skip
    arguments = build_parser().parse_args(flags_of(options, settings))
    session = build_session(read_settings(arguments), _NeverStops())
    tokenizer = session.models.load_tokenizer()
    return prepare(session, tokenizer, MAX_LENGTH[work]), tokenizer


class _NeverStops:
    patient = False

    def pending(self) -> int | None:
        return None

    def check(self) -> None:
        return None


def train_ours(prepared: Any, evaluator: Any, clock: Clock, scratch: Path) -> None:
    from finetuning.checkpoints.store import CheckpointStore
    from training_manager import TrainingManager

    (scratch / "model").mkdir()
    manager = TrainingManager(
        prepared.session.settings, evaluator, prepared.examples["train"], prepared.examples["validation"],
        CheckpointStore(scratch / "model", 1), lambda model: None, clock.tick_and_stop, {}, scratch / "model",
    )  # fmt: skip
    try:
        manager.run()
    except Finished:
        return


def train_trainer(work: str, name: str, prepared: Any, evaluator: Any, clock: Clock, scratch: Path) -> float | None:
    """transformers.Trainer or TRL's SFTTrainer on the very examples that this program made.

    Returns the share of tokens in the steps that count, where it is not that of this program's windows.
    """
    from accelerate.state import AcceleratorState
    from transformers import TrainerCallback

    AcceleratorState._reset_state(reset_partial_state=True)  # each sets its own precision for the whole process

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    tuned = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    table = _in_our_order(prepared)
    options: dict[str, Any] = {
        "output_dir": str(scratch / "trainer"), "num_train_epochs": 1, "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": WINDOW[work] // 16, "learning_rate": RATE, "weight_decay": 0.01,
        "seed": prepared.session.settings.training.seed, "train_sampling_strategy": "sequential",
        "bf16": name != "trainer-float32", "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "use_cpu": evaluator.model.device.type == "cpu",
    }  # fmt: skip
    if name == "trainer-tuned":
        options |= tuned
    shared = {"model": evaluator.model, "callbacks": [Ticks()], "processing_class": evaluator.tokenizer}
    if work == "encoder":
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        kept = [column for column in ("input_ids", "token_type_ids", "label") if column in table.column_names]
        collator = DataCollatorWithPadding(evaluator.tokenizer)
        trainer: Any = Trainer(
            args=TrainingArguments(**options),
            train_dataset=table.select_columns(kept),
            data_collator=collator,
            **shared,
        )
    else:
        from trl import SFTConfig, SFTTrainer

        options |= {"max_length": MAX_LENGTH[work], "packing": name == "sft-packing", "gradient_checkpointing": False}
        options["completion_only_loss"] = True  # else it trains on all tokens of rows that come as token ids
        if name == "sft-packing":  # as many rows as hold about a window's tokens
            mean = float(prepared.examples["train"].lengths.mean())
            options["per_device_train_batch_size"] = max(1, round(WINDOW[work] * mean / MAX_LENGTH[work]))
        trainer = SFTTrainer(args=SFTConfig(**options), train_dataset=_as_masked(table), **shared)
    trainer.train()
    if name != "sft-packing":
        return None
    rows = [sum(lengths) for lengths in trainer.train_dataset["seq_lengths"]]
    return sum(rows[UNCOUNTED * options["per_device_train_batch_size"] :]) / sum(rows)


def share_counted(work: str, prepared: Any) -> float:
    """The share of tokens in the windows after those that do not count."""
    from finetuning.windows.order import epoch_order

    lengths = prepared.examples["train"].lengths
    order = epoch_order(len(lengths), prepared.session.settings.training.seed, 0)
    return float(lengths[order[UNCOUNTED * WINDOW[work] :]].sum() / lengths.sum())


def _in_our_order(prepared: Any) -> Any:
    """The examples as this program's first epoch takes them: losses that differ then differ by more than luck."""
    from finetuning.windows.order import epoch_order

    train = prepared.examples["train"]
    return train.table.select(epoch_order(len(train), prepared.session.settings.training.seed, 0))


def _as_masked(table: Any) -> Any:
    """The same token ids and trained tokens, under the names that SFTTrainer reads."""
    from datasets import Dataset

    rows = table[:]
    masks = [[int(trained) for trained in row] for row in rows["trained"]]
    return Dataset.from_dict({"input_ids": rows["input_ids"], "completion_mask": masks})


def train_bare(work: str, prepared: Any, evaluator: Any, clock: Clock) -> None:
    """As many real tokens as the windows have, in rows of 64 tokens (causal: 512) without padding or mask."""
    import torch

    from finetuning.windows.order import epoch_order, window_of

    lengths, device, model = prepared.examples["train"].lengths, evaluator.runtime.device, evaluator.model.train()
    order = epoch_order(len(lengths), prepared.session.settings.training.seed, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    width = 64 if work == "encoder" else 512
    for number in range(clock.steps):
        tokens = int(lengths[window_of(order, WINDOW[work], 0, number).indices].sum())
        rows = max(1, math.ceil(tokens / width))
        ids = torch.randint(5, model.config.vocab_size, (rows, round(tokens / rows)), device=device)
        with evaluator.runtime.autocast():
            if work == "encoder":
                logits = model(input_ids=ids).logits
                loss = torch.nn.functional.cross_entropy(
                    logits.float(), torch.zeros(rows, dtype=torch.long, device=device)
                )
            else:
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick()


def held_out_loss(prepared: Any, evaluator: Any) -> float:
    """The trained model's mean loss on the validation rows, in float32.

    A model of its own takes the trained weights: accelerate leaves autocast around the one that a Trainer had.
    """
    import torch

    examples, task, total, items = prepared.examples["validation"], evaluator.task, 0.0, 0
    model = prepared.session.models.load_model(prepared.label_names).to(evaluator.model.device).eval()
    task.scores.fit_model(model, evaluator.tokenizer)
    model.load_state_dict(evaluator.model.state_dict())
    for batch in _batches(examples, task, evaluator):
        with torch.no_grad():
            total += float(task.scores.loss_sum(task.scores.forward(model, batch), batch))
        items += batch.items
    return total / items


def _batches(examples: Any, task: Any, evaluator: Any) -> Iterator[Any]:
    from finetuning.data.examples import batches_by_length
    from finetuning.types import RandomKey

    for indices in batches_by_length(examples.lengths, 2048):
        batch = task.encodes.collate(examples.fetch(indices), evaluator.tokenizer, RandomKey(0, 0))
        yield evaluator.runtime.on_device(batch)


def contend(work: str, name: str, data: str, model: str, seed: int) -> dict[str, float]:
    """Train as one contender.

    Args:
        work: "encoder" or "causal".
        name: The contender, one of throughput.CONTENDERS.
        data: A folder with train and validation.
        model: A folder with the model.
        seed: Seed of the order of rows and of dropout.

    Returns:
        Seconds and examples (by their tokens) of the steps after the first two, held-out loss, peak memory in bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepared, tokenizer = bench_of(work, name, Path(data), Path(model), seed, scratch)
        loaded = prepared.session.models.load_model(prepared.label_names)
        evaluator = prepared.session.evaluator(loaded, tokenizer, prepared.label_names, MAX_LENGTH[work])
        train = prepared.examples["train"]
        clock, share = Clock(len(train) // WINDOW[work]), None
        if name in ("ours", "ours-compiled"):
            train_ours(prepared, evaluator, clock, scratch)
        elif name == "bare":
            train_bare(work, prepared, evaluator, clock)
        else:
            share = train_trainer(work, name, prepared, evaluator, clock, scratch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        examples = len(train) * (share_counted(work, prepared) if share is None else share)
        return {
            "seconds": round(clock.seconds(), 2), "examples": round(examples, 1),
            "loss": round(held_out_loss(prepared, evaluator), 4), "peak": peak,
        }  # fmt: skip
