"""Bringing a tokenizer and its model into agreement before anything is trained, or refusing by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exceptions import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

# Architectures that number positions from the padding id plus one, so that many rows of the table are not for text.
POSITIONS_AFTER_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
_STARTS_WITH_PADDING = {"t5", "mt5", "umt5", "longt5", "switch_transformers"}


@dataclass(frozen=True)
class TokenRows:
    """The rows that an embedding needs for a tokenizer.

    Attributes:
        all: For every id.
        read: For every id but that of padding, whose row changes no result.
    """

    all: int
    read: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> TokenRows:
        """Return the rows for a tokenizer's ids, which may have gaps."""
        ids = set(tokenizer.get_vocab().values())
        return cls(1 + max(ids, default=-1), 1 + max(ids - {tokenizer.pad_token_id}, default=-1))


def check_supported(config: PreTrainedConfig, name: str) -> None:
    """Refuse an architecture whose results depend on how examples are put together.

    XLNet reads a text from its end, so padding on the right changes it.

    Args:
        config: The model's config.
        name: The model, for the error message.

    Raises:
        ModelError: The model is one of these.
    """
    if config.model_type == "xlnet":
        raise ModelError(
            "XLNet은 왼쪽에 패딩을 넣는 모델이어서 배치를 나누는 방법에 따라 결과가 달라지므로 지원하지 않습니다.",
            where=f"model.name: {name}",
            remedy="BERT, RoBERTa, ELECTRA, DeBERTa 계열의 모델을 고르세요.",
        )


def steady_attention(config: PreTrainedConfig) -> dict[str, str]:
    """Return the entries of a config that make attention independent of the batch; none where it is so already.

    BigBird's sparse attention draws random blocks, and is given up for good at the first batch of short texts.
    """
    is_sparse = getattr(config, "attention_type", None) == "block_sparse"
    return {"attention_type": "original_full"} if is_sparse else {}


def tell_differences(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Log what will be changed in the model for it to agree with its tokenizer and to give steady results."""
    if steady_attention(config):
        _log.warning(
            "%s의 block_sparse attention은 배치에 든 글의 길이와 무작위 블록에 따라 결과가 달라지므로, 모든 토큰을 "
            "보는 original_full로 바꾸어 쓰고 저장합니다. 긴 글에서는 메모리가 더 필요합니다.",
            config.model_type,
        )
    rows, tokens = getattr(config.get_text_config(), "vocab_size", None), TokenRows.of(tokenizer).all
    if rows is not None and tokens > rows:
        _log.warning(
            "tokenizer의 토큰(%s개)이 모델의 임베딩(%s개)보다 많아 임베딩을 늘립니다. "
            "새 토큰은 기존 임베딩의 평균으로 초기화합니다.",
            f"{tokens:,}", f"{rows:,}",
        )  # fmt: skip


def fit_padding_token(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give a tokenizer without a padding token its end token for that, in place.

    Args:
        tokenizer: The tokenizer.
        name: The model, for the error message.

    Raises:
        ModelError: It has neither.
    """
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "이 모델의 tokenizer에는 pad 토큰도 끝 토큰(eos)도 없습니다.",
            where=f"model.name: {name}",
            remedy='tokenizer_config.json에 pad_token이나 eos_token을 정하세요. 예: "eos_token": "</s>"',
        )
    tokenizer.pad_token = tokenizer.eos_token  # padding is known by its position, so any id serves


def fit_segments(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Leave token_type_ids out, in place, where the model has no embedding for one that the tokenizer gives.

    klue/roberta has a BERT tokenizer and one segment. Tokenizers made from XLNet's give the segment 2. Models without
    `type_vocab_size` take the numbers for something else, if at all: GPT-2 for tokens, Gemma 3 for images.
    """
    if "token_type_ids" not in tokenizer.model_input_names:
        return
    segments = getattr(config.get_text_config(), "type_vocab_size", None) or 0
    if segments >= 2:
        most = max(tokenizer("가", "나")["token_type_ids"], default=0)
        if most < segments:
            return
        _log.warning(
            "tokenizer가 만드는 token_type_ids(최대 %d)가 모델의 type_vocab_size(%d)를 넘어 쓰지 않습니다.",
            most,
            segments,
        )
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


def fit_end(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Make the tokenizer of a classifier on an encoder and decoder give every text the same end tokens, in place.

    BART and T5 classify by the hidden state of the last end token. KoBART's tokenizer appends none, and an end token
    that is written in a text would be one more.

    Args:
        tokenizer: The tokenizer. It is saved with the model.
        config: The model's config.
        name: The model, for the error message.

    Raises:
        ModelError: The tokenizer has no end token, or cannot be made to append it.
    """
    if not config.is_encoder_decoder:
        return
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    if tokenizer.eos_token_id in tokenizer("가")["input_ids"]:
        return
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        raise ModelError(
            f"{config.model_type} 분류 모델은 글의 끝 토큰(eos)으로 분류하는데, 이 tokenizer는 그것을 붙이지 않습니다.",
            where=f"model.name: {name}",
            remedy="tokenizer.json이 있고 eos_token이 정해진 모델이나, BERT 계열의 모델을 고르세요.",
        )
    from tokenizers import processors

    end, backend = str(tokenizer.eos_token), tokenizer.backend_tokenizer
    template = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    own = backend.post_processor
    backend.post_processor = template if own is None else processors.Sequence([own, template])
    _log.info("tokenizer가 글 끝에 %s 토큰을 붙이게 했습니다. 이 모델은 그 토큰의 출력으로 분류합니다.", end)


def fit_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the model the tokenizer's ids of padding and of the end, in place.

    A classifier on a causal model finds each text's end by the padding id; one on an encoder and decoder by the end's
    id. A model that counts positions from its own padding id keeps that, and leaves padding out by the attention mask.
    """
    config = model.config
    if config.model_type not in POSITIONS_AFTER_PADDING and tokenizer.pad_token_id is not None:
        for part in {id(part): part for part in (config, config.get_text_config())}.values():
            part.pad_token_id = tokenizer.pad_token_id
    if not config.is_encoder_decoder:
        return
    if tokenizer.eos_token_id is not None:
        config.eos_token_id = tokenizer.eos_token_id
    if config.model_type in _STARTS_WITH_PADDING and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.pad_token_id
