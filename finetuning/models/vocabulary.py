"""Adding pieces to a byte-level BPE tokenizer and its model.

New merges are appended to the tokenizer's own, so that text without Hangul is cut as before. A new piece's embedding
starts as the mean of the embeddings of the pieces that it replaces. `vocabulary_learning` finds the merges.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.models.vocabulary_learning import Pair, remedy
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Extension:
    """The pieces that were added to a tokenizer, as its model needs to know them.

    Attributes:
        first_id: The token id of the first new piece; the others follow it.
        replaced: For each new piece, the token ids that it was cut into before.
    """

    first_id: int
    replaced: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """Return the number of rows that an embedding needs."""
        return self.first_id + len(self.replaced)


# --- what can be extended ---


def check_task(task: Task) -> None:
    """Check that the task's models generate from their vocabulary, if `model.extend_vocabulary` is set.

    Args:
        task: The task.

    Raises:
        SettingsError: The setting is set, and they do not.
    """
    if task.settings.model.extend_vocabulary is None or task.auto_class == "AutoModelForCausalLM":
        return
    raise SettingsError(
        f"{task.name} 태스크에서는 어휘를 확장할 수 없습니다. 언어 모델(text-generation)에서만 됩니다.",
        where=f"model.extend_vocabulary: {task.settings.model.extend_vocabulary}, model.task: {task.name}",
        remedy=remedy("한국어로 사전학습한 모델(예: klue/roberta-base)을 고르세요."),
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer is a byte-level BPE: other tokenizers' pieces are not made by merging bytes.

    Args:
        tokenizer: The tokenizer.

    Raises:
        ModelError: It is another kind of tokenizer.
    """
    found = "slow tokenizer"
    if tokenizer.is_fast:
        backend = _described(tokenizer.backend_tokenizer)
        if _is_byte_level(backend):
            return
        found = str(backend["model"]["type"])
        found += " (byte-level이 아님)" if found == "BPE" else ""
    raise ModelError(
        f"이 모델의 tokenizer는 어휘를 확장할 수 없습니다. byte-level BPE만 됩니다. 이 tokenizer의 종류: {found}",
        where=f"model.extend_vocabulary, model.name: {tokenizer.name_or_path}",
        remedy=remedy("byte-level BPE인 모델(예: Qwen, Llama 3, SmolLM)이나 한국어로 사전학습한 모델을 고르세요."),
    )


def _is_byte_level(backend: Mapping[str, Any]) -> bool:
    steps = backend["pre_tokenizer"] or {}
    kinds = {step["type"] for step in steps.get("pretokenizers", [steps]) if step}
    return backend["model"]["type"] == "BPE" and "ByteLevel" in kinds


def _described(backend: Tokenizer) -> dict[str, Any]:
    """Return the content of a tokenizer's tokenizer.json."""
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


# --- the tokenizer and the model ---


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, merges: Sequence[Pair]) -> Extension:
    """Append merges to the tokenizer's own, in place. New pieces get the ids after all that exist.

    Args:
        tokenizer: A byte-level BPE tokenizer.
        merges: Pairs of pieces, in the order that they are applied in.

    Returns:
        The new pieces.
    """
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    described, known = _described(backend), tokenizer.get_vocab()
    first_id = max(known.values()) + 1
    pieces = [piece for piece in dict.fromkeys(left + right for left, right in merges) if piece not in known]
    replaced = tuple(tuple(token.id for token in backend.model.tokenize(piece)) for piece in pieces)
    model = described["model"]
    # Added tokens are part of `known`: without them their ids would be holes, which tokenizers warns about.
    model["vocab"] = known | {piece: first_id + number for number, piece in enumerate(pieces)}
    model["merges"] = [*model["merges"], *(list(pair) for pair in merges)]
    backend.model = Tokenizer.from_str(json.dumps(described)).model
    return Extension(first_id, replaced)


def embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of tokens that a model's embedding has a row for."""
    if not hasattr(model.config.get_text_config(), "vocab_size"):
        return sys.maxsize  # it reads characters without a table of them, as CANINE does
    embedding: Any = model.get_input_embeddings()
    return len(embedding.weight)


def resize(model: PreTrainedModel, rows: int) -> None:
    """Give embedding and head at least `rows` rows, in place. Tied weights stay tied."""
    if embedding_rows(model) < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)


def cover(model: PreTrainedModel, rows: int) -> None:
    """Give a model rows for tokens that only its tokenizer has, each the mean of the model's own rows.

    Args:
        model: The model, changed in place.
        rows: The number of rows that are needed.
    """
    import torch

    own = embedding_rows(model)
    if own >= rows:
        return
    resize(model, rows)
    with torch.no_grad():
        for parameter in vocabulary_parameters(model).values():
            parameter[own:] = parameter[:own].float().mean(0).to(parameter.dtype)


def initialise_rows(model: PreTrainedModel, extension: Extension) -> None:
    """Give a model rows for new pieces, each the mean of the rows of the pieces that it replaces.

    Args:
        model: The model, changed in place.
        extension: The new pieces.
    """
    import torch

    cover(model, extension.first_id)
    resize(model, extension.rows)
    with torch.no_grad():
        for parameter in vocabulary_parameters(model).values():
            means = [parameter[list(ids)].float().mean(0) for ids in extension.replaced]
            parameter[extension.first_id : extension.rows] = torch.stack(means).to(parameter.dtype)


def vocabulary_parameters(model: PreTrainedModel) -> dict[str, Any]:
    """Return the parameters with a row for each token, by name: the embedding and, unless it is tied, the head."""
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    own = {id(parameter) for module in modules if module is not None for parameter in module.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}


def train_vocabulary(model: PreTrainedModel) -> None:
    """Make the embedding and the head trainable."""
    for parameter in vocabulary_parameters(model).values():
        parameter.requires_grad_(True)
