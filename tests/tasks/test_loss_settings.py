"""Class weights, label smoothing and NEFTune: torch's own loss on the whole window, however the window is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.ops.vocabulary_loss import vocabulary_loss_sum
from finetuning.tasks.loss_settings import check_read, resolved_weights
from finetuning.tasks.registry import find_task
from finetuning.windows.order import Window
from tests.support.managers import make_manager
from training_manager import TrainingManager

WINDOW = Window(0, 0, np.arange(8))
WEIGHTS = {"긍정": 1.0, "부정": 3.5}


def manager_with(model: Path, folder: Path, task: str, **training: Any) -> TrainingManager:
    manager = make_manager(model, folder, task, torch.float64, **training)
    manager.model.config.id2label = dict(enumerate(WEIGHTS))
    manager.task.scores.fit_model(manager.model, manager.tokenizer)
    return manager


def gradient_at(manager: TrainingManager, budget: int) -> tuple[torch.Tensor, float]:
    """The window's gradient and mean loss when it is cut to a token budget."""
    manager.memory.token_budget = budget
    found = manager.stepper.gradient(manager.plan(WINDOW), 0)
    gradient = torch.cat([p.grad.flatten() for p in manager.model.parameters() if p.grad is not None])
    manager.optimizer.zero_grad(set_to_none=True)
    return gradient, float(found.loss_sum) / found.counts[0]


@pytest.mark.parametrize(
    "training",
    [{"class_weights": WEIGHTS}, {"label_smoothing": 0.2}, {"class_weights": WEIGHTS, "label_smoothing": 0.2}],
)
def test_the_loss_of_a_window_is_torchs_own_for_every_cut(
    tiny_model: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    manager = manager_with(tiny_model, tmp_path, "text-classification", **training)
    batch = manager.task.encodes.collate(manager.train_examples.fetch(range(8)), manager.tokenizer, None)
    manager.model.train()
    weight = torch.tensor(list(WEIGHTS.values())).double() if "class_weights" in training else None
    criterion = torch.nn.CrossEntropyLoss(weight, label_smoothing=training.get("label_smoothing", 0.0))
    loss = criterion(manager.model(**batch.inputs).logits, batch.labels)
    loss.backward()
    reference = torch.cat([p.grad.flatten() for p in manager.model.parameters() if p.grad is not None])
    manager.optimizer.zero_grad(set_to_none=True)
    for budget in (1, 30, 64, 10**6):
        gradient, mean = gradient_at(manager, budget)
        assert mean == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_smoothing_over_the_vocabulary_is_torchs_own(bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 8, dtype=torch.float64, requires_grad=True) for n in (12, 30))
    shift = torch.randn(30, dtype=torch.float64, requires_grad=True) if bias else None
    labels, inputs = torch.randint(30, (12,)), [hidden, weight, *([shift] if shift is not None else [])]
    ours = vocabulary_loss_sum(hidden, weight, shift, labels, 0.1)
    logits = torch.nn.functional.linear(hidden, weight, shift)
    theirs = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs))


def test_noise_is_the_same_for_every_cut_and_another_in_each_epoch(tiny_causal: Path, tmp_path: Path) -> None:
    manager = manager_with(tiny_causal, tmp_path, "text-generation", neftune_alpha=5.0)
    whole, loss = gradient_at(manager, 10**6)
    for budget in (1, 100, 200):
        gradient, mean = gradient_at(manager, budget)
        torch.testing.assert_close(gradient, whole, rtol=1e-9, atol=1e-12)
        assert mean == pytest.approx(loss, rel=1e-9)
    ready = manager.plan(WINDOW)
    again = manager.plan(Window(1, 0, WINDOW.indices))
    assert {noise.seed for batch in ready.batches for noise in batch.noise}.isdisjoint(
        noise.seed for batch in again.batches for noise in batch.noise
    )
    quiet = manager_with(tiny_causal, tmp_path / "quiet", "text-generation")
    assert not torch.allclose(gradient_at(quiet, 10**6)[0], whole)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    counts = {"가": 90, "나": 9, "다": 1}
    settings = Settings.model_validate({"training": {"class_weights": "balanced"}})
    found = resolved_weights(settings, counts, tuple(counts)).training.class_weights
    labels = [label for label, count in counts.items() for _ in range(count)]
    expected = compute_class_weight("balanced", classes=np.array(list(counts)), y=labels)
    assert isinstance(found, dict) and list(found.values()) == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_an_unknown_label_is_refused() -> None:
    settings = Settings.model_validate({"training": {"class_weights": {"긍졍": 2}}})
    with pytest.raises(SettingsError, match="긍졍") as error:
        resolved_weights(settings, {"긍정": 1, "부정": 1}, ("긍정", "부정"))
    assert "혹시 긍정입니까?" in error.value.remedy


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("text-regression", "class_weights", "balanced"),
        ("question-answering", "label_smoothing", 0.1),
        ("text-classification", "neftune_alpha", 5),
    ],
)
def test_a_setting_that_the_task_does_not_read_is_refused(task: str, key: str, value: object) -> None:
    settings = Settings.model_validate({"model": {"task": task}, "training": {key: value}})
    with pytest.raises(SettingsError, match=f"{task} 태스크는 training.{key}") as error:
        check_read(find_task(settings))
    assert "쓰는 태스크: " in error.value.remedy
