"""How texts are generated: what the settings say, and where they say nothing, what the model's generation config does.

A token is drawn with one number of a row's own: the first token at which the summed probabilities pass it. The numbers
come from the seed, the prompt's tokens and the answer's number, so a row draws the same ones in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import GenerationSettings

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList, PreTrainedModel

_MOST_TOKENS = 128  # where neither the settings nor the model say
_NO_PENALTY = 1.0
# What narrows a draw, in transformers' order → its value where nobody says, and the value that changes nothing.
_NARROWING: Mapping[str, tuple[float | None, float | None]] = MappingProxyType({
    "temperature": (1.0, 1.0),
    "top_k": (50, 0),
    "top_p": (1.0, 1.0),
    "min_p": (None, None),
    "typical_p": (1.0, 1.0),
    "epsilon_cutoff": (0.0, 0.0),
    "eta_cutoff": (0.0, 0.0),
})  # fmt: skip


@dataclass(frozen=True)
class Decoding:
    """How texts are generated.

    Attributes:
        max_new_tokens: Most tokens of a text.
        num_beams: Width of beam search; nothing is drawn where it is more than 1.
        repetition_penalty: Divides the logits of tokens that occurred; 1 leaves them.
        samples: Whether tokens are drawn; else the most likely one is taken.
        narrowing: What narrows a draw, such as `temperature` and `top_p` → its value.
        of_model: Names of the values that are the model's own.
    """

    max_new_tokens: int
    num_beams: int = 1
    repetition_penalty: float = _NO_PENALTY
    samples: bool = False
    narrowing: Mapping[str, float] = field(default_factory=dict)
    of_model: frozenset[str] = frozenset()

    def line(self) -> str:
        """Return the values in force as a line for the log, and which of them are the model's own."""
        if self.num_beams > 1:
            way = f"beam search(폭 {self.num_beams})"
        elif self.samples:
            shown = {"temperature": 1.0, **self.narrowing}
            way = f"샘플링({', '.join(f'{name} {value:g}' for name, value in shown.items())})"
        else:
            way = "greedy(가장 확률이 높은 토큰)"
        parts = [way, f"최대 {self.max_new_tokens:,}토큰"]
        if self.repetition_penalty != _NO_PENALTY:
            parts.append(f"repetition_penalty {self.repetition_penalty:g}")
        own = ", ".join(sorted(self.of_model))
        return f"생성 방법: {', '.join(parts)}" + (f". 모델의 generation_config를 따른 값: {own}" if own else "")

    def arguments(self, prompt_tokens: int, numbers: np.ndarray | None) -> dict[str, Any]:
        """Return the arguments of transformers' `generate`.

        Args:
            prompt_tokens: Number of tokens before the first generated one, padding included.
            numbers: From 0 to 1, (rows, new tokens) float64, to draw with; None where nothing is drawn.

        Returns:
            The arguments by name.
        """
        found: dict[str, Any] = {
            "num_beams": self.num_beams, "repetition_penalty": self.repetition_penalty, "do_sample": False,
        }  # fmt: skip
        if numbers is not None:
            found["logits_processor"] = self._drawing(prompt_tokens, numbers)
        return found

    def numbers(self, seed: int, prompts: Sequence[Sequence[int]], answers: Sequence[int] = ()) -> np.ndarray | None:
        """Return the numbers that the tokens of each row are drawn with, which depend on nothing but the row.

        Args:
            seed: Seed of the run.
            prompts: Token ids of each row's prompt.
            answers: Which answer to its prompt each row is; none counts as the first of each.

        Returns:
            From 0 to 1, (rows, max_new_tokens) float64; None where nothing is drawn.
        """
        if not self.samples:
            return None
        rows = zip(prompts, answers or [0] * len(prompts), strict=True)
        return np.stack(
            [np.random.default_rng([seed, answer, *ids]).random(self.max_new_tokens) for ids, answer in rows]
        )

    def _drawing(self, prompt_tokens: int, numbers: np.ndarray) -> LogitsProcessorList:
        from transformers import LogitsProcessorList
        from transformers.generation import logits_process

        kinds = {
            "temperature": logits_process.TemperatureLogitsWarper,
            "top_k": logits_process.TopKLogitsWarper,
            "top_p": logits_process.TopPLogitsWarper,
            "min_p": logits_process.MinPLogitsWarper,
            "typical_p": logits_process.TypicalLogitsWarper,
            "epsilon_cutoff": logits_process.EpsilonLogitsWarper,
            "eta_cutoff": logits_process.EtaLogitsWarper,
        }
        warpers: list[Any] = [kinds[name](value) for name, value in self.narrowing.items()]
        return LogitsProcessorList([*warpers, _Draw(prompt_tokens, numbers, int(self.narrowing.get("top_k", 0)))])


class _Draw:
    """Leaves one token of each row, drawn with the row's own numbers; greedy decoding then takes it."""

    def __init__(self, prompt_tokens: int, numbers: np.ndarray, most: int) -> None:
        self.prompt_tokens, self.numbers, self.most = prompt_tokens, numbers, most

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        step = input_ids.shape[1] - self.prompt_tokens
        # tokens beyond the likeliest few have no probability left, and to sum over a whole vocabulary takes time
        found = scores.topk(min(self.most, scores.shape[-1])) if self.most else None
        kept = scores if found is None else found.values
        summed = kept.double().softmax(-1).cumsum(-1)
        drawn = torch.as_tensor(self.numbers[:, step : step + 1], device=scores.device) * summed[:, -1:]
        place = (summed <= drawn).sum(-1, keepdim=True).clamp(max=kept.shape[-1] - 1)
        token = place if found is None else found.indices.gather(1, place)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def decoding_of(settings: GenerationSettings, model: PreTrainedModel, *, is_measured: bool) -> Decoding:
    """Return how texts are generated with a model.

    Args:
        settings: What the user says; None leaves a value to the model.
        model: The model, with its generation config.
        is_measured: Whether texts are scored, in validation or `evaluate`. Nothing is drawn then unless the settings
            ask for it, and the model's own length does not count, which may be thousands of tokens.

    Returns:
        The values in force.
    """
    own, of_model = model.generation_config, set[str]()

    def value(name: str, default: float | None) -> Any:
        said, models = getattr(settings, name, None), getattr(own, name, None)
        if said is None and models not in (None, default):
            of_model.add(name)
        return next((one for one in (said, models) if one is not None), default)

    beams, penalty = int(value("num_beams", 1)), float(value("repetition_penalty", _NO_PENALTY))
    most = (settings.max_new_tokens or _MOST_TOKENS) if is_measured else int(value("max_new_tokens", _MOST_TOKENS))
    if "max_new_tokens" in of_model:  # the model's own length must leave room for the prompt
        most = min(most, max(1, (positions_of(model) or 2 * most) // 2))
    if settings.temperature is not None:
        samples = settings.temperature > 0
    else:
        samples = bool(value("do_sample", False)) and not is_measured
    if not samples or beams > 1:
        return Decoding(most, beams, penalty, of_model=frozenset(of_model - {"do_sample"}))
    found = {name: value(name, default) for name, (default, _) in _NARROWING.items()}
    narrowing = {name: number for name, number in found.items() if number not in (None, _NARROWING[name][1])}
    return Decoding(most, beams, penalty, True, narrowing, frozenset(of_model))


def positions_of(model: PreTrainedModel) -> int | None:
    """Return the most tokens that a model has positions for; None where its config does not say."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found
