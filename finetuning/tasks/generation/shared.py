"""What the tasks over a vocabulary share: the loss of chosen tokens, and texts that a model generates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.config.schema import GenerationSettings
from finetuning.korean import text_quality as listening
from finetuning.korean.text_quality import Said
from finetuning.tasks.base import IGNORED, Batch, Task, at_least_float32
from finetuning.tasks.generation import overlap

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What evaluation keeps of a row of a generating task: its loss over trained tokens, and a text it generated.

    characters: of the text that was trained on, so that models of other tokenizers compare.
    """

    loss_sum: float = 0.0
    items: int = 0
    characters: int = 0
    said: Said | None = None


class VocabularyTask(Task):
    """A task whose labels are token ids at some positions; the vocabulary is projected for these alone."""

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Finds out whether the loss can be had from the hidden states and the head's weights, without logits."""
        from finetuning.ops.vocabulary_loss import plain_head

        model.has_plain_head = plain_head(model) is not None  # type: ignore[assignment]

    @abstractmethod
    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """What the model's head makes of the labelled positions, (items, vocabulary)."""

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        return self.project(model, batch)

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        return torch.nn.functional.cross_entropy(at_least_float32(outputs), _chosen_labels(batch), reduction="sum")

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        from finetuning.ops.vocabulary_loss import as_identity, vocabulary_loss_sum

        head = _plain_head_of(model)
        if head is None:
            return VocabularyTask.loss_sum(self, self.project(model, batch), batch)
        with as_identity(head):
            hidden = self.project(model, batch)
        return vocabulary_loss_sum(hidden, head.weight, head.bias, _chosen_labels(batch))


class GeneratingTask(VocabularyTask):
    """A task whose predictions are generated texts; the outcome of a row is an Answer. Its outputs are losses."""

    best_metric = "loss"
    greater_is_better = False
    shown_texts: ClassVar[int] = 5

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Each labelled position's loss, (items,): logits of a whole batch never exist."""
        import torch

        from finetuning.ops.vocabulary_loss import as_identity, vocabulary_losses

        labels, head = _chosen_labels(batch), _plain_head_of(model)
        if head is None:
            return torch.nn.functional.cross_entropy(
                at_least_float32(self.project(model, batch)), labels, reduction="none"
            )
        with as_identity(head):
            hidden = self.project(model, batch)
        return vocabulary_losses(hidden, head.weight, head.bias, labels)

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return outputs.sum()

    @abstractmethod
    def generate(
        self, model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> list[Said]:  # fmt: skip
        """What the model makes of each row, out of max_length tokens of it."""

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        return {"generated": outcome.said.text}

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        """The first texts that were generated, beside what was given, what is right and what is to be remarked."""
        lines: list[str] = []
        for position, outcome in enumerate(outcomes):
            if outcome.said is not None and len(lines) < self.shown_texts:
                given, truth = self.show({name: values[position] for name, values in rows.items()})
                line = f"  {given[:100]} → {outcome.said.text[:200]}" + (f" (정답 {truth[:100]})" if truth else "")
                remarks = listening.remarks(outcome.said)
                lines.append(line + (f" [{', '.join(remarks)}]" if remarks else ""))
        return ["생성 보기", *lines] if lines else []

    @cached_property
    def _morphemes(self) -> overlap.Morphemes | None:
        return overlap.load_morphemes()  # takes seconds and some 250 MB: once, and not before there is a text

    def compared(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """How near generated texts come to the right ones, as metrics; nothing where none was generated."""
        return (
            overlap.overlap([made for made, _ in pairs], [truth for _, truth in pairs], self._morphemes)
            if pairs
            else {}
        )

    def heard(self, outcomes: Sequence[Any]) -> dict[str, float]:
        """What listening to the generated texts tells, as metrics."""
        return listening.metrics([outcome.said for outcome in outcomes if outcome.said is not None])


def vocabulary_batch(
    inputs: dict[str, torch.Tensor], labels: torch.Tensor, tokens: int, sequences: int | None = None
) -> Batch:
    """A Batch whose items are the labels that are token ids, (rows, tokens) with -100 where there is none."""
    places = (labels.flatten() != IGNORED).nonzero().squeeze(1)
    return Batch(inputs, labels, len(places), tokens, sequences, places=places)


def spoken_pairs(outcomes: Sequence[Answer], truths: Iterable[str]) -> list[tuple[str, str]]:
    """The texts that were generated, each with the right one."""
    return [
        (outcome.said.text, truth) for outcome, truth in zip(outcomes, truths, strict=True) if outcome.said is not None
    ]


def _chosen_labels(batch: Batch) -> torch.Tensor:
    """The token ids that are to be predicted, (items,)."""
    assert batch.labels is not None and batch.places is not None
    return batch.labels.flatten().index_select(0, batch.places)


def _plain_head_of(model: PreTrainedModel) -> torch.nn.Linear | None:
    """The model's head where fit_model found that the logits are its outputs as they are."""
    return model.get_output_embeddings() if getattr(model, "has_plain_head", False) else None


def losses_by_example(losses: torch.Tensor, batch: Batch) -> list[tuple[float, int]]:
    """Each row's (loss sum, items) of a batch with one example a row, out of the losses of its labelled positions."""
    assert batch.labels is not None
    counts = (batch.labels != IGNORED).sum(1).tolist()
    return [(float(part.sum()), count) for part, count in zip(losses.split(counts), counts, strict=True)]


def sampling_of(settings: GenerationSettings) -> dict[str, Any]:
    """What `generate` is told of drawing tokens: greedy at temperature 0."""
    if settings.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}


def generate_texts(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase,
    settings: GenerationSettings, prompt_tokens: int,
) -> list[Said]:  # fmt: skip
    """What the model generates for a batch, without its first prompt_tokens tokens and without special tokens.

    A model with positions for fewer tokens than `max_new_tokens` generates as many as it has.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or prompt_tokens + settings.max_new_tokens
    most = max(1, min(settings.max_new_tokens, positions - prompt_tokens))
    generate: Any = model.generate
    made = generate(
        **inputs, max_new_tokens=most, num_beams=settings.num_beams,
        repetition_penalty=settings.repetition_penalty, **sampling_of(settings),
    )  # fmt: skip
    answers = made[:, prompt_tokens:]
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    options = model.generation_config
    ends = set(options.eos_token_id if isinstance(options.eos_token_id, list) else [options.eos_token_id])
    unforced = most - (options.forced_eos_token_id is not None)  # such a model's last token is an end whatever it says
    return [
        Said(text.strip(), ended=not ends.isdisjoint(ids[:unforced]))
        for text, ids in zip(texts, answers.tolist(), strict=True)
    ]


@contextmanager
def only_positions(module: torch.nn.Module, batch: Batch) -> Iterator[None]:
    """Hands what follows `module` only its hidden states at the batch's places, as (1, items, hidden).

    The vocabulary is projected for the tokens that are trained instead of all, whatever the architecture's head is.
    """

    assert batch.places is not None
    places = batch.places

    def select(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1).index_select(0, places).unsqueeze(0)
        return output

    handle = module.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
