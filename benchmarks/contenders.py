"""One run of one contender of the throughput benchmark."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.in_process import (
    Clock,
    evaluator_of,
    manager_of,
    prepared_in,
    run_until_finished,
    session_by,
)
from benchmarks.runner import ROOT, flags_of

RATE = 5e-5
OURS = ("ours", "ours-compiled", "ours-unrecorded")


@dataclass(frozen=True)
class Work:
    """What the contenders train.

    Attributes:
        recipe: Name of the recipe that reads the data.
        trained: What the other trainers train: a class of a text, answers (by SFTTrainer), or all tokens of rows.
        batch: Examples of a micro-batch; of this program the budget of tokens is that of so many of the longest.
        accumulation: Micro-batches of a step.
        max_length: Most tokens of an example.
        bare_width: Tokens of a row of the bare limit.
        settings: Further settings of this program.
    """

    recipe: str
    trained: Literal["class", "answers", "rows"]
    batch: int
    accumulation: int
    max_length: int
    bare_width: int
    settings: tuple[str, ...] = ()

    @property
    def window(self) -> int:
        """Examples of a step."""
        return self.batch * self.accumulation

    def words(self, model: Path, data: Path, output_dir: Path, seed: int, *settings: str) -> list[str]:
        """This program's command line for it."""
        flags = {
            "--config": ROOT / "recipes" / self.recipe, "--model_name": model, "--dataset": data,
            "--output_dir": output_dir, "--epochs": 1, "--seed": seed, "--max_length": self.max_length,
            "--batch_size": self.batch, "--gradient_accumulation_steps": self.accumulation, "--learning_rate": RATE,
        }  # fmt: skip
        every = ("training.warmup_ratio=0", "training.lr_scheduler=linear", "logging.progress_bar=false")
        return flags_of(flags, (*every, *self.settings, *settings))


WORKS = {
    "encoder": Work("nsmc.yaml", "class", 16, 4, 128, bare_width=64),
    "causal": Work("chatbot.yaml", "answers", 16, 1, 512, bare_width=512),
}


@dataclass(frozen=True)
class Timed:
    """The steps of a run that count.

    Attributes:
        seconds: How long they took.
        tokens: Real tokens in them.
        first_step: Seconds to the end of the run's first step.
    """

    seconds: float
    tokens: int
    first_step: float


def train_as(name: str, work: Work, prepared: Any, evaluator: Any, clock: Clock, scratch: Path) -> Timed:
    """Train as a contender, on the very examples that this program made.

    Args:
        name: One of throughput.CONTENDERS, or sft-packing-liger.
        work: What is trained.
        prepared: The data.
        evaluator: Holds the model.
        clock: Says how many steps there are.
        scratch: Folder for what a run writes.

    Returns:
        Time and tokens of the steps that count.
    """
    if name in OURS:
        manager = manager_of(prepared, evaluator, clock.tick_and_stop, scratch / "model")
        clock.start()
        run_until_finished(manager)
        tokens = sum(_tokens_of_windows(work, prepared, clock.steps)[clock.uncounted :])
    elif name == "bare":
        tokens = _train_bare(work, prepared, evaluator, clock)
    else:
        tokens = _train_other(name, work, prepared, evaluator, clock, scratch)
    return Timed(clock.seconds(), tokens, clock.first_step())


def compiled_or_not(name: str) -> str:
    """This program's setting that says whether a contender's layers are compiled."""
    return f"training.torch_compile={str(name == 'ours-compiled').lower()}"


def _tokens_of_windows(work: Work, prepared: Any, count: int) -> list[int]:
    from finetuning.windows.order import epoch_order, window_of

    lengths = prepared.examples["train"].lengths
    order = epoch_order(len(lengths), prepared.session.settings.training.seed, 0)
    return [int(lengths[window_of(order, work.window, 0, number).indices].sum()) for number in range(count)]


# --- other trainers ---


