"""A model of embeddings as one module from tokens to vectors, for programs that run it without this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from finetuning.config.schema import EmbeddingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Vectors(torch.nn.Module):
    """The model, with pooling and, if the settings ask for it, vectors of length 1.

    Args:
        model: The model.
        settings: How vectors are made.
    """

    def __init__(self, model: PreTrainedModel, settings: EmbeddingSettings) -> None:
        super().__init__()
        self.model, self.config, self.settings = model, model.config, settings

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return `sentence_embedding`, (texts, width), of texts padded on the right.

        Args:
            input_ids: (texts, tokens) int64.
            attention_mask: 1 for a token, 0 for padding, (texts, tokens) int64.
            token_type_ids: (texts, tokens) int64; None for a model without.

        Returns:
            The vectors by the name of the output.
        """
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, **kinds).last_hidden_state
        vectors = self._pooled(states, attention_mask)
        if self.settings.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return {"sentence_embedding": vectors}

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "cls":
            return states[:, 0]
        if self.settings.pooling == "last":
            last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, states.shape[2])
            return states.gather(1, last)[:, 0]
        weights = mask[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
