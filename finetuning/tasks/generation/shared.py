"""What the generating tasks share: losses of single tokens, generated texts, and how both are scored and shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from finetuning.korean import text_quality
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.evidence import Case, Evidence, Part
from finetuning.tasks.generation import overlap, states
from finetuning.tasks.generation.decoding import Decoding, positions_of
from finetuning.tasks.generation.evidence import generated_evidence
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tensors import at_least_float32
from finetuning.tasks.vocabulary import VocabularyScorer, chosen_labels, plain_head_of
from finetuning.types import Batch

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# settings of a text and its label → the settings of this room's tasks
PROMPT_AND_RESPONSE = MappingProxyType({"text_column": "prompt_column", "label_column": "response_column"})
_SHOWN_TEXTS = 5


@dataclass(frozen=True)
class Answer:
    """What evaluation keeps of a row of a generating task.

    Attributes:
        loss_sum: Loss summed over the trained tokens.
        items: Number of trained tokens.
        characters: Number of characters of the trained text, so that models of other tokenizers compare.
        generated: A generated text, if one was generated.
    """

    loss_sum: float = 0.0
    items: int = 0
    characters: int = 0
    generated: GeneratedText | None = None


class GeneratingScorer(VocabularyScorer):
    """Scores trained tokens by their loss, and generated texts by their quality. A row's prediction is an Answer."""

    best_metric = "loss"
    greater_is_better = False

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss of each labelled position, (items,)."""
        return self.token_losses(model, batch)

    def token_losses(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss of each labelled position, (items,). The logits of a whole batch never exist."""
        import torch

        from finetuning.ops.vocabulary_loss import vocabulary_losses

        labels, head = chosen_labels(batch), plain_head_of(model)
        if head is None:
            return torch.nn.functional.cross_entropy(
                at_least_float32(self.project(model, batch)), labels, reduction="none"
            )
        return self.from_hidden(
            model, batch, head, lambda hidden: vocabulary_losses(hidden, head.weight, head.bias, labels)
        )

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of the losses."""
        return outputs.sum()

    @abstractmethod
    def generate(
        self, model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase,
        max_length: int, decoding: Decoding,
    ) -> list[GeneratedText]:  # fmt: skip
        """Generate a text for each row, in one batch.

        Args:
            model: Model after `fit_model`.
            rows: Values by role.
            tokenizer: Tokenizer of the model.
            max_length: Most tokens of a row that the model is given.
            decoding: How texts are generated.

        Returns:
            One text for each row.
        """

    @cached_property
    def _morphemes(self) -> overlap.Morphemes | None:
        return overlap.load_morphemes()  # takes seconds and some 250 MB: once, and only if a text was generated

    def compared(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Return metrics of how close generated texts or states are to the expected ones; none without a text."""
        if not pairs:
            return {}
        made, truths = zip(*pairs, strict=True)
        return {**overlap.overlap(made, truths, self._morphemes), **states.state_scores(pairs)}

    def quality(self, predictions: Sequence[Answer]) -> dict[str, float]:
        """Return metrics of the generated texts alone, such as repetition; none if none was generated."""
        return text_quality.metrics([one.generated for one in predictions if one.generated is not None])


class GeneratedTextPresenter(Presenter):
    """Shows generated texts."""

    def is_told(self, prediction: Any) -> bool:
        """Return whether a text was generated: validation generates a few, and preferences none."""
        return prediction.generated is not None

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the generated text."""
        return {"generated": prediction.generated.text}

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return the first generated texts, each with its input, its expected output and remarks on its quality."""
        lines: list[str] = []
        for position, prediction in enumerate(predictions):
            if prediction.generated is not None and len(lines) < _SHOWN_TEXTS:
                given, truth = self.show({name: values[position] for name, values in rows.items()})
                line = f"  {given[:100]} → {prediction.generated.text[:200]}" + (
                    f" (정답 {truth[:100]})" if truth else ""
                )
                remarks = text_quality.remarks(prediction.generated)
                lines.append(line + (f" [{', '.join(remarks)}]" if remarks else ""))
        return ["생성 예시", *lines] if lines else []

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return the losses of the rows, and generated texts beside the expected ones; see `Presenter.evidence`."""
        losses = [one.loss_sum / one.items for one in predictions if isinstance(one, Answer) and one.items]
        return generated_evidence(predictions, rows, self.show, losses)

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the input, the expected text and the generated one with remarks; see `Presenter.case`."""
        given, truth = self.show(row)
        remarks = ", ".join(text_quality.remarks(prediction.generated))
        parts = [
            ("입력", given),
            ("정답", truth),
            ("생성", prediction.generated.text or "(빈 텍스트)"),
            ("참고", remarks),
        ]
        return Case(tuple(Part(name, text) for name, text in parts if text))


def generated_pairs(predictions: Sequence[Answer], truths: Iterable[str]) -> list[tuple[str, str]]:
    """Return each generated text with the expected one; rows without a generated text are left out."""
    return [
        (one.generated.text, truth) for one, truth in zip(predictions, truths, strict=True) if one.generated is not None
    ]


def generate_texts(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase,
    decoding: Decoding, prompt_tokens: int, numbers: np.ndarray | None,
) -> list[GeneratedText]:  # fmt: skip
    """Generate a text for each row of a batch.

    Args:
        model: Any model with `generate`. One with too few positions for `max_new_tokens` fills those that it has.
        inputs: Keyword arguments of `generate`, on the model's device.
        tokenizer: Tokenizer of the model.
        decoding: Sampling, beams and the most new tokens.
        prompt_tokens: Number of leading tokens of the result that are not generated.
        numbers: What each row's tokens are drawn with, from `Decoding.numbers`.

    Returns:
        The texts without special tokens.
    """
    from finetuning.device.sharding import is_sharded
    from finetuning.device.usage import room_to_copy
    from finetuning.ops.packed_weights import packed_weights

    most = max(1, min(decoding.max_new_tokens, (positions_of(model) or 1 << 30) - prompt_tokens))
    generate: Any = model.generate
    options = decoding.arguments(prompt_tokens, numbers)
    with packed_weights(model, decoding.num_beams * len(inputs["input_ids"]), room_to_copy()):
        made = generate(**inputs, max_new_tokens=most, synced_gpus=is_sharded(model), **options)
    answers: list[list[int]] = made[:, prompt_tokens:].tolist()  # one wait for the device, instead of one a row
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    config = model.generation_config
    ends = set(config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id])
    unforced = most - (config.forced_eos_token_id is not None)  # a forced last token does not mean that the text ended
    return [
        GeneratedText(text.strip(), ended=not ends.isdisjoint(ids[:unforced]))
        for text, ids in zip(texts, answers, strict=True)
    ]