def _train_other(name: str, work: Work, prepared: Any, evaluator: Any, clock: Clock, scratch: Path) -> int:
    """transformers.Trainer or TRL's SFTTrainer; returns the real tokens of the steps that count."""
    import torch
    from accelerate.state import AcceleratorState
    from transformers import TrainerCallback

    AcceleratorState._reset_state(reset_partial_state=True)  # each sets its own precision for the whole process
    # torch's own choice of attention; the tuned one is spared the plans that cuDNN builds for new shapes
    torch.backends.cuda.enable_cudnn_sdp(name != "trainer-tuned")

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, _arguments: Any, _state: Any, control: Any, **_: Any) -> None:
            clock.tick()
            control.should_training_stop = len(clock.ends) == clock.steps

    options: dict[str, Any] = {
        "output_dir": str(scratch / "trainer"), "num_train_epochs": 1, "per_device_train_batch_size": work.batch,
        "gradient_accumulation_steps": work.accumulation, "learning_rate": RATE, "weight_decay": 0.01,
        "seed": prepared.session.settings.training.seed, "train_sampling_strategy": "sequential",
        "bf16": name != "trainer-float32", "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "use_cpu": evaluator.model.device.type == "cpu",
    }  # fmt: skip
    if name == "trainer-compiled":
        options["torch_compile"] = True
    if name == "trainer-tuned":
        options |= {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    shared = {"model": evaluator.model, "callbacks": [Ticks()], "processing_class": evaluator.tokenizer}
    if work.trained == "answers":
        trainer = _sft(name, work, prepared, options, shared)
        if name.startswith("sft-packing"):
            clock.steps = min(clock.steps, len(trainer.train_dataset) // options["per_device_train_batch_size"])
    else:
        trainer = _trainer(work, prepared, options, shared)
    counted = trainer.data_collator = _Counting(trainer.data_collator)
    trainer.train()
    batches = options["gradient_accumulation_steps"]
    return sum(counted.tokens[clock.uncounted * batches : clock.steps * batches])


class _Counting:
    """A collator that counts the real tokens of each batch."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.tokens = collator, list[int]()

    def __call__(self, rows: Any) -> Any:
        batch = self.collator(rows)
        mask = batch.get("attention_mask")
        self.tokens.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
        return batch


def _trainer(work: Work, prepared: Any, options: dict[str, Any], shared: dict[str, Any]) -> Any:
    from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer, table = shared["processing_class"], _in_our_order(prepared)
    names = ("input_ids", "token_type_ids", "label") if work.trained == "class" else ("input_ids",)
    kept = [name for name in names if name in table.column_names]
    is_class = work.trained == "class"
    collator = DataCollatorWithPadding(tokenizer) if is_class else DataCollatorForLanguageModeling(tokenizer, mlm=False)
    arguments = TrainingArguments(**options)
    return Trainer(args=arguments, train_dataset=table.select_columns(kept), data_collator=collator, **shared)


def _sft(name: str, work: Work, prepared: Any, options: dict[str, Any], shared: dict[str, Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    packs = name.startswith("sft-packing")
    options |= {"max_length": work.max_length, "packing": packs, "gradient_checkpointing": False}
    options["completion_only_loss"] = True  # else it trains on all tokens of rows that come as token ids
    if name.endswith("liger"):
        options["use_liger_kernel"] = True
    if packs:  # as many rows as hold about a window's tokens
        mean = float(prepared.examples["train"].lengths.mean())
        rows = max(1, round(work.window * mean / work.max_length))
        options |= {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 1}
    return SFTTrainer(args=SFTConfig(**options), train_dataset=_as_masked(_in_our_order(prepared)), **shared)


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


def _train_bare(work: Work, prepared: Any, evaluator: Any, clock: Clock) -> int:
    """As many real tokens as the windows have, in rows of one width without padding or mask."""
    import torch

    device, model = evaluator.runtime.device, evaluator.model.train()
    windows = _tokens_of_windows(work, prepared, clock.steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    clock.start()
    for tokens in windows:
        rows = max(1, math.ceil(tokens / work.bare_width))
        ids = torch.randint(5, model.config.vocab_size, (rows, round(tokens / rows)), device=device)
        with evaluator.runtime.autocast():
            if work.trained == "class":
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
    return sum(windows[clock.uncounted :])


# --- one run ---


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


def contend(
    work: str, name: str, data: str, model: str, seed: int, adapter: str = "none", is_profiled: bool = False
) -> dict[str, float]:
    """Train as one contender.

    Args:
        work: A name in WORKS.
        name: The contender, one of throughput.CONTENDERS.
        data: A folder with train and validation.
        model: A folder with the model.
        seed: Seed of the order of rows and of dropout.
        adapter: What `model.adapter.method` is for all contenders, which train the very model that this program makes.
        is_profiled: Whether torch's profiler runs beside it, which takes time.

    Returns:
        Seconds and examples (by their tokens) of the steps after the first two, held-out loss, peak memory in bytes;
        where it is profiled, the products' part of the CPU time of all steps.
    """
    from finetuning.device.usage import peak_bytes

    with tempfile.TemporaryDirectory() as folder:
        scratch, trained = Path(folder), WORKS[work]
        cache = f"data.dataset_cache_dir={scratch / 'cache'}"
        settings = compiled_or_not(name), cache, f"model.adapter.method={adapter}"
        words = trained.words(Path(model), Path(data), scratch / "model", seed, *settings)
        prepared, tokenizer = prepared_in(session_by(words))
        evaluator = evaluator_of(prepared, tokenizer)
        lengths = prepared.examples["train"].lengths
        with products_counted(is_profiled) as counted:
            timed = train_as(name, trained, prepared, evaluator, Clock(len(lengths) // trained.window), scratch)
        peak = peak_bytes(evaluator.runtime.device)
        return {
            "seconds": round(timed.seconds, 2), "examples": round(timed.tokens / float(lengths.mean()), 1),
            "loss": round(held_out_loss(prepared, evaluator), 4), "peak": peak,
            **counted,
        }  # fmt: skip


@contextmanager
def products_counted(is_on: bool) -> Iterator[dict[str, float]]:
    """Yield a dict, which after the block has the part of the CPU time in matrix products, where that is on."""
    from torch.profiler import ProfilerActivity, profile

    counted = dict[str, float]()
    if not is_on:
        yield counted
        return
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        yield counted
    times = {one.key: one.self_cpu_time_total for one in profiled.key_averages()}
    in_products = sum(times.get(f"aten::{name}", 0.0) for name in ("mm", "addmm", "bmm", "baddbmm"))
    counted["products"] = round(in_products / sum(times.values()), 4)
