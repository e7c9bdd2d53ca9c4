"""Walks tasks through training and evaluation on the fake GPU, in every layout, optimizer and adapter.

`python -m tests.support.rehearsal.walk FOLDER few|all TASK=MODEL ...` prints a JSON object: for each task and walk the
error, "" for none, and the places that waited. `few` leaves out most adapters and optimizers. It runs in a process of
its own: a device of torch's cannot be taken back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from finetuning.commands.session import Prepared
from finetuning.config.ladder import with_changes
from finetuning.device.runtime import Runtime
from finetuning.models.adapters import METHODS
from finetuning.models.probes import isolates
from finetuning.reporting.profile import NoProfile
from finetuning.tasks.generation.shared import GeneratingScorer
from finetuning.training.ahead import WindowPlanner
from finetuning.training.optimizers import allocate_states
from finetuning.training.results import sums_and_norms
from finetuning.training.step import OptimizerStep
from finetuning.types import NO_CARD, Card, RandomKey
from finetuning.windows.layouts import Layout, Packed, Padded, choose_layout
from finetuning.windows.order import Window
from finetuning.windows.partition import FEWEST
from tests.support.attention_kernels import kernels_on_cpu
from tests.support.planning import prepared_for
from tests.support.rehearsal.fake_gpu import make_device, moved, rehearsal, runtime_on
from tests.support.runs import data_of, own_flags

LOOKS_FOR_PADDING = "transformers looks whether padded rows have padding"
ONCE_A_BATCH = "an evaluation reads its predictions, once a batch"
MEANT = {
    "finetuning/training/results.py: sums_and_norms": "the losses of the steps since the last line of the log",
    "finetuning/inference/evaluator.py: _predictions": "the loss of an evaluation, once a batch",
    "finetuning/tasks/classification/single.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/classification/multi_label.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/classification/regression.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/tagging/tokens.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/answering/scoring.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/masked_lm.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/vocabulary.py: losses_by_example": ONCE_A_BATCH,
    "finetuning/tasks/preference/scoring.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/preference/reward.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/embedding/scoring.py: predictions": ONCE_A_BATCH,
    "finetuning/tasks/reranker/scoring.py: predictions": ONCE_A_BATCH,
    "transformers/masking_utils.py: _ignore_bidirectional_mask_sdpa": LOOKS_FOR_PADDING,
    "transformers/masking_utils.py: _ignore_causal_mask_sdpa": LOOKS_FOR_PADDING,
    "transformers/masking_utils.py: find_packed_sequence_indices": "transformers looks whether rows hold several texts",
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw in backward": {"memory.optimizer_in_backward": True},
    "adamw, bfloat16 weights": {"model.dtype": "bfloat16"},
    "adamw, checkpointing": {"memory.gradient_checkpointing": True},
    "adafactor": {"training.optimizer": "adafactor"},
    "adafactor in backward": {"training.optimizer": "adafactor", "memory.optimizer_in_backward": True},
}
# Tasks that differ from text classification in their head and its loss alone: other optimizers would repeat its walks.
ALIKE = {
    "multi-label-classification", "text-regression", "token-classification", "dependency-parsing", "question-answering",
    "fill-mask",
}  # fmt: skip
_ON_PADDED_ROWS = "adamw, checkpointing"  # where attention is walked as on a card without kernels for it
# Tasks that stand for their kind of model: they are walked under every adapter and optimizer.
KINDS = {"text-classification", "text-generation", "text2text-generation"}
_ONE = "text-generation"
_OPTIMIZERS_OF_ONE = ("adamw in backward", "adamw, bfloat16 weights", _ON_PADDED_ROWS, "adafactor")
_WINDOW = 8
_ONE_MICRO_BATCH = 2  # examples that fit into one


def flags_of(task: str, model: str, folder: Path) -> list[str]:
    return [
        "--task", task, "--model_name", model, "--dataset", str(data_of(task, folder)), "--batch_size", "4",
        "--gradient_accumulation_steps", "2", "--max_length", "48", "--output_dir", str(folder / "out"),
        "--set", f"data.dataset_cache_dir={folder / 'cache'}", "--no-mixed_precision",
        "--set", "logging.level=ERROR", *own_flags(task),
    ]  # fmt: skip


@dataclass(frozen=True)
class Variants:
    """Pairs of an adapter and an optimizer that a task is walked under.

    Attributes:
        adapters: Adapters, with AdamW: an adapter changes the layers, and no task's head or loss.
        optimizers: Optimizers beside AdamW, without an adapter.
    """

    adapters: Sequence[str]
    optimizers: Sequence[str]

    def pairs(self) -> Iterator[tuple[str, str]]:
        yield from ((adapter, "adamw") for adapter in self.adapters)
        yield from (("none", name) for name in self.optimizers)


def few_variants(task: str) -> Variants:
    """Those without which a place of the program would not be walked."""
    return Variants(("none", "lora") if task in KINDS else ("none",), _OPTIMIZERS_OF_ONE if task == _ONE else ())


def all_variants(task: str) -> Variants:
    """All adapters and optimizers for the tasks that stand for their kind of model, some for the others."""
    if task in KINDS:
        return Variants(tuple(METHODS), [name for name in OPTIMIZERS if name != "adamw"])
    return Variants(("none", "lora"), () if task in ALIKE else ("adamw in backward", _ON_PADDED_ROWS))


def layouts_of(task: Any, model: Any, max_length: int, card: Card) -> Iterator[Layout]:
    """The layout of a run, and the others that the task and the model could have."""
    cost = FEWEST if task.settings.memory.optimizer_in_backward else None
    chosen = choose_layout(task, model, max_length, cost, card)
    yield chosen
    if task.encodes.packs() and not task.encodes.shares_beginnings and isolates(model):
        yield Packed(chosen.fixed_cost, max_length)
    if type(chosen) is not Padded:
        yield Padded(chosen.fixed_cost, max_length)


class Walk:
    """One model, on its way from the CPU to the fake device.

    Args:
        prepared: The data, with a session under the settings of the walk.
        tokenizer: The model's tokenizer.
        runtime: The runtime of the fake device.
        card: The card by which attention's kernels are chosen.
    """

    def __init__(self, prepared: Prepared, tokenizer: Any, runtime: Runtime, card: Card) -> None:
        session, self.examples = prepared.session, prepared.examples["train"]
        self.settings, self.task = session.settings, session.task
        self.tokenizer, self.runtime, length = tokenizer, runtime, session.settings.data.max_length
        on_the_host = session.evaluator_to_train(tokenizer, prepared.label_names, length)
        self.model = on_the_host.model
        self.layouts = list(layouts_of(self.task, self.model, length, card))
        self.evaluator = replace(on_the_host, runtime=runtime)

    def train(self, layout: Layout) -> None:
        """Take a step, and read its loss."""
        planner = WindowPlanner(self.task, self.tokenizer, self.examples, layout, 0, self.runtime)

        def plan(window: Window) -> Any:
            with unset_fake_temporarily():
                return planner.plan(window, self.evaluator.memory.token_budget)

        stepper = OptimizerStep(self.settings, self.evaluator, NoProfile(), plan)
        allocate_states(stepper.optimizer)
        self.model.train()
        window = _ONE_MICRO_BATCH if self.settings.memory.optimizer_in_backward else _WINDOW
        ready = plan(Window(0, 0, np.arange(window)))
        stepper.set_learning_rate(1e-3)
        gradient = stepper.gradient(ready, 0)
        sums_and_norms([stepper.update(gradient, stepper.clip(gradient), 0)])

    def evaluate(self) -> None:
        """Predict a batch with labels and one without."""
        collate = self.task.encodes.collate

        def on_the_host(*given: Any) -> Any:
            with unset_fake_temporarily():
                return collate(*given)

        self.task.encodes.collate = on_the_host
        self.model.eval()
        try:
            for key in (RandomKey(0, 0), None):
                if key is None and isinstance(self.task.scores, GeneratingScorer):
                    continue  # such a task predicts by generating
                with torch.no_grad():
                    self.evaluator._predictions(self.examples, np.arange(_WINDOW), key)
        finally:
            self.task.encodes.collate = collate

    def generate(self) -> None:
        """Run the forward passes of generation: a prompt, and one more token with a cache."""
        device, self.model.config.use_cache = self.runtime.device, True
        ids, mask = (torch.ones(3, 7, dtype=torch.long, device=device) for _ in range(2))
        self.model.eval()
        with torch.no_grad():
            if self.model.config.is_encoder_decoder:
                start = torch.zeros(3, 1, dtype=torch.long, device=device)
                first = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=True)
                hidden = (first.encoder_last_hidden_state,)
                self.model(
                    encoder_outputs=hidden, attention_mask=mask, decoder_input_ids=start,
                    past_key_values=first.past_key_values, use_cache=True,
                )  # fmt: skip
                return
            first = self.model(input_ids=ids, attention_mask=mask, use_cache=True)
            longer = torch.ones(3, 8, dtype=torch.long, device=device)
            self.model(
                input_ids=ids[:, :1], attention_mask=longer, past_key_values=first.past_key_values, use_cache=True
            )


def attempts(walk: Walk, steps: dict[str, Callable[[], object]]) -> dict[str, Any]:
    """Make the model fake, and take the steps; return the error of each, if any, and the places that waited."""
    found = {}
    with rehearsal(walk.runtime.device, MEANT) as waited:
        moved(walk.model, walk.runtime.device)
        for name, take in steps.items():
            error, before = "", len(waited)
            try:
                take()
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
            found[name] = {"error": error, "waits": waited[before:]}
    return found


def walks(task: str, model: str, folder: Path, runtime: Runtime, variants: Variants) -> dict[str, Any]:
    """Walk everything of a task. A model is loaded once for an optimizer and an adapter."""
    folder.mkdir()
    prepared, tokenizer, length = prepared_for(flags_of(task, model, folder))
    found = dict[str, Any]()
    base = with_changes(prepared.session.settings, {"data.max_length": length})
    for adapter, name in variants.pairs():
        changes = {**OPTIMIZERS[name], "model.adapter.method": adapter, "model.adapter.layers": 1}
        card = NO_CARD if name == _ON_PADDED_ROWS else runtime.card
        walk = Walk(prepared.under(with_changes(base, changes)), tokenizer, runtime, card)
        steps: dict[str, Callable[[], object]] = {
            f"{type(layout).__name__} ({layout.attention.name}), {name}, {adapter}": partial(walk.train, layout)
            for layout in walk.layouts
        }
        if name == "adamw":
            steps[f"evaluation, {adapter}"] = walk.evaluate
            if isinstance(walk.task.scores, GeneratingScorer):
                steps[f"generation, {adapter}"] = walk.generate
        found |= attempts(walk, steps)
    return found


class GeneratorAnywhere(torch.Generator):
    """A generator for any device, as the fake one has none."""

    def __new__(cls, device: Any = None) -> GeneratorAnywhere:
        return super().__new__(cls)


def main(folder: str, how_many: str, *tasks: str) -> None:
    """Print what was found as JSON, in the last line."""
    import transformers.utils.import_utils as transformers_utils

    transformers_utils.is_fake_tensor = lambda tensor: False  # else transformers leaves out the waits that it has
    torch.Generator = GeneratorAnywhere  # type: ignore[misc]
    torch.manual_seed(0)
    runtime, found = runtime_on(make_device()), dict[str, Any]()
    with kernels_on_cpu():  # on which the way of attention is tried before the model becomes fake
        for task, _, model in (one.partition("=") for one in tasks):
            variants = few_variants(task) if how_many == "few" else all_variants(task)
            found[task] = walks(task, model, Path(folder) / task, runtime, variants)
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
