"""Masked language modelling: continued pretraining of an encoder on the user's own texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.config.schema import Settings
from finetuning.korean.column_names import TEXTS
from finetuning.tasks.base import Task
from finetuning.tasks.parts import RowColumns, RowEncoder, RowReader
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tensors import pad
from finetuning.tasks.text_encoding import check_is_fast, text_columns, without_unread_end
from finetuning.tasks.vocabulary import (
    VocabularyScorer,
    chosen_labels,
    only_positions,
    rows_of_places,
    vocabulary_batch,
)
from finetuning.types import IGNORED, Batch, Column, RandomKey

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FillMask(Task):
    """Cross-entropy of masked tokens. The best model is the one of lowest loss."""

    name = "fill-mask"
    aliases = ("masked-lm", "masked-language-modeling", "mlm", "마스크 채우기")
    auto_class = "AutoModelForMaskedLM"
    pipeline = "fill-mask"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = PlainTextReader(settings)
        self.encodes = MaskingEncoder(settings)
        self.scores = MaskScorer(settings)
        self.shows = MaskPresenter()


class PlainTextReader(RowReader):
    """Reads a text without a label."""

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the text's column."""
        return (self.column("text", "text_column", TEXTS),)


class MaskingEncoder(RowEncoder):
    """Encodes texts and masks them as BERT does (Devlin et al. 2019).

    80% of the chosen tokens become the mask, 10% a random token, and 10% stay. Words (어절) are chosen whole, so that a
    subword cannot be read off the rest of its word. Masks are drawn anew each epoch from seed, epoch and row. They do
    not depend on how a window is cut or where a run was stopped.
    """

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Change nothing; raise ModelError for a tokenizer without a mask token, and for a slow one."""
        if tokenizer.mask_token_id is None:
            raise ModelError(
                "이 모델의 tokenizer에는 mask 토큰이 없어 fill-mask로 학습할 수 없습니다.",
                where="model.name",
                remedy="BERT, RoBERTa, ELECTRA generator처럼 mask 토큰이 있는 인코더를 고르세요.",
            )
        check_is_fast(tokenizer, FillMask.name)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode texts; see `RowEncoder.encode`. The column `word` holds each token's word, -1 for special tokens."""
        texts = [without_unread_end(tokenizer, text, max_length) for text in rows["text"]]
        encoded = tokenizer(texts, truncation=True, max_length=max_length)
        assert encoded.encodings is not None
        columns = text_columns(encoded, max_length)
        columns["word"] = [[-1 if word is None else word for word in e.word_ids] for e in encoded.encodings]
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad and mask examples; see `RowEncoder.collate`. labels: (rows, tokens) int64, -100 at tokens not chosen.

        Without a key nothing is drawn, and the masks in the text are the labelled positions.
        """
        import numpy as np
        import torch

        inputs, tokens = pad(examples, tokenizer)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for position, example in enumerate(examples):
            if key is None:
                original = masked = np.array(example["input_ids"])
                chosen = original == tokenizer.mask_token_id
            else:
                original, masked, chosen = self._mask(example, tokenizer, key)
            inputs["input_ids"][position, : len(masked)] = torch.from_numpy(masked)
            labels[position, : len(masked)][torch.from_numpy(chosen)] = torch.from_numpy(original[chosen])
        return vocabulary_batch(inputs, labels, tokens)

    def _mask(
        self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, key: RandomKey
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the ids, the masked ids and which were chosen, (tokens,) each. At least one word of a text is."""
        import numpy as np

        options = self.settings.fill_mask
        random = np.random.default_rng([key.seed, key.epoch, example["row"]])
        original, word = np.array(example["input_ids"]), np.array(example["word"])
        unit = word if options.whole_word else np.where(word >= 0, np.arange(len(word)), -1)
        units = np.unique(unit[unit >= 0])
        if not len(units):
            return original, original, np.zeros(len(original), dtype=bool)
        picked = units[random.random(len(units)) < options.mask_probability]
        if not len(picked):
            picked = random.choice(units, 1)
        chosen = np.isin(unit, picked)
        fate, anything = random.random(len(original)), random.integers(0, len(tokenizer), len(original))
        masked = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, original)
        masked = np.where(chosen & (fate >= 0.9), anything, masked)
        return original, masked, chosen


class MaskScorer(VocabularyScorer):
    """Cross-entropy of the chosen tokens."""

    best_metric = "loss"
    greater_is_better = False

    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the head's output at the chosen positions, (items, vocabulary)."""
        assert batch.labels is not None
        with only_positions(model.base_model, batch):
            logits: torch.Tensor = model(**batch.inputs).logits
        return logits[0]

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's predicted ids at its chosen positions, and how many of them are right."""
        import torch

        predicted = outputs.argmax(-1)
        columns = torch.stack([rows_of_places(batch), predicted, (predicted == chosen_labels(batch)).long()])
        found: list[tuple[list[int], int]] = [([], 0) for _ in batch.inputs["input_ids"]]
        for row, token, is_right in zip(*columns.tolist(), strict=True):  # one wait for the device
            tokens, right = found[row]
            tokens.append(token)
            found[row] = tokens, right + is_right
        return list(found)

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute perplexity and the accuracy at the chosen positions."""
        masked = sum(len(predicted) for predicted, _ in predictions)
        correct = sum(right for _, right in predictions)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), "masked_accuracy": correct / max(masked, 1)}


class MaskPresenter(Presenter):
    """Shows predicted tokens."""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the tokens predicted at the masks."""
        predicted, _ = prediction
        return {"tokens": tokenizer.convert_ids_to_tokens(predicted)}
