"""Streaming: what is shown grows by whole characters, and is what the tokens come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commands.chat import HangulStreamer


def test_a_syllable_is_shown_once_all_its_bytes_are_there(tiny_causal: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    text = "밥 먹었어? 뷁 😀 ok"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text)  # a byte a token
    streamer = HangulStreamer(tokenizer)
    streamer.put(torch.tensor([[5, 6, 7]]))  # the prompt is not shown
    shown = ""
    for token in ids:
        streamer.put(torch.tensor([token]))
        shown += capsys.readouterr().out
        assert text.startswith(shown)
    streamer.end()
    assert shown + capsys.readouterr().out == text + "\n"


def test_bytes_that_never_become_a_character_are_not_shown(tiny_causal: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    ids = tokenizer("가나", add_special_tokens=False)["input_ids"]
    streamer = HangulStreamer(tokenizer)
    streamer.put(torch.tensor([[5]]))
    for token in [*ids[:4], *ids[:3], ids[0]]:  # a broken syllable in the middle and at the end
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert capsys.readouterr().out == "가가\n"
