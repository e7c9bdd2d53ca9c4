"""Texts as token ids, on the fastest path that a tokenizer allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exceptions import ModelError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

_CHARACTERS_A_TOKEN = 64  # far more than the tokens of any language have on average
_SHORTEST_CUT = 4096


def check_is_fast(tokenizer: PreTrainedTokenizerBase, task: str) -> None:
    """Check that a tokenizer tells which characters each token stands for.

    Args:
        tokenizer: Any tokenizer.
        task: Name of the task that needs it, for the message.

    Raises:
        ModelError: It is a slow one.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"{task}에는 fast tokenizer가 필요합니다. 이 모델에는 없습니다.",
            where="model.name",
            remedy="tokenizer.json이 있는 모델을 고르세요.",
        )


def without_unread_end(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> str:
    """Leave out the part of a very long text that truncation to max_length would remove, before it is tokenized.

    Args:
        tokenizer: Any tokenizer. Its `truncation_side` says which end is removed.
        text: The text.
        max_length: Most tokens, special tokens included.

    Returns:
        The text, or its beginning or end. Both are cut to the same tokens, and both count as cut.
    """
    side = tokenizer.truncation_side
    return read_beginning(tokenizer, text, max_length) if side == "right" else read_end(tokenizer, text, max_length)


def read_beginning(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> str:
    """Return as much of a text's beginning as its first tokens depend on.

    The cut is checked on the tokenizer: the rest must still have more than `tokens` tokens, and as many tokens must be
    the same as those of a text of twice the length. Else more of the text is kept, and at last all of it.

    Args:
        tokenizer: Any tokenizer.
        text: The text.
        tokens: How many tokens are read.

    Returns:
        The text, or its beginning, which has the same first tokens, and more of them than are read.
    """
    end = _shortest(tokens)
    if len(text) <= 2 * end:
        return text
    shorter = _ids(tokenizer, text[:end])
    while 2 * end < len(text):
        longer = _ids(tokenizer, text[: 2 * end])
        if len(shorter) > tokens + 1 and shorter[: tokens + 1] == longer[: tokens + 1]:
            return text[: 2 * end]
        end, shorter = 2 * end, longer
    return text


def read_end(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> str:
    """Return as much of a text's end as its last tokens depend on; see `read_beginning`."""
    length = _shortest(tokens)
    if len(text) <= 2 * length:
        return text
    shorter = _ids(tokenizer, text[-length:])
    while 2 * length < len(text):
        longer = _ids(tokenizer, text[-2 * length :])
        if len(shorter) > tokens + 1 and shorter[-tokens - 1 :] == longer[-tokens - 1 :]:
            return text[-2 * length :]
        length, shorter = 2 * length, longer
    return text


def _shortest(tokens: int) -> int:
    return max(_CHARACTERS_A_TOKEN * tokens, _SHORTEST_CUT)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> dict[str, list[Any]]:
    """Tokenize texts, or pairs of texts, and cut them to max_length.

    A fast tokenizer's backend is asked for ids only: tracking the characters of each token takes a third of its time.

    Args:
        tokenizer: Any tokenizer.
        texts: Texts, or the first of each pair.
        pairs: Second text of each pair, or None.
        max_length: Most tokens, special tokens included.

    Returns:
        `input_ids`, `token_type_ids` if the model takes them, and `truncated` (bool).
    """
    texts = [without_unread_end(tokenizer, text, max_length) for text in texts]
    if pairs is not None:
        pairs = [without_unread_end(tokenizer, text, max_length) for text in pairs]

    def encoded(until: int | None) -> BatchEncoding:
        second = list(pairs[:until]) if pairs is not None else None
        found: BatchEncoding = tokenizer(list(texts[:until]), second, truncation=True, max_length=max_length)
        return found

    if not _calls_backend_only(tokenizer):
        return text_columns(encoded(None), max_length)
    encoded(1)  # sets the backend's truncation and padding as the tokenizer would
    whole = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(whole)
    columns = {"input_ids": [encoding.ids for encoding in encodings]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
    columns["truncated"] = [bool(encoding.overflowing) for encoding in encodings]
    return columns


def text_columns(encoded: BatchEncoding, max_length: int) -> dict[str, list[Any]]:
    """Return the columns of encoded texts; see `encode_text`.

    Args:
        encoded: Result of calling a tokenizer with truncation.
        max_length: Length that it cut to.

    Returns:
        `input_ids`, `token_type_ids` if there are any, and `truncated` (bool).
    """
    columns: dict[str, list[Any]] = {"input_ids": encoded["input_ids"]}
    if "token_type_ids" in encoded:
        columns["token_type_ids"] = encoded["token_type_ids"]
    if encoded.encodings is not None:
        columns["truncated"] = [bool(encoding.overflowing) for encoding in encoded.encodings]
    else:  # a slow tokenizer does not report truncation: a text of full length counts as cut
        columns["truncated"] = [len(ids) >= max_length for ids in encoded["input_ids"]]
    return columns


def _calls_backend_only(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer is a fast one whose class does not process texts itself."""
    from transformers import PreTrainedTokenizerFast as Fast

    own = type(tokenizer)
    return issubclass(own, Fast) and own.__call__ is Fast.__call__ and own._encode_plus is Fast._encode_plus
