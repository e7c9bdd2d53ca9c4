"""Scoring of preferences: log-probabilities of answers, the loss of each example, and metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.generation.causal import CausalScorer, last_turn
from finetuning.tasks.generation.shared import generated_pairs
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.preference.losses import LOSSES, PreferenceLoss, Scores
from finetuning.types import Batch

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

_SUMMARY = ("good", "bad", "good_tokens", "bad_tokens", "good_reference", "bad_reference", "liked")


@dataclass(frozen=True)
class Judged:
    """What evaluation keeps of a row.

    Attributes:
        examples: Of each of its examples the numbers of `Scores`, and under orpo and cpo the loss and the number of
            tokens that are trained as in SFT.
        generated: A generated answer, if one was generated.
    """

    examples: tuple[tuple[float, ...], ...] = ()
    generated: GeneratedText | None = None


class PreferenceScorer(CausalScorer):
    """Loss of `preference.loss`. The best model is the one of lowest loss."""

    validation_texts = 0
    reads: ClassVar[frozenset[str]] = frozenset()  # the loss is not the one that they change

    @property
    def loss(self) -> PreferenceLoss:
        """The loss that the settings name."""
        return LOSSES[self.settings.preference.loss]

    @property
    def beta(self) -> float:
        """β of the loss."""
        asked = self.settings.preference.beta
        return self.loss.beta if asked is None else asked

    # --- from tokens to answers ---

    def log_probabilities(self, losses: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the log-probability of each answer, (answers,), from the loss of each place."""
        return -_by_answer(losses, batch)

    def moved(self, losses: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return how much likelier a batch's answers are than before training: a sum over them, in nats."""
        assert batch.answers is not None and batch.answers.reference is not None
        found = self.log_probabilities(losses, batch)
        return (found - batch.answers.reference.to(found.dtype)).sum()

    # --- losses ---

    def example_losses(
        self, losses: torch.Tensor, batch: Batch, point: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the loss of each example, (examples,), and sums over them of how their rewards lie.

        Args:
            losses: Loss of each place of the batch.
            batch: The batch.
            point: The window's reference point under kto, else None.

        Returns:
            The losses, with gradients; the number of examples whose rewards are on the right side, and of pairs the
            sum of the margins.
        """
        scores = self._scores(losses, batch, point)
        found = self.loss.of(scores, self.settings.preference, self.beta)
        good, bad = (reward.detach() for reward in self.loss.rewards(scores, self.beta))
        rights = good > bad if scores.liked is None else (good > 0) == scores.liked
        right = rights.sum().to(found.dtype)
        return found, [right, (good - bad).sum()] if scores.liked is None else [right]

    def sft_loss(self, losses: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the weighted cross-entropy of what is trained as in SFT, summed over its tokens."""
        return self.settings.preference.nll_weight * (losses * _sft_places(batch, self.loss)).sum()

    def sft_tokens(self, batch: Batch) -> int:
        """Return the number of tokens that are trained as in SFT; the batch is on the host."""
        if self.loss.trains == "nothing" or self.settings.preference.nll_weight == 0:
            return 0
        return int(_sft_places(batch, self.loss).sum())

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return a batch's loss by itself, for the memory estimate: the objective computes a window's."""
        losses = self.token_losses(model, batch)
        point = losses.new_zeros(()) if batch.others is not None else None
        loss = self.example_losses(losses, batch, point)[0].sum()
        return loss if self.loss.trains == "nothing" else loss + self.sft_loss(losses, batch)

    def _scores(self, losses: torch.Tensor, batch: Batch, point: torch.Tensor | None) -> Scores:
        import torch

        answers = batch.answers
        assert answers is not None
        found = self.log_probabilities(losses, batch)
        tokens = _by_answer(torch.ones_like(found[:1]).expand(len(losses)), batch)
        reference = torch.zeros_like(found) if answers.reference is None else answers.reference.to(found.dtype)
        if self.loss.is_of_pairs:
            return Scores(found[::2], found[1::2], tokens[::2], tokens[1::2], reference[::2], reference[1::2])
        nothing = torch.zeros_like(found)
        return Scores(found, nothing, tokens, nothing, reference, nothing, answers.liked, point)

    # --- evaluation ---

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss of each place; those of `others` follow the batch's own."""
        import torch

        own = self.token_losses(model, batch)
        return own if batch.others is None else torch.cat([own, self.token_losses(model, batch.others)])

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return the numbers of each example; see `Judged`."""
        import torch

        assert batch.answers is not None and batch.places is not None
        own, outputs = outputs[: len(batch.places)].double(), outputs.double()
        scores = self._scores(own, batch, None)
        if batch.others is not None:
            other = self._scores(outputs[len(own) :], batch.others, None)
            liked = batch.answers.liked
            scores = Scores(
                scores.good, other.good, scores.good_tokens, other.good_tokens, scores.good_reference,
                other.good_reference, liked,
            )  # fmt: skip
        columns = [getattr(scores, name) for name in _SUMMARY]
        if batch.answers.reference is None and self.loss.has_reference:  # no model to compare with was given
            unknown = torch.full_like(scores.good, math.nan)
            columns = [
                unknown if name.endswith("reference") else part for name, part in zip(_SUMMARY, columns, strict=True)
            ]
        columns = [torch.zeros_like(scores.good) if part is None else part.double() for part in columns]
        sft_losses, sft_tokens = torch.zeros_like(scores.good), torch.zeros_like(scores.good)
        if self.loss.trains != "nothing":
            places, examples = _sft_places(batch, self.loss).double(), _examples_of_pairs(batch)
            sft_losses, sft_tokens = (sft_losses.index_add(0, examples, part) for part in (own * places, places))
        return [tuple(row) for row in torch.stack([*columns, sft_losses, sft_tokens], 1).tolist()]

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Collect the numbers of each row's examples; see `Scorer.gather`."""
        found: dict[int, Judged] = {number: Judged() for number in rows["row"]}
        for number, numbers in zip(examples["row"], predictions, strict=True):
            found[number] = Judged((*found[number].examples, numbers))
        return list(found.values())

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute the loss, rewards and how often the good answer has the higher one.

        The loss is that of the whole split as one window; `loss`, a mean over tokens, is not used.
        """
        import torch

        table = torch.tensor([one for row in predictions for one in row.examples], dtype=torch.float64)
        *columns, sft_losses, sft_tokens = table.unbind(1)
        scores = Scores(**dict(zip(_SUMMARY, columns, strict=True)))
        if bool(scores.good_reference.isnan().any()):
            is_pair = self.loss.is_of_pairs
            return {"answer_accuracy": float((scores.good > scores.bad).double().mean())} if is_pair else {}
        if self.loss.is_of_pairs:
            scores = Scores(**{**vars(scores), "liked": None})
        else:
            point = (scores.bad - scores.bad_reference).mean().clamp(min=0)
            scores = Scores(**{**vars(scores), "liked": scores.liked == 1, "reference_point": point})
        value = float(self.loss.of(scores, self.settings.preference, self.beta).mean())
        if float(sft_tokens.sum()):
            value += self.settings.preference.nll_weight * float(sft_losses.sum() / sft_tokens.sum())
        found = {"loss": value, **_rewards(scores, *self.loss.rewards(scores, self.beta))}
        if "messages" in rows:
            pairs = generated_pairs(predictions, rows["messages"])
            found |= self.compared([(made, last_turn(messages)[1]) for made, messages in pairs])
        return found | self.quality(predictions)


def _rewards(scores: Scores, good: torch.Tensor, bad: torch.Tensor) -> dict[str, float]:
    """Return mean rewards, their margin, and the share of pairs (answers under kto) on the right side."""
    if scores.liked is not None:
        rewards, liked = good, scores.liked
        good, bad = rewards[liked], rewards[~liked]
        is_right = (rewards > 0) == liked
        if not (len(good) and len(bad)):
            return {}  # of good answers alone any reward above 0 would be right
    else:
        is_right = good > bad
    means = float(good.mean()), float(bad.mean())
    return {
        "reward_accuracy": float(is_right.double().mean()),
        "reward_margin": means[0] - means[1],
        "reward_good": means[0],
        "reward_bad": means[1],
    }


def _by_answer(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sum values of places by answer; those of a prompt are left out."""
    assert batch.answers is not None
    sums = values.new_zeros(batch.answers.count + batch.items)
    return sums.index_add(0, batch.answers.owners, values)[: batch.answers.count]


def _sft_places(batch: Batch, loss: PreferenceLoss) -> torch.Tensor:
    """Return which places are trained as in SFT, (items,) bool: the good answers', and of orpo the prompts'."""
    assert batch.answers is not None
    owners, count = batch.answers.owners, batch.answers.count
    is_good = (owners % 2 == 0) & (owners < count)
    return is_good | (owners >= count) if loss.trains == "prompt and answer" else is_good


def _examples_of_pairs(batch: Batch) -> torch.Tensor:
    """Return the example of each place of pairs, (places,) int64."""
    import torch

    assert batch.answers is not None
    owners, count = batch.answers.owners, batch.answers.count
    return torch.where(owners < count, owners // 2, owners - count)
