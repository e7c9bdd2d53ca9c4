"""The trial of a model before the first step: what it refuses, and what it leaves to the run."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import ModelError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from finetuning.training.trial import try_model
from tests.support.architectures import CAUSAL, ENCODERS, SEQ2SEQ, made
from tests.support.causal import PadToken
from tests.support.managers import make_manager


def test_a_model_that_cannot_compute_the_task_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    try_model(manager.evaluator, manager.train_examples, seed=0)

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("bbox is missing\nand more")

    manager.model.forward = refuse
    with pytest.raises(ModelError) as caught:
        try_model(manager.evaluator, manager.train_examples, seed=0)
    assert caught.value.what.endswith("text-classification 태스크의 손실을 계산할 수 없습니다: bbox is missing")


def test_memory_that_runs_out_is_left_to_the_run(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)

    def fail(*_: Any, **__: Any) -> None:
        failed.append(True)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    failed = list[bool]()
    manager.model.forward = fail
    caplog.clear()
    try_model(manager.evaluator, manager.train_examples, seed=0)
    said = [record for record in caplog.records if record.name.startswith("finetuning")]
    assert failed and not said, "the trial ran, and says nothing of a model that only lacks memory"


def test_a_trial_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "fill-mask", torch.float32)
    manager.model.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in manager.model.state_dict().items()}
    try_model(manager.evaluator, manager.train_examples, seed=0)
    assert manager.model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(state[name], tensor) for name, tensor in manager.model.state_dict().items())


@pytest.mark.parametrize("kind", ["convbert", *CAUSAL, *ENCODERS, *SEQ2SEQ])
def test_only_models_that_see_padding_are_named(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    seen = {"convbert": ("convbert", {"embedding_size": 16, "head_ratio": 2, "conv_kernel_size": 3})}
    name, row = next(
        (name, rows[kind])
        for name, rows in (
            ("text-generation", CAUSAL), ("text-classification", ENCODERS | seen), ("text2text-generation", SEQ2SEQ),
        )
        if kind in rows
    )  # fmt: skip
    task: Any = find_task(Settings.model_validate({"model": {"task": name}}))
    torch.manual_seed(0)
    config = made(row, **({"attention_type": "original_full"} if kind == "big_bird" else {}))
    model: Any = getattr(transformers, task.auto_class).from_config(config)
    config.decoder_start_token_id = 2
    ids = [np.random.default_rng(n).integers(8, 97, 3 + 9 * n).tolist() for n in range(2)]
    example = {
        "text-generation": lambda row: {"input_ids": row, "trained": [True] * len(row)},
        "text-classification": lambda row: {"input_ids": row, "label": 1},
        "text2text-generation": lambda row: {"input_ids": row, "label": [*row[:4], 2]},
    }[name]
    examples: Any = SimpleNamespace(
        sequence_lengths=np.array([len(row) for row in ids]),
        fetch_sequences=lambda indices: [example(ids[index]) for index in indices],
    )
    runtime = SimpleNamespace(on_device=lambda batch: batch)
    evaluator: Any = SimpleNamespace(task=task, model=model, tokenizer=PadToken(), runtime=runtime)
    with caplog.at_level(logging.WARNING):
        try_model(evaluator, examples, seed=0)
    assert ("패딩에 따라 계산이 달라져" in caplog.text) is (kind == "convbert")
