"""Labels beside those of TRL, whose training templates mark what an assistant writes. They are read, not kept here."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat import encoded, with_special_tokens

_MARKS = re.compile(r"<\|[^|<>{}]+\|>|<｜[^｜<>{}]+｜>|<(?:start|end)_of_turn>|\[gMASK\]|<sop>")
QUESTION, ANSWER = {"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}
CONVERSATION = [QUESTION, ANSWER, {"role": "user", "content": "배고파"}, {"role": "assistant", "content": "밥 먹어요"}]
# Beside white space at both ends of an answer, where TRL differs: a second end of text behind Phi-3's end, GPT-OSS's
# heading (it is in the prompt) and its other end before a following turn.
DIFFERENCES = {"phi3": ("</s>",), "gptoss": ("<|start|>", "assistant", "<|end|>", "<|return|>")}


def templates_of_trl() -> Path | None:
    found = importlib.util.find_spec("trl")
    return Path(found.origin).parent / "chat_templates" if found is not None and found.origin else None


@pytest.fixture(params=["llama3", "qwen2_5", "qwen3", "gemma", "phi3", "glm4moe", "gptoss"])
def named(request: pytest.FixtureRequest, tiny_causal: Path) -> tuple[str, Any, str]:
    from transformers import AutoTokenizer

    folder = templates_of_trl()
    if folder is None:
        pytest.skip("TRL이 설치되어 있지 않습니다(requirements-dev.txt)")
    original = (folder / f"{request.param}.jinja").read_text(encoding="utf-8")
    training = (folder / f"{request.param}_training.jinja").read_text(encoding="utf-8")
    tokenizer = with_special_tokens(AutoTokenizer.from_pretrained(tiny_causal), _MARKS.findall(original))
    tokenizer.chat_template = original
    return request.param, tokenizer, training


def trained_by_trl(tokenizer: Any, training: str) -> list[str]:
    """Decode each run of tokens that TRL's mask has."""
    made = tokenizer.apply_chat_template(
        CONVERSATION, chat_template=training, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    runs, before = list[list[int]](), 0
    for token, is_trained in zip(made["input_ids"], made["assistant_masks"], strict=True):
        if is_trained:
            runs.append([*runs.pop(), token] if before else [token])
        before = is_trained
    return [tokenizer.decode(run) for run in runs]


def test_each_answer_is_trained_as_in_trl(named: tuple[str, Any, str]) -> None:
    name, tokenizer, training = named

    def bare(text: str) -> str:
        text = text.strip()
        for mark in DIFFERENCES.get(name, ()):
            text = text.removeprefix(mark).removesuffix(mark)
        return text.strip()

    examples = encoded(tokenizer, CONVERSATION)
    ours = list[str]()
    for example in examples:
        assert not example["refused"]
        trained = [token if is_trained else None for token, is_trained in
                   zip(example["input_ids"], example["trained"], strict=True)]  # fmt: skip
        runs, before = list[list[int]](), None
        for token in trained:
            if token is not None:
                runs.append([*runs.pop(), token] if before is not None else [token])
            before = token
        ours.extend(tokenizer.decode(run) for run in runs)
    assert [bare(text) for text in ours] == [bare(text) for text in trained_by_trl(tokenizer, training)]


def test_a_single_answer_has_the_tokens_of_trl(named: tuple[str, Any, str]) -> None:
    name, tokenizer, training = named
    (example,) = encoded(tokenizer, CONVERSATION[:2])
    made = tokenizer.apply_chat_template(
        CONVERSATION[:2], chat_template=training, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    length = len(example["input_ids"])
    shared = made["input_ids"][:length]
    assert shared[: length - 1] == example["input_ids"][: length - 1]
    for token, is_trained, reference in zip(
        example["input_ids"], example["trained"], made["assistant_masks"], strict=False
    ):
        text = tokenizer.decode([token])
        assert bool(is_trained) == bool(reference) or not text.strip() or name in DIFFERENCES
