"""`training.preset: auto`: values by model, task, method and number of examples, each row with its source.

A row is of published runs. Where an epoch has few steps, windows get smaller and epochs more until the steps suffice:
Zhang et al. 2021 ("Revisiting Few-sample BERT Fine-tuning") found that three epochs of a small dataset are too few, and
give RTE, 2,490 rows in windows of 32, 400 steps (sample_commands/debiased_adam_longer.sh).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from finetuning.config.metadata import value_at
from finetuning.config.schema import Settings

Kind = Literal["encoder", "causal", "seq2seq", "t5"]
Method = Literal["full", "lora", "qlora"]

_SIZE, _ACCUMULATION = "data.batch_size", "memory.gradient_accumulation_steps"
_MANY = 1 << 40  # examples
_LARGEST_BATCH = 16  # that of the defaults, whose token budget machines are known to bear
_CLASSIFIER, _TAGGER = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
_READER, _MASKED, _CAUSAL = "AutoModelForQuestionAnswering", "AutoModelForMaskedLM", "AutoModelForCausalLM"
_ADAPTERS: frozenset[Method] = frozenset({"lora", "qlora"})
_FULL: frozenset[Method] = frozenset({"full"})
_EMBEDDERS: frozenset[Kind] = frozenset({"encoder", "causal"})


@dataclass(frozen=True)
class Row:
    """Values for one kind of training.

    Attributes:
        kinds: Kinds of model that it is for.
        methods: Methods that it is for.
        auto_classes: transformers' classes of model that it is for; empty for all.
        objective: Name of the loss of a window that it is for.
        learning_rate: The highest learning rate.
        warmup_ratio: Share of the steps in which the learning rate rises.
        lr_scheduler: The schedule.
        window: Examples of a step; fewer, down to `least_window`, where an epoch has few steps.
        least_window: The fewest examples of a step.
        epochs: Epochs; more, up to `most_epochs`, where the smallest window still makes too few steps.
        most_epochs: The most epochs.
        steps: How many steps are wanted at least.
        patience: Evaluations without improvement after which training ends.
        source: Where the values stand.
    """

    kinds: frozenset[Kind]
    methods: frozenset[Method]
    learning_rate: float
    source: str
    auto_classes: frozenset[str] = frozenset()
    objective: str = "summed"
    warmup_ratio: float = 0.0
    lr_scheduler: str = "linear"
    window: int = 32
    least_window: int = 16
    epochs: int = 3
    most_epochs: int = 20
    steps: int = 400
    patience: int = 5

    def is_for(self, training: Trained) -> bool:
        """Return whether the row is for this kind of training."""
        is_its_loss = training.objective == self.objective
        fits = is_its_loss and training.kind in self.kinds and training.method in self.methods
        return fits and (not self.auto_classes or training.auto_class in self.auto_classes)


@dataclass(frozen=True)
class Trained:
    """What is trained.

    Attributes:
        kind: The kind of model.
        method: How many of its weights are trained, and in which form the others are.
        auto_class: Name of the transformers class that loads it.
        objective: Name of the loss of a window.
    """

    kind: Kind
    method: Method
    auto_class: str
    objective: str = "summed"


# The first row that fits counts.
ROWS: tuple[Row, ...] = (
    Row(
        frozenset({"encoder"}), _FULL, 5e-5, "KLUE-baseline run_all.sh의 YNAT, STS, NLI, RE",
        frozenset({_CLASSIFIER}), warmup_ratio=0.1, epochs=4,
    ),
    Row(
        frozenset({"encoder"}), _FULL, 5e-5, "KLUE-baseline run_all.sh의 NER",
        frozenset({_TAGGER}), epochs=3,
    ),
    Row(
        frozenset({"encoder"}), _FULL, 3e-5, "KLUE-baseline run_all.sh의 MRC",
        frozenset({_READER}), window=16, epochs=5, most_epochs=10,
    ),
    Row(
        frozenset({"encoder"}), _FULL, 1e-4, "BERT의 사전학습(Devlin et al. 2019): 배치 256에 1e-4",
        frozenset({_MASKED}), warmup_ratio=0.06, window=256, least_window=32, epochs=3, most_epochs=10, steps=300,
        patience=2,
    ),
    Row(
        frozenset({"encoder"}), _ADAPTERS, 5e-4, "LoRA 저자의 RoBERTa 설정(microsoft/LoRA examples/NLU)",
        warmup_ratio=0.06, epochs=4,
    ),
    Row(
        frozenset({"causal"}), _FULL, 2e-5, "Stanford Alpaca: 배치 128에 2e-5",
        frozenset({_CAUSAL}), warmup_ratio=0.03, lr_scheduler="cosine", window=128, least_window=16, epochs=3,
        most_epochs=6, steps=300, patience=2,
    ),
    Row(
        frozenset({"causal"}), frozenset({"lora"}), 2e-4,
        "LoRA Without Regret(Schulman et al. 2025)의 학습률(전체 학습의 10배), QLoRA의 배치 16", frozenset({_CAUSAL}),
        warmup_ratio=0.03, window=16, least_window=8, epochs=3, most_epochs=6, steps=300, patience=2,
    ),
    Row(
        frozenset({"causal"}), frozenset({"qlora"}), 2e-4, "QLoRA(Dettmers et al. 2023) qlora.py: 배치 16에 2e-4",
        frozenset({_CAUSAL}), warmup_ratio=0.03, lr_scheduler="constant", window=16, least_window=8, epochs=3,
        most_epochs=6, steps=300, patience=2,
    ),
    Row(
        frozenset({"causal"}), _FULL, 1e-6, "TRL의 DPO 기본값", frozenset({_CAUSAL}), "preference",
        warmup_ratio=0.1, epochs=1, most_epochs=3, steps=100, patience=2,
    ),
    Row(
        frozenset({"causal"}), _ADAPTERS, 5e-6, "Unsloth 문서의 DPO 학습률", frozenset({_CAUSAL}), "preference",
        warmup_ratio=0.1, epochs=1, most_epochs=3, steps=100, patience=2,
    ),
    Row(
        _EMBEDDERS, _FULL, 2e-5, "sentence-transformers 문서의 학습 예제(학습률, warm-up)", frozenset({"AutoModel"}),
        "contrastive", warmup_ratio=0.1, window=128, least_window=32, epochs=1, most_epochs=5, steps=200, patience=2,
    ),
    Row(
        _EMBEDDERS, _ADAPTERS, 2e-4, "LoRA Without Regret(Schulman et al. 2025): 전체 학습의 10배",
        frozenset({"AutoModel"}), "contrastive", warmup_ratio=0.1, window=128, least_window=32, epochs=1,
        most_epochs=5, steps=200, patience=2,
    ),
    Row(frozenset({"causal"}), _FULL, 2e-5, "Stanford Alpaca의 학습률", warmup_ratio=0.03, epochs=4),
    Row(
        frozenset({"causal"}), _ADAPTERS, 2e-4, "LoRA Without Regret(Schulman et al. 2025): 전체 학습의 10배",
        warmup_ratio=0.03, epochs=4,
    ),
    Row(
        frozenset({"t5"}), _FULL, 3e-4, "transformers의 T5 문서: 1e-4에서 3e-4",
        epochs=3, most_epochs=10, steps=300, patience=2,
    ),
    Row(
        frozenset({"t5"}), _ADAPTERS, 1e-3, "T5 원래 코드의 학습률",
        epochs=3, most_epochs=10, steps=300, patience=2,
    ),
    Row(
        frozenset({"seq2seq"}), _FULL, 5e-5, "transformers의 번역, 요약 예제",
        epochs=3, most_epochs=10, steps=300, patience=2,
    ),
    Row(
        frozenset({"seq2seq"}), _ADAPTERS, 5e-4, "LoRA Without Regret(Schulman et al. 2025): 전체 학습의 10배",
        epochs=3, most_epochs=10, steps=300, patience=2,
    ),
)  # fmt: skip
KEYS = frozenset(
    {
        _SIZE, _ACCUMULATION, "training.epochs", "training.learning_rate", "training.warmup_ratio",
        "training.lr_scheduler", "training.early_stopping_patience",
    }
)  # fmt: skip


def method_of(settings: Settings) -> Method:
    """Return how the settings train a model."""
    if settings.model.adapter.method not in ("lora", "dora", "pissa"):
        return "full"
    return "lora" if settings.model.quantization is None else "qlora"


def row_for(training: Trained) -> Row:
    """Return the values for a kind of training."""
    return next((row for row in ROWS if row.is_for(training)), ROWS[0])


def preset_values(row: Row, settings: Settings, by_user: Set[str], examples: int, processes: int) -> dict[str, Any]:
    """Choose the settings that the user left open.

    Args:
        row: The values of this kind of training.
        settings: The settings in force.
        by_user: Dotted names of the settings that the user decided.
        examples: Training examples of an epoch.
        processes: Processes that share a window.

    Returns:
        Values by dotted name.
    """
    batches = _batches(row, settings, by_user, examples, processes)
    size, accumulation = (batches.get(key, value_at(settings, key)) for key in (_SIZE, _ACCUMULATION))
    steps_of_epoch = math.ceil(examples / (size * accumulation * processes))
    chosen = {
        **batches,
        "training.epochs": min(max(row.epochs, math.ceil(row.steps / steps_of_epoch)), row.most_epochs),
        "training.learning_rate": row.learning_rate,
        "training.warmup_ratio": row.warmup_ratio,
        "training.lr_scheduler": row.lr_scheduler,
        "training.early_stopping_patience": row.patience,
    }
    if "training.warmup_steps" in by_user:
        del chosen["training.warmup_ratio"]  # the steps come first
    return {key: value for key, value in chosen.items() if key not in by_user}


def sources(
    row: Row, chosen: Mapping[str, Any], settings: Settings, by_user: Set[str], processes: int
) -> dict[str, str]:
    """Return where each chosen value stands, or why it was chosen.

    Args:
        row: The values of this kind of training.
        chosen: What `preset_values` chose.
        settings: The settings before.
        by_user: Dotted names of the settings that the user decided.
        processes: Processes that share a window.

    Returns:
        A Korean phrase by dotted name.
    """
    fitted = f"예제가 적어 {row.steps:,}스텝 가까이 학습하도록 맞춤"
    whole = _batches(row, settings, by_user, _MANY, processes)
    window = row.source if all(chosen.get(key) == value for key, value in whole.items()) else fitted
    found = {
        **dict.fromkeys(chosen, row.source),
        **dict.fromkeys(whole, window),
        "training.epochs": row.source if chosen.get("training.epochs") == row.epochs else fitted,
        "training.early_stopping_patience": "검증이 이 횟수만큼 연속으로 나아지지 않으면 학습을 마침",
    }
    return {key: source for key, source in found.items() if key in chosen}


def kept(chosen: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen settings with the values that a resumed run began with.

    The size of a batch is not kept but chosen again, for the processes that there are now; the window is the same.

    Args:
        chosen: Values by dotted name.
        earlier: What the checkpoint's run had chosen.

    Returns:
        Values by dotted name.
    """
    return {key: value if key in (_SIZE, _ACCUMULATION) else earlier.get(key, value) for key, value in chosen.items()}


def _batches(row: Row, settings: Settings, by_user: Set[str], examples: int, processes: int) -> dict[str, int]:
    """Divide the window into batches and accumulation steps, around the one that the user decided."""
    window, epochs = row.window, settings.training.epochs if "training.epochs" in by_user else row.epochs
    while window > row.least_window and epochs * math.ceil(examples / window) < row.steps:
        window //= 2
    mine = max(1, window // processes)
    if _SIZE in by_user and _ACCUMULATION in by_user:
        return {}
    if _SIZE in by_user:
        return {_ACCUMULATION: max(1, mine // settings.data.batch_size)}
    if _ACCUMULATION in by_user:
        return {_SIZE: max(1, mine // settings.memory.gradient_accumulation_steps)}
    size = min(mine, _LARGEST_BATCH)
    return {_SIZE: size, _ACCUMULATION: max(1, mine // size)}
