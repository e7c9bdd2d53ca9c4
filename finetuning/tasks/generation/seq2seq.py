"""Text to text with an encoder and a decoder: translation, summaries, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.korean.column_names import SOURCES, TARGETS
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.base import Task
from finetuning.tasks.generation.decoding import Decoding
from finetuning.tasks.generation.languages import fit_first_tokens, fit_languages, target_code
from finetuning.tasks.generation.shared import (
    PROMPT_AND_RESPONSE,
    Answer,
    GeneratedTextPresenter,
    GeneratingScorer,
    generate_texts,
    generated_pairs,
)
from finetuning.tasks.parts import RowColumns, RowEncoder, RowReader
from finetuning.tasks.tensors import pad
from finetuning.tasks.text_encoding import encode_text, read_beginning, without_unread_end
from finetuning.tasks.vocabulary import losses_by_example, only_positions, vocabulary_batch
from finetuning.types import IGNORED, Batch, Column, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Text2TextGeneration(Task):
    """Cross-entropy over the target's tokens, its end token included."""

    name = "text2text-generation"
    aliases = ("seq2seq", "seq2seq-lm", "translation", "summarization", "번역", "요약")
    auto_class = "AutoModelForSeq2SeqLM"
    pipeline = None

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = SourceTargetReader(settings)
        self.encodes = SourceTargetEncoder(settings)
        self.scores = TargetScorer(settings)
        self.shows = TargetPresenter()


class SourceTargetReader(RowReader):
    """Reads a text and the text to make of it."""

    instead = PROMPT_AND_RESPONSE

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns of the source and the target."""
        return (
            self.column("prompt", "prompt_column", SOURCES),
            self.column("response", "response_column", TARGETS, target=True),
        )


class SourceTargetEncoder(RowEncoder):
    """Encodes sources for the encoder and targets for the decoder."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the languages of a multilingual tokenizer; see `RowEncoder.fit_tokenizer`."""
        fit_languages(tokenizer, self.settings)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode sources and targets; see `RowEncoder.encode`. The column `label` holds the target's ids."""
        columns = encode_text(tokenizer, rows["prompt"], None, max_length)
        columns.pop("token_type_ids", None)
        if "response" in rows:
            limit, end, code = self.settings.text2text.max_target_length, tokenizer.eos_token_id, target_code(tokenizer)
            targets = [read_beginning(tokenizer, text, limit) for text in rows["response"]]
            whole = [_ended(ids, end, code) for ids in tokenizer(text_target=targets)["input_ids"]]
            columns["label"] = [ids[:limit] for ids in whole]
            cut = [len(ids) > limit for ids in whole]
            columns["truncated"] = [first or second for first, second in zip(columns["truncated"], cut, strict=True)]
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples; see `RowEncoder.collate`. labels: (rows, target tokens) int64, -100 at padding."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        if "label" not in examples[0]:
            return Batch(inputs, None, items=0, tokens=tokens)
        lengths = [len(example["label"]) for example in examples]
        labels = torch.full((len(examples), max(lengths)), IGNORED)
        for row, example in enumerate(examples):
            labels[row, : lengths[row]] = torch.tensor(example["label"])
        return vocabulary_batch(inputs, labels, tokens + sum(lengths))

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the source, and the target between ⟦ and ⟧."""
        return f"{tokenizer.decode(example['input_ids'])} ⟦{tokenizer.decode(example['label'])}⟧"


class TargetScorer(GeneratingScorer):
    """Cross-entropy of the target's tokens. The best model is the one of lowest loss."""

    validation_texts = 100
    final_texts = 1 << 62  # every row: a test score covers the whole split

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the model has a decoder with enough positions; see `Scorer.fit_model`."""
        fit_first_tokens(model, tokenizer)
        if _start_of(model) is None:
            raise ModelError(
                "이 모델의 설정에 decoder_start_token_id가 없어 text2text-generation으로 학습할 수 없습니다.",
                where="model.name",
                remedy="T5, BART처럼 encoder와 decoder가 있는 모델을 고르세요.",
            )
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        wanted = self.settings.text2text
        if positions is not None and wanted.max_target_length > positions:
            raise SettingsError(
                f"이 모델은 출력을 {positions:,} 토큰까지만 만들 수 있습니다.",
                where=f"text2text.max_target_length: {wanted.max_target_length:,}",
                remedy=f"text2text.max_target_length를 {positions:,} 이하로 쓰세요.",
            )
        super().fit_model(model, tokenizer)

    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the head's output at the target's tokens, (items, vocabulary)."""
        assert batch.labels is not None
        shifted = batch.labels.roll(1, dims=1)
        shifted[:, 0] = _start_of(model) or 0
        decoder_ids = shifted.masked_fill(shifted == IGNORED, model.config.pad_token_id or 0)
        with only_positions(model.get_decoder(), batch):
            logits: torch.Tensor = model(**batch.inputs, decoder_input_ids=decoder_ids, use_cache=False).logits
        return logits[0]

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's loss sum and number of trained tokens."""
        return [Answer(loss_sum, items) for loss_sum, items in losses_by_example(outputs, batch)]

    def generate(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        decoding: Decoding,
    ) -> list[GeneratedText]:
        """Generate a target for each row; see `GeneratingScorer.generate`."""
        prompts = [without_unread_end(tokenizer, row["prompt"], max_length) for row in rows]
        encoded = tokenizer(
            prompts, padding=True, truncation=True, max_length=max_length,
            return_tensors="pt", return_token_type_ids=False,
        ).to(model.device)  # fmt: skip
        ids = [
            row[kept > 0].tolist() for row, kept in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        numbers = decoding.numbers(self.settings.training.seed, ids)
        return generate_texts(model, dict(encoded), tokenizer, decoding, 1, numbers)

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute the loss over all rows and, over those with a generated text, chrF and BLEU by word (0 to 100).

        chrF and BLEU are sacrebleu's with its defaults. To these come the metrics of every generating task.
        """
        from sacrebleu.metrics import BLEU, CHRF

        pairs = generated_pairs(predictions, rows["response"])
        if not pairs:
            return {"loss": loss}
        made, truths = zip(*pairs, strict=True)
        return {
            "loss": loss,
            "chrf": float(CHRF().corpus_score(made, [truths]).score),
            "bleu": float(BLEU().corpus_score(made, [truths]).score),
            **self.compared(pairs),
            **self.quality(predictions),
        }


class TargetPresenter(GeneratedTextPresenter):
    """Shows sources with expected and generated targets."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the source and the target; see `Presenter.show`."""
        return row["prompt"], row.get("response", "")


def _ended(ids: Sequence[int], end: int | None, code: int | None) -> list[int]:
    """Return target ids with the end token, which some tokenizers (KoBART's) do not add.

    mBART's adds it before the code of the language.
    """
    is_ended = end is None or list(ids[-1:]) == [end] or (code is not None and list(ids[-2:]) == [end, code])
    return list(ids) if is_ended else [*ids, end]  # type: ignore[list-item]


def _start_of(model: PreTrainedModel) -> int | None:
    """Return the token that a target starts with, or None if the model has no such decoder."""
    ids = [getattr(model.config, name, None) for name in ("decoder_start_token_id", "bos_token_id")]
    return next((token for token in ids if token is not None), None) if model.config.is_encoder_decoder else None
