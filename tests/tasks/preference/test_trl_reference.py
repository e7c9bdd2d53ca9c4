"""Runs beside TRL's trainers: the same rows, weights and settings give the same loss at every step."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support.preference import PAIRS, judged_rows, pair_rows, with_template, write_rows
from tests.support.runs import StopAfter, losses, run_train

STEPS, RATE, BETA = 4, 1e-2, 0.3
# loss → TRL's module, trainer, config and its further settings
TRAINERS = {
    "dpo": ("trl", "DPOTrainer", "DPOConfig", {"beta": BETA}),
    "ipo": ("trl", "DPOTrainer", "DPOConfig", {"beta": BETA, "loss_type": "ipo"}),
    "orpo": ("trl.experimental.orpo", "ORPOTrainer", "ORPOConfig", {"beta": BETA}),
    "cpo": ("trl.experimental.cpo", "CPOTrainer", "CPOConfig", {"beta": BETA, "cpo_alpha": 0.6}),
    "simpo": (
        "trl.experimental.cpo", "CPOTrainer", "CPOConfig",
        {"beta": BETA, "loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.2},
    ),
    "kto": ("trl", "KTOTrainer", "KTOConfig", {"beta": BETA}),
    "reward": ("trl", "RewardTrainer", "RewardConfig", {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("TRL이 설치되어 있지 않습니다(requirements-dev.txt)")
    return with_template(tiny_causal, tmp_path_factory.mktemp("trl") / "model")


def with_head(folder: Path, to: Path) -> Path:
    """The same model with a head for a number."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    return to


def losses_of_trl(loss: str, folder: Path, tmp_path: Path) -> list[float]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    module_name, trainer_name, config_name, options = TRAINERS[loss]
    module: Any = importlib.import_module(module_name)
    rows = judged_rows() if loss == "kto" else pair_rows()
    config = getattr(module, config_name)(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=len(rows), max_steps=STEPS, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.0, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
        bf16=False, gradient_checkpointing=False, max_length=96, **options,
    )  # fmt: skip
    auto: Any = AutoModelForSequenceClassification if loss == "reward" else AutoModelForCausalLM
    trainer = getattr(module, trainer_name)(
        model=auto.from_pretrained(folder), args=config, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.train()
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


@pytest.mark.parametrize("loss", sorted(TRAINERS))
def test_every_step_has_trls_loss(loss: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    rows = judged_rows() if loss == "kto" else pair_rows()
    write_rows(tmp_path / "data" / "train.jsonl", rows)
    write_rows(tmp_path / "data" / "validation.jsonl", rows)
    folder = with_head(folder, tmp_path / "model") if loss == "reward" else folder
    task = "reward" if loss == "reward" else "preference"
    chosen = {} if loss == "reward" else {"preference.loss": loss}
    settings = {
        **chosen, "preference.beta": BETA, "preference.nll_weight": 0.6 if loss == "cpo" else 1.0,
        "preference.simpo_gamma": 0.2, "training.lr_scheduler": "constant", "logging.log_steps": 1,
        "logging.progress_bar": "false", "data.dataset_cache_dir": tmp_path / "cache", "generation.max_new_tokens": 1,
    }  # fmt: skip
    run_train(
        [
            "--task", task, "--model_name", str(folder), "--dataset", str(tmp_path / "data"), "--batch_size",
            str(len(PAIRS)), "--gradient_accumulation_steps", "1", "--epochs", str(STEPS), "--learning_rate", str(RATE),
            "--weight_decay", "0", "--max_length", "96", "--no-mixed_precision", "--output_dir", str(tmp_path / "ours"),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        ],
        StopAfter(),
    )  # fmt: skip
    ours = [record["loss"] for record in losses(tmp_path / "ours") if record["kind"] == "train"]
    theirs = losses_of_trl(loss, folder, tmp_path)
    assert len(ours) == STEPS
    assert abs(ours[0] - ours[-1]) > 1e-3  # it learns
    assert ours == pytest.approx(theirs, rel=1e-5)
