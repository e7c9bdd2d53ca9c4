"""Training managers over small data, and faults put into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from finetuning.checkpoints.store import CheckpointStore
from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.device.runtime import Runtime
from finetuning.inference.evaluator import Evaluator
from finetuning.tasks.registry import find_task
from finetuning.windows.order import Window
from memory_utils import MemoryManager
from training_manager import TrainingManager

WORDS = ["정말", "재미있다", "너무", "지루하다", "최고의", "영화다", "또", "보고", "싶다", "연기가", "형편없다"]
_WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_manager(
    model_folder: Path, output_dir: Path, task_name: str, dtype: torch.dtype, rows: int = 23, **training: Any
) -> TrainingManager:
    """A manager over texts of very different lengths, dropout off so that a cut alone may differ."""
    import transformers

    settings = Settings.model_validate(
        {
            "model": {"task": task_name},
            "data": {"batch_size": 4, "max_length": 64},
            "training": {"epochs": 2, "max_grad_norm": 1e9, **training},
            "memory": {"gradient_accumulation_steps": 2, "mixed_precision": False},
            "logging": {"progress_bar": False},
        }
    )
    task = find_task(settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 14))) for _ in range(rows)]
    columns = {
        "row": list(range(1, rows + 1)),
        "text": texts,
        "label": [("긍정", "부정")[n % 5 == 0] for n in range(rows)],
    }
    encoded = {"row": columns["row"], **task.encodes.encode(columns, tokenizer, ("긍정", "부정"), 64)}
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int32)
    examples = Examples(Dataset.from_dict(encoded), lengths, Dataset.from_dict(columns))
    torch.manual_seed(1)
    auto_class = getattr(transformers, task.auto_class)
    without_dropout = {} if task_name == "text-generation" else _WITHOUT_DROPOUT
    model = auto_class.from_pretrained(model_folder, dtype=dtype, **without_dropout)
    runtime = Runtime(Accelerator(cpu=True))
    memory = MemoryManager(settings, runtime.device, 64)
    evaluator = Evaluator(task, model, tokenizer, ("긍정", "부정"), 64, runtime, memory, lambda: None)
    store = CheckpointStore(output_dir, 2)
    return TrainingManager(
        settings, evaluator, examples, examples, store, lambda *_: None, lambda: None, {}, output_dir
    )


def fail_above(manager: TrainingManager, tokens: int, message: str) -> None:
    """Make the model run out of memory on a micro-batch of more padded tokens than this."""
    forward = manager.model.forward

    def limited(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].numel() > tokens:
            raise RuntimeError(message)
        return forward(*args, **kwargs)

    manager.model.forward = limited


def gradient_at(manager: TrainingManager, window: Window, budget: int) -> torch.Tensor:
    """The window's whole gradient when it is cut to a token budget."""
    manager.memory.token_budget = budget
    batches = manager.plan(window).batches
    manager.stepper.accumulate(batches, manager.stepper.objective.counts(batches), step=0)
    gradient = torch.cat([p.grad.flatten() for p in manager.model.parameters() if p.grad is not None])
    manager.optimizer.zero_grad(set_to_none=True)
    return gradient
