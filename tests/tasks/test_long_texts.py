"""Very long texts of every task: tokenized as far as they are read, with the tokens of the whole text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.planning.tokenizer_fit import measure
from finetuning.tasks.generation.chat.encoding import prompt_ids
from finetuning.tasks.generation.chat.shapes import Conversation
from finetuning.tasks.generation.chat.template import PLAIN_TEMPLATE, ChatTemplate
from finetuning.tasks.generation.decoding import Decoding
from finetuning.tasks.registry import find_task
from finetuning.tasks.text_encoding import read_beginning, read_end

LONG = 2_000_000
PIECES = [
    "정말 ",
    "재미있다",
    " 그리고\n",
    "ㅋ" * 40,
    "가" * 300,
    " " * 200,
    "a",
    "\u200b",
    "</s>",
    "### 답변\n",
    "é",
    "🎬",
]
texts = st.builds(
    lambda pieces, times, end: "".join(pieces) * (9000 * times // max(1, len("".join(pieces))) + 1) + end,
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.integers(1, 4), st.sampled_from(PIECES),
)  # fmt: skip
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def task_of(name: str, **options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": name}, **options}))


@contextmanager
def nothing_left_out() -> Iterator[None]:
    """Tokenize whole texts."""
    patches = [patch(f"finetuning.tasks.{name}", lambda tokenizer, text, tokens: text) for name in CUTS]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@contextmanager
def counted(tokenizer: Any) -> Iterator[list[int]]:
    """Collect the lengths of the texts that a tokenizer is called with."""
    lengths: list[int] = []
    call = type(tokenizer).__call__

    def counting(self: Any, text: Any = None, *more: Any, **options: Any) -> Any:
        for part in (text, options.get("text_target"), *more[:1]):
            lengths.extend(map(len, [part] if isinstance(part, str) else part or []))
        return call(self, text, *more, **options)

    with patch.object(type(tokenizer), "__call__", counting):
        yield lengths


def rows_of(task: str, text: str) -> dict[str, Sequence[Any]]:
    turns = [{"role": "user", "content": "뭐?"}, {"role": "assistant", "content": text}]
    asked = [{"role": "user", "content": text}, {"role": "assistant", "content": "네"}]
    return {
        "chat": {"row": [1, 2], "messages": [json.dumps(turns), json.dumps([*turns, *asked])]},
        "seq2seq": {"row": [1, 2], "prompt": ["글", text], "response": [text, "글"]},
        "question": {"row": [1], "question": [text], "context": ["정말 재미있다"], "answers": ["[]"]},
    }[task]


CUTS = (
    "text_encoding.read_beginning", "text_encoding.read_end", "generation.chat.encoding.read_beginning",
    "generation.chat.encoding.read_end", "generation.causal.read_end", "generation.seq2seq.read_beginning",
    "answering.encoding.read_beginning",
)  # fmt: skip
KINDS = {
    "chat": ("text-generation", "tiny_causal", {"text_generation": {"format": "chat"}}),
    "seq2seq": ("text2text-generation", "tiny_seq2seq", {"text2text": {"max_target_length": 16}}),
    "question": ("question-answering", "tiny_model", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=texts, length=st.integers(8, 40))
def test_examples_are_those_of_the_whole_text(
    kind: str, text: str, length: int, request: pytest.FixtureRequest
) -> None:
    name, model, options = KINDS[kind]
    tokenizer, task = loaded(request.getfixturevalue(model)), task_of(name, **options)
    task.encodes.fit_tokenizer(tokenizer)
    found = task.encodes.encode(rows_of(kind, text), tokenizer, (), length)
    with nothing_left_out():
        whole = task.encodes.encode(rows_of(kind, text), tokenizer, (), length)
    lengths = found.pop("full_length", []), whole.pop("full_length", [])
    assert found == whole
    assert [estimated > length for estimated in lengths[0]] == [full > length for full in lengths[1]]


@few
@given(text=texts, room=st.integers(1, 40))
def test_a_prompt_ends_as_the_whole_does(text: str, room: int, tiny_causal: Path) -> None:
    tokenizer = loaded(tiny_causal)
    tokenizer.chat_template = PLAIN_TEMPLATE
    turns = (("user", "뭐?"), ("assistant", text), ("user", text))
    messages = Conversation(tuple({"role": role, "content": content} for role, content in turns))
    template = ChatTemplate.of(tokenizer)
    found = prompt_ids(messages, template, room)
    with nothing_left_out():
        assert prompt_ids(messages, template, room) == found


@few
@given(text=texts, tokens=st.integers(1, 40), model=st.sampled_from(["tiny_model", "tiny_causal"]))
def test_both_ends_have_the_tokens_of_the_whole(
    text: str, tokens: int, model: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = loaded(request.getfixturevalue(model))

    def ids(part: str) -> list[int]:
        return list(tokenizer(part, add_special_tokens=False)["input_ids"])

    whole, first, last = ids(text), ids(read_beginning(tokenizer, text, tokens)), ids(read_end(tokenizer, text, tokens))
    assert first[:tokens] == whole[:tokens] and last[-tokens:] == whole[-tokens:]
    assert (len(first) > tokens, len(last) > tokens) == (len(whole) > tokens,) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_two_million_characters_are_read_as_far_as_they_are_used(kind: str, request: pytest.FixtureRequest) -> None:
    name, model, options = KINDS[kind]
    tokenizer, task = loaded(request.getfixturevalue(model)), task_of(name, **options)
    task.encodes.fit_tokenizer(tokenizer)
    rows = rows_of(kind, "정말 재미있다 " * (LONG // 8))
    with counted(tokenizer) as lengths:
        task.encodes.encode(rows, tokenizer, (), 32)
    assert lengths and sum(lengths) < LONG // 10


def test_a_long_text_to_go_on_with_is_read_from_its_end(tiny_causal: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer, model = loaded(tiny_causal), AutoModelForCausalLM.from_pretrained(tiny_causal).eval()
    task = task_of("text-generation", text_generation={"format": "text"})
    task.scores.fit_model(model, tokenizer)
    row = {"text": "정말 재미있다 " * 30_000}
    with counted(tokenizer) as lengths:
        found = task.scores.generate(model, [row], tokenizer, 32, Decoding(2))
    assert sum(lengths) < 30_000
    with nothing_left_out():
        assert task.scores.generate(model, [row], tokenizer, 32, Decoding(2)) == found


@pytest.mark.parametrize("kind", ["chat", "seq2seq"])
def test_the_tokenizer_is_judged_by_the_beginning(kind: str, request: pytest.FixtureRequest) -> None:
    from datasets import Dataset

    name, model, options = KINDS[kind]
    tokenizer, task = loaded(request.getfixturevalue(model)), task_of(name, **options)
    task.encodes.fit_tokenizer(tokenizer)
    with counted(tokenizer) as lengths:
        fit = measure(Dataset.from_dict(rows_of(kind, "정말 재미있다 " * (LONG // 8))), task, tokenizer, (), 32)
    assert sum(lengths) < LONG // 10
    assert fit.cut == 1 and fit.lost > 0.99 and fit.per_syllable == 3


@pytest.mark.parametrize("task", ["text-generation", "token-classification", "question-answering"])
def test_the_tokenizer_is_judged_without_every_window(task: str, request: pytest.FixtureRequest) -> None:
    from datasets import Dataset

    text = "정말 재미있다 " * (LONG // 8)
    answer = json.dumps([{"text": "정말", "answer_start": LONG // 2}])
    rows = {
        "text-generation": {"text": [text]},
        "token-classification": {"text": [text], "label": [json.dumps([[LONG // 2, LONG // 2 + 2, "PS"]])]},
        "question-answering": {"question": ["뭐?"], "context": [text], "answers": [answer]},
    }[task]
    tokenizer = loaded(request.getfixturevalue("tiny_causal" if task == "text-generation" else "tiny_model"))
    found = task_of(task, text_generation={"format": "text"})
    with counted(tokenizer) as lengths:
        fit = measure(Dataset.from_dict({"row": [1], **rows}), found, tokenizer, ("O", "B-PS", "I-PS"), 32)
    assert sum(lengths) < LONG // 10
    assert (fit.cut, fit.lost) == (0, 0)
