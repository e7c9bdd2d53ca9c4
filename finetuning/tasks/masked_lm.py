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
from finetuning.tasks.random_numbers import uniform
from finetuning.tasks.tensors import pad, padded
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
        import torch

        inputs, tokens = pad(examples, tokenizer)
        ids = inputs["input_ids"]
        if key is None:
            chosen = (ids == tokenizer.mask_token_id) & (inputs["attention_mask"] == 1)
        else:
            masked, places = self._mask(ids.numpy(), examples, tokenizer, key)
            inputs["input_ids"], chosen = torch.from_numpy(masked), torch.from_numpy(places)
        return vocabulary_batch(inputs, torch.where(chosen, ids, IGNORED), tokens)

    def _mask(
        self, ids: np.ndarray, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask a padded batch. At least one word of a text is chosen.

        Args:
            ids: Token ids, (rows, tokens) int64.
            examples: The rows' examples, of which `row` and `word` are read.
            tokenizer: Has the mask token.
            key: With an example's row and a token's place it decides what is drawn.

        Returns:
            The masked ids, (rows, tokens) int64, and which tokens were chosen, (rows, tokens) bool.
        """
        import numpy as np

        options = self.settings.fill_mask
        place = np.arange(ids.shape[1])
        word = padded([example["word"] for example in examples], -1)
        unit = word if options.whole_word else np.where(word >= 0, place, -1)
        row = np.array([example["row"] for example in examples])[:, None]
        score = np.where(unit >= 0, uniform(key, 0, row, unit), np.inf)  # tokens of one word have one score
        least = score.min(axis=1, keepdims=True)
        chosen = (unit >= 0) & (score <= np.maximum(least, options.mask_probability))
        fate, anything = uniform(key, 1, row, place), uniform(key, 2, row, place)
        masked = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
        masked = np.where(chosen & (fate >= 0.9), (anything * len(tokenizer)).astype(np.int64), masked)
        return masked, chosen


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
