"""What the tasks over a vocabulary share: the loss of chosen tokens, and texts that a model generates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from settings import GenerationSettings
from tasks.base import IGNORED, Batch, Task, at_least_float32

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
    text: str | None = None


class VocabularyTask(Task):
    """A task whose labels are token ids at some positions; its logits, (items, vocabulary), are of these alone."""

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        assert batch.labels is not None
        labels = batch.labels[batch.labels != IGNORED]
        return torch.nn.functional.cross_entropy(at_least_float32(logits), labels, reduction="sum")


class GeneratingTask(VocabularyTask):
    """A task whose predictions are generated texts; the outcome of a row is an Answer."""

    best_metric = "loss"
    greater_is_better = False
    shown_texts: ClassVar[int] = 5

    @abstractmethod
    def generate(
        self, model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> list[str]:  # fmt: skip
        """The text that the model makes of each row, out of max_length tokens of it."""

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        return {"generated": outcome.text or ""}

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        """The first texts that were generated, beside what was given and what is right."""
        lines: list[str] = []
        for position, outcome in enumerate(outcomes):
            if outcome.text is not None and len(lines) < self.shown_texts:
                given, truth = self.show({name: values[position] for name, values in rows.items()})
                lines.append(f"  {given[:100]} → {outcome.text[:200]}" + (f" (정답 {truth[:100]})" if truth else ""))
        return ["생성 보기", *lines] if lines else []


def losses_by_example(logits: torch.Tensor, batch: Batch) -> list[tuple[float, int]]:
    """Each row's (loss sum, items) of a batch with one example a row, out of the logits of its labelled positions."""
    import torch

    assert batch.labels is not None
    chosen = batch.labels != IGNORED
    counts = chosen.sum(1).tolist()
    losses = torch.nn.functional.cross_entropy(at_least_float32(logits), batch.labels[chosen], reduction="none")
    return [(float(part.sum()), count) for part, count in zip(losses.split(counts), counts, strict=True)]


def sampling_of(settings: GenerationSettings) -> dict[str, Any]:
    """What `generate` is told of drawing tokens: greedy at temperature 0."""
    if settings.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}


def generate_texts(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase,
    settings: GenerationSettings, prompt_tokens: int,
) -> list[str]:  # fmt: skip
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
    texts: list[str] = tokenizer.batch_decode(made[:, prompt_tokens:], skip_special_tokens=True)
    return [text.strip() for text in texts]


@contextmanager
def only_positions(module: torch.nn.Module, chosen: torch.Tensor) -> Iterator[None]:
    """Hands what follows `module` only its hidden states at the chosen (rows, tokens), as (1, chosen, hidden).

    The vocabulary is projected for the tokens that are trained instead of all, whatever the architecture's head is.
    """

    def select(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[chosen].unsqueeze(0)
        return output

    handle = module.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
