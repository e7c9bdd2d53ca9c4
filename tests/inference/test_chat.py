"""Streaming: the shown text grows by whole characters and equals the decoded tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetuning.inference.chat import HangulStreamer
from finetuning.tasks.generation.chat.encoding import prompt_ids
from finetuning.tasks.generation.chat.shapes import Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate


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


def test_a_conversation_that_outgrows_the_model_loses_its_oldest_turns_whole(tiny_causal: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.chat_template = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    messages = Conversation(tuple({"role": role, "content": f"말{number}"} for number, role in enumerate(roles)))
    template = ChatTemplate.of(tokenizer)
    whole = tokenizer.decode(prompt_ids(messages, template, 1000))
    assert whole == "[system]말0[user]말1[assistant]말2[user]말3[assistant]말4[user]말5"
    for left_out in (whole, whole.replace("[user]말1[assistant]말2", "")):
        room = len(tokenizer(left_out, add_special_tokens=False)["input_ids"]) - 1
        fitting = tokenizer.decode(prompt_ids(messages, template, room))
        assert fitting.startswith("[system]말0[user]") and fitting.endswith("[user]말5")
        assert len(fitting) < len(left_out)
