"""Text to text with an encoder and a decoder: translation, summaries, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.korean.column_names import SOURCES, TARGETS
from finetuning.korean.text_quality import Said
from finetuning.tasks.base import IGNORED, Batch, Column, RandomKey, encode_text, pad
from finetuning.tasks.generation.shared import (
    Answer,
    GeneratingTask,
    generate_texts,
    losses_by_example,
    only_positions,
    spoken_pairs,
    vocabulary_batch,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Text2TextGeneration(GeneratingTask):
    """Cross-entropy over the target's tokens, the one that ends it included.

    chrF and BLEU are sacrebleu's with its defaults.
    """

    name = "text2text-generation"
    aliases = ("seq2seq", "seq2seq-lm", "translation", "summarization", "번역", "요약")
    auto_class = "AutoModelForSeq2SeqLM"
    pipeline = None
    validation_texts = 100
    final_texts = 1 << 62  # every row: a test score is of the whole split

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        data = self.settings.data
        return (
            Column("prompt", "prompt_column", data.prompt_column, SOURCES),
            Column("response", "response_column", data.response_column, TARGETS, target=True),
        )

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if _start_of(model) is None:
            raise ModelError(
                "이 모델의 설정에 decoder_start_token_id가 없어 text2text-generation으로 학습할 수 없습니다.",
                where="model.name",
                remedy="T5, BART처럼 encoder와 decoder가 있는 모델을 고르세요.",
            )
        positions, wanted = getattr(model.config, "max_position_embeddings", None), self.settings.text2text
        if positions is not None and wanted.max_target_length > positions:
            raise SettingsError(
                f"이 모델은 출력을 {positions:,} 토큰까지만 만들 수 있습니다.",
                where=f"text2text.max_target_length: {wanted.max_target_length:,}",
                remedy=f"text2text.max_target_length를 {positions:,} 이하로 쓰세요.",
            )
        super().fit_model(model, tokenizer)

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        columns = encode_text(tokenizer, rows["prompt"], None, max_length)
        columns.pop("token_type_ids", None)
        if "response" in rows:
            limit = self.settings.text2text.max_target_length
            whole = [_ended(ids, tokenizer) for ids in tokenizer(text_target=list(rows["response"]))["input_ids"]]
            columns["label"] = [ids[:limit] for ids in whole]
            cut = [len(ids) > limit for ids in whole]
            columns["truncated"] = [first or second for first, second in zip(columns["truncated"], cut, strict=True)]
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """labels: (rows, target tokens) int64, -100 where padded."""
        import torch

        inputs, tokens = pad(examples, tokenizer)
        if "label" not in examples[0]:
            return Batch(inputs, None, items=0, tokens=tokens)
        lengths = [len(example["label"]) for example in examples]
        labels = torch.full((len(examples), max(lengths)), IGNORED)
        for row, example in enumerate(examples):
            labels[row, : lengths[row]] = torch.tensor(example["label"])
        return vocabulary_batch(inputs, labels, tokens + sum(lengths))

    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        assert batch.labels is not None
        shifted = batch.labels.roll(1, dims=1)
        shifted[:, 0] = _start_of(model) or 0
        decoder_ids = shifted.masked_fill(shifted == IGNORED, model.config.pad_token_id or 0)
        with only_positions(model.get_decoder(), batch):
            logits: torch.Tensor = model(**batch.inputs, decoder_input_ids=decoder_ids, use_cache=False).logits
        return logits[0]

    def outcomes(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        return [Answer(loss_sum, items) for loss_sum, items in losses_by_example(outputs, batch)]

    def generate(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> list[Said]:
        encoded = tokenizer(
            [row["prompt"] for row in rows], padding=True, truncation=True, max_length=max_length,
            return_tensors="pt", return_token_type_ids=False,
        ).to(model.device)  # fmt: skip
        return generate_texts(model, dict(encoded), tokenizer, self.settings.generation, prompt_tokens=1)

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """The loss over all rows; of those that were generated, chrF and BLEU by word (0 to 100), and what is found
        in texts of every generating task.
        """
        from sacrebleu.metrics import BLEU, CHRF

        pairs = spoken_pairs(outcomes, rows["response"])
        if not pairs:
            return {"loss": loss}
        made, truths = zip(*pairs, strict=True)
        return {
            "loss": loss,
            "chrf": float(CHRF().corpus_score(made, [truths]).score),
            "bleu": float(BLEU().corpus_score(made, [truths]).score),
            **self.compared(pairs),
            **self.heard(outcomes),
        }

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        return row["prompt"], row.get("response", "")

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """The input, and between ⟦ and ⟧ the target."""
        return f"{tokenizer.decode(example['input_ids'])} ⟦{tokenizer.decode(example['label'])}⟧"


def _ended(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Target ids with the token that ends a text, which some tokenizers (KoBART's) do not add."""
    end = tokenizer.eos_token_id
    return list(ids) if end is None or list(ids[-1:]) == [end] else [*ids, end]


def _start_of(model: PreTrainedModel) -> int | None:
    """The token that a target is begun with; None where the model has no decoder of that kind."""
    ids = [getattr(model.config, name, None) for name in ("decoder_start_token_id", "bos_token_id")]
    return next((token for token in ids if token is not None), None) if model.config.is_encoder_decoder else None
