"""Documents longer than the model reads at once, as overlapping windows of which every one is read.

A document is one example: its windows are its sequences (`sizes`), and the mean of their logits is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import TextClassificationSettings
from finetuning.korean.sentences import SENTENCE_END, Starts
from finetuning.types import OF_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

USAGE = """
import json
import re

import torch

with open("이 폴더의 경로/long_documents.json", encoding="utf-8") as file:
    rule = json.load(file)


def sentence_starts(text):
    if rule["sentence_ends"] == "kiwi":
        from kiwipiepy import Kiwi

        return [sentence.start for sentence in Kiwi().split_into_sents(text)]
    if rule["sentence_ends"] == "punctuation":
        return [found.end() for found in re.finditer(rule["sentence_end"], text)]
    return []


def windows(text):  # 문장이 시작되는 토큰에서 나누고, 앞 구간의 끝 doc_stride 토큰까지 겹칩니다
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids, special = encoding["input_ids"], tokenizer("가", return_special_tokens_mask=True)["special_tokens_mask"]
    before, after = special.index(0), special[::-1].index(0)
    inside = range(before, len(ids) - after)
    room = rule["max_length"] - before - after
    stride = min(rule["doc_stride"], (room - 1) // 2)
    ends = [encoding["offset_mapping"][place][1] for place in inside]
    cuts = [sum(end <= start for end in ends) for start in sentence_starts(text)] if len(inside) > room else []
    start = 0
    while len(inside) - start > room:
        end = max([cut for cut in cuts if start + room // 2 < cut <= start + room], default=start + room)
        yield ids[:before] + [ids[place] for place in inside[start:end]] + ids[len(ids) - after :]
        start = min([cut for cut in cuts if end - stride <= cut <= end], default=end - stride)
    yield ids[:before] + [ids[place] for place in inside[start:]] + ids[len(ids) - after :]


with torch.inference_mode():
    logits = [model(torch.tensor([ids])).logits[0] for ids in windows("긴 문서")]
    print(torch.stack(logits).mean(0))  # 문서의 logits: 구간마다 구한 logits의 평균
"""


def division(settings: TextClassificationSettings, max_length: int) -> Mapping[str, Any]:
    """Return the file beside a model that says how documents are divided, which USAGE reads.

    Args:
        settings: How they are.
        max_length: Most tokens of a window.

    Returns:
        JSON values by the file's name; empty where documents are cut.
    """
    if settings.long_documents == "cut":
        return {}
    rule = {"max_length": max_length, "doc_stride": settings.doc_stride, "sentence_ends": settings.sentence_ends}
    return {"long_documents.json": {**rule, "sentence_end": SENTENCE_END}}


def encode_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, stride: int, starts: Starts
) -> dict[str, list[Any]]:
    """Tokenize texts whole, those that are too long as windows.

    Args:
        tokenizer: A fast tokenizer.
        texts: The texts.
        max_length: Most tokens of a window, special tokens included.
        stride: Most tokens that two windows share; at most half a window.
        starts: Tells where the sentences of a text begin.

    Returns:
        `input_ids` and, if the model takes them, `token_type_ids`: the windows one behind the other; `sizes`, the
        tokens of each window; `truncated`, always False.
    """
    encoded = tokenizer(list(texts), truncation=False, verbose=False)
    assert encoded.encodings is not None
    names = [name for name in OF_TOKENS if name in encoded]
    columns: dict[str, list[Any]] = {name: [] for name in (*names, "sizes", "truncated")}
    before, after = _special_tokens_around(tokenizer)
    room = max(1, max_length - before - after)
    for number, text in enumerate(texts):
        first, last = before, len(encoded["input_ids"][number]) - after
        cuts = np.empty(0, dtype=np.int64)
        if last - first > room:
            ends = [end for _, end in encoded.encodings[number].offsets[first:last]]
            cuts = np.searchsorted(ends, np.asarray(starts(text), dtype=np.int64), side="right")
        spans = window_spans(last - first, room, min(stride, (room - 1) // 2), cuts)
        for name in names:
            tokens = encoded[name][number]
            parts = [[*tokens[:first], *tokens[first + start : first + end], *tokens[last:]] for start, end in spans]
            columns[name].append(list(chain.from_iterable(parts)))
        columns["sizes"].append([before + end - start + after for start, end in spans])
        columns["truncated"].append(False)
    return columns


def window_spans(tokens: int, room: int, stride: int, cuts: np.ndarray) -> list[tuple[int, int]]:
    """Divide tokens into windows that leave none out.

    A window ends where a sentence does if it is more than half full there, else when it is full. The next one begins
    with the first sentence among the last `stride` tokens, or with the last `stride` tokens themselves.

    Args:
        tokens: Number of tokens.
        room: Most tokens of a window.
        stride: Most tokens that two windows share; less than half a window.
        cuts: The tokens with which sentences begin, in order, int64.

    Returns:
        First token of each window, and the one after its last.
    """
    spans, start = list[tuple[int, int]](), 0
    while tokens - start > room:
        fitting = cuts[(cuts > start + room // 2) & (cuts <= start + room)]
        end = int(fitting[-1]) if len(fitting) else start + room
        spans.append((start, end))
        again = cuts[(cuts >= end - stride) & (cuts <= end)]
        start = int(again[0]) if len(again) else end - stride
    return [*spans, (start, tokens)]


def pooled(logits: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the mean of each document's logits.

    Args:
        logits: Logits of all windows, (windows, labels), float32 or wider.
        sizes: Number of windows of each document.

    Returns:
        (documents, labels).
    """
    import torch

    return torch.stack([own.mean(0) for own in logits.split(list(sizes))])


def _special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many special tokens the tokenizer puts before and behind a text."""
    mask: list[int] = tokenizer("가", return_special_tokens_mask=True)["special_tokens_mask"]
    return len(list(takewhile(bool, mask))), len(list(takewhile(bool, reversed(mask))))
