"""Losses of preferences, a row of the table each: a loss of every example from the log-probabilities of its answers.

Sources: DPO (Rafailov et al. 2023), IPO (Azar et al. 2023), ORPO (Hong et al. 2024), SimPO (Meng et al. 2024), CPO (Xu
et al. 2024), KTO (Ethayarajh et al. 2024). Where an implementation has to choose, it is TRL 1.16's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from finetuning.config.schema import PreferenceSettings


@dataclass(frozen=True)
class Scores:
    """What losses are computed from; a float tensor of shape (examples,) each, unless it says otherwise.

    Attributes:
        good: Log-probability of the good answer of each pair, under kto of each answer, good or bad.
        bad: That of the bad answer, under kto of the answer to another question.
        good_tokens: Number of the good answer's tokens.
        bad_tokens: Number of the bad answer's tokens.
        good_reference: The good answer's log-probability before training.
        bad_reference: The bad answer's log-probability before training.
        liked: Under kto, whether the answer was judged good, bool; else None.
        reference_point: Under kto, how far the model has moved on answers to other questions, in nats, a scalar
            without a gradient; else None.
    """

    good: torch.Tensor
    bad: torch.Tensor
    good_tokens: torch.Tensor
    bad_tokens: torch.Tensor
    good_reference: torch.Tensor
    bad_reference: torch.Tensor
    liked: torch.Tensor | None = None
    reference_point: torch.Tensor | None = None

    def margins(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much likelier each answer is than before training, in nats."""
        return self.good - self.good_reference, self.bad - self.bad_reference

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each answer per token."""
        return self.good / self.good_tokens, self.bad / self.bad_tokens


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss.

    Attributes:
        of: (scores, settings, β) → the loss of each example, (examples,).
        rewards: (scores, β) → the reward of each example's two answers: what the loss tells apart.
        beta: β where the settings leave it open.
        has_reference: Whether it compares with the model before training.
        is_of_pairs: Whether an example is a pair of answers; else it is one answer that was judged good or bad.
        trains: Tokens of the good answer that are trained as in SFT, too, with the weight `nll_weight`.
    """

    of: Callable[[Scores, PreferenceSettings, float], torch.Tensor]
    rewards: Callable[[Scores, float], tuple[torch.Tensor, torch.Tensor]]
    beta: float = 0.1
    has_reference: bool = False
    is_of_pairs: bool = True
    trains: Literal["nothing", "answer", "prompt and answer"] = "nothing"


def _smoothed(difference: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return -log σ of a difference, or with label smoothing the mean of both answers' orders."""
    from torch.nn.functional import logsigmoid

    return -(1 - label_smoothing) * logsigmoid(difference) - label_smoothing * logsigmoid(-difference)


def _dpo(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    good, bad = scores.margins()
    return _smoothed(beta * (good - bad), settings.label_smoothing)


def _ipo(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    good, bad = scores.margins()  # per token, as TRL does after asking the authors
    return (good / scores.good_tokens - bad / scores.bad_tokens - 1 / (2 * beta)).square()


def _cpo(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    return _smoothed(beta * (scores.good - scores.bad), settings.label_smoothing)


def _simpo(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    good, bad = scores.means()
    return _smoothed(beta * (good - bad) - settings.simpo_gamma, settings.label_smoothing)


def _orpo(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    from torch.nn.functional import logsigmoid

    good, bad = scores.means()
    return -beta * logsigmoid(good - bad - (_log_one_minus_exp(good) - _log_one_minus_exp(bad)))


def _kto(scores: Scores, settings: PreferenceSettings, beta: float) -> torch.Tensor:
    import torch

    assert scores.liked is not None and scores.reference_point is not None
    gain = beta * (scores.good - scores.good_reference - scores.reference_point)
    good, bad = settings.desirable_weight, settings.undesirable_weight
    return torch.where(scores.liked, good * (1 - torch.sigmoid(gain)), bad * (1 - torch.sigmoid(-gain)))


def _log_one_minus_exp(value: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(value)) of negative values, accurately at both ends (Mächler 2012)."""
    import torch

    value = value.clamp(max=-torch.finfo(value.dtype).eps)
    near = torch.log(-torch.expm1(value))
    far = torch.log1p(-torch.exp(value))
    return torch.where(value > -0.6931472, near, far)


def _moved(scores: Scores, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    good, bad = scores.margins()
    return beta * good, beta * bad


def _summed(scores: Scores, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    return beta * scores.good, beta * scores.bad


def _averaged(scores: Scores, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    good, bad = scores.means()
    return beta * good, beta * bad


LOSSES: Mapping[str, PreferenceLoss] = MappingProxyType({
    "dpo": PreferenceLoss(_dpo, _moved, has_reference=True),
    "ipo": PreferenceLoss(_ipo, _moved, has_reference=True),
    "kto": PreferenceLoss(_kto, _moved, has_reference=True, is_of_pairs=False),
    "cpo": PreferenceLoss(_cpo, _summed, trains="answer"),
    "simpo": PreferenceLoss(_simpo, _averaged, beta=2.0),
    "orpo": PreferenceLoss(_orpo, _averaged, trains="prompt and answer"),
})  # fmt: skip
