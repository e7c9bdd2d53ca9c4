"""A very long text is cut before it is tokenized: to the same tokens, and it still counts as cut."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from finetuning.tasks.text_encoding import encode_text, without_unread_end

LONG = {
    "words": "정말 재미있다 그리고 지루하다 " * 3000,
    "no spaces": "정말재미있다" * 10_000,
    "one word that is unknown": "가" * 60_000,
    "blank": " " * 60_000 + "정말 재미있다 " * 100,
    "lines": "정말\n\n재미있다\u200b " * 6000,
    "short": "정말 재미있다",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("model", ["tiny_model", "tiny_causal"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_cut_text_has_the_tokens_of_the_whole(
    name: str, model: str, paired: bool, request: pytest.FixtureRequest
) -> None:
    from transformers import AutoTokenizer

    folder: Path = request.getfixturevalue(model)
    tokenizer, other = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pair = ["정말 재미있다"] if paired else None
    found = encode_text(tokenizer, [LONG[name]], pair, 32)
    whole = other(LONG[name], pair[0] if pair else None, truncation=True, max_length=32)
    assert found["input_ids"] == [whole["input_ids"]]
    assert found["truncated"] == [bool(whole.encodings[0].overflowing)]


def test_two_million_characters_take_no_longer_than_their_beginning(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer, text = AutoTokenizer.from_pretrained(tiny_model), "정말 재미있다 " * 250_000
    begin = time.monotonic()
    assert encode_text(tokenizer, [text], None, 32)["truncated"] == [True]
    assert time.monotonic() - begin < 1
    assert len(without_unread_end(tokenizer, text, 32)) < 10_000
