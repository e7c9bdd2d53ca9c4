"""What every run of the program needs, imported and warmed up once, in the process that the runs are forked from."""

from __future__ import annotations

import gc
import importlib
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

_ROOMS = ("config", "korean", "ops", "device", "tasks", "models", "data", "windows", "checkpoints")
_OTHERS = (
    "finetuning_app", "finetuning.commands.train", "finetuning.commands.evaluate", "finetuning.commands.predict",
    "finetuning.commands.plan", "finetuning.inference.evaluator", "finetuning.reporting.run_report",
    "finetuning.reporting.quality",
    "finetuning.reporting.predictions", "finetuning.training.trial", "training_manager", "memory_utils", "datasets",
    "accelerate", "peft", "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5", "sklearn.metrics", "scipy.stats", "tests.support.forked",
    "tests.support.victim",
)  # fmt: skip


def _import(name: str) -> None:
    """Import a module. What cannot be imported here leaves every run without all of this, at ten times its time."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != "triton":  # kernels for GPUs: it comes with torch for CUDA
            raise


def preload() -> None:
    """Import the program and its libraries, load a model once, and take all of it from the garbage collector."""
    for room in _ROOMS:
        for path in sorted((ROOT / "finetuning" / room).rglob("*.py")):
            _import(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for name in _OTHERS:
        importlib.import_module(name)
    _load_a_model()
    gc.collect()
    gc.freeze()


def _load_a_model() -> None:
    """Save and load a model of a few weights: transformers prepares a thousand patterns for the first that it loads."""
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    logging.disable_progress_bar()  # it would start a thread
    with tempfile.TemporaryDirectory() as folder:
        BertForSequenceClassification(config).save_pretrained(Path(folder))
        BertForSequenceClassification.from_pretrained(folder)
    logging.enable_progress_bar()


preload()
