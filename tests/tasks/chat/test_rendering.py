"""What is trained under chat templates of every behaviour, with the spans marked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuning.tasks.generation.chat.encoding import prompt_of
from finetuning.tasks.generation.chat.shapes import Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate, plain_template
from tests.support.chat import CHATML, TEMPLATES, encoded, shown, task_of, with_special_tokens

SYSTEM = {"role": "system", "content": "친절히"}
FIRST = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
TURNS = [*FIRST, {"role": "user", "content": "배고파"}, {"role": "assistant", "content": "밥 먹어요"}]
THOUGHT = [FIRST[0], {**FIRST[1], "reasoning_content": "인사다"}, TURNS[2], {**TURNS[3], "reasoning_content": "점심"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLED = [
    {"role": "user", "content": "날씨"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "서울"}}}],
    },
    {"role": "tool", "content": "맑음"},
    {"role": "assistant", "content": "맑아요"},
]

EXPECTED = {
    "chatml": [
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n⟦네<|im_end|>⟧\n"
        "<|im_start|>user\n배고파<|im_end|>\n<|im_start|>assistant\n⟦밥 먹어요<|im_end|>⟧"
    ],
    "thinking": [
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\n네<|im_end|>⟧",
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n네<|im_end|>\n"
        "<|im_start|>user\n배고파<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\n밥 먹어요<|im_end|>⟧",
    ],
    "opens_thought": [
        "<s><|user|>안녕<|assistant|><think>\n⟦\n</think>\n\n네</s>⟧",
        "<s><|user|>안녕<|assistant|>네</s><|user|>배고파<|assistant|><think>\n⟦\n</think>\n\n밥 먹어요</s>⟧",
    ],
    "moves_system": ["<s>[INST] 안녕[/INST]⟦ 네</s>⟧[INST] 배고파[/INST]⟦ 밥 먹어요</s>⟧"],
    "ended_by_heading": ["<|user|>\n안녕<|assistant|>⟦\n네<|user|>⟧\n배고파<|assistant|>⟦\n밥 먹어요<|user|>⟧"],
    "without_end": [
        "### User:\n안녕\n\n### Assistant:\n⟦네</s>⟧",
        "### User:\n안녕\n\n### Assistant:\n네\n\n### User:\n배고파\n\n### Assistant:\n⟦밥 먹어요</s>⟧",
    ],
    "ends_twice": [
        "<|user|>\n안녕<|end|>\n<|assistant|>\n⟦네<|end|>⟧\n<|user|>\n배고파<|end|>\n<|assistant|>\n⟦밥 먹어요<|end|>⟧"
    ],
    "without_system": [
        "<s><start_of_turn>user\n안녕<end_of_turn>\n<start_of_turn>model\n⟦네<end_of_turn>⟧\n"
        "<start_of_turn>user\n배고파<end_of_turn>\n<start_of_turn>model\n⟦밥 먹어요<end_of_turn>⟧"
    ],
    "lines": ["[|user|]안녕\n[|assistant|]⟦네[|endofturn|]⟧\n[|user|]배고파\n[|assistant|]⟦밥 먹어요[|endofturn|]⟧"],
    "channels": [
        "<|start|>user<|message|>안녕<|end|><|start|>assistant⟦<|channel|>final<|message|>네<|return|>⟧",
        "<|start|>user<|message|>안녕<|end|><|start|>assistant<|channel|>final<|message|>네<|end|>"
        "<|start|>user<|message|>배고파<|end|><|start|>assistant⟦<|channel|>final<|message|>밥 먹어요<|return|>⟧",
    ],
}


@pytest.fixture(scope="module")
def tokenizer(tiny_causal: Path) -> Any:
    from transformers import AutoTokenizer

    return with_special_tokens(AutoTokenizer.from_pretrained(tiny_causal))


@pytest.fixture(params=sorted(TEMPLATES))
def behaviour(request: pytest.FixtureRequest, tokenizer: Any) -> str:
    tokenizer.chat_template = TEMPLATES[request.param]
    return str(request.param)


def test_answers_are_trained_down_to_their_end(behaviour: str, tokenizer: Any) -> None:
    assert shown(tokenizer, TURNS) == EXPECTED[behaviour]


def test_an_answer_is_trained_behind_the_prompt_that_the_model_will_see(behaviour: str, tokenizer: Any) -> None:
    """The tokens before an answer are the prompt's, whatever else the rendering holds."""
    template = ChatTemplate.of(tokenizer)
    messages = TURNS if behaviour == "without_system" else [SYSTEM, *TURNS]
    examples = encoded(tokenizer, messages)
    for number in (len(messages) - 3, len(messages) - 1):
        prompt = prompt_of(Conversation(tuple(messages[:number])), template)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        behind = [example for example in examples if example["input_ids"][: len(ids)] == ids]
        assert any(example["trained"][len(ids)] and not example["trained"][len(ids) - 1] for example in behind)


def test_generation_stops_at_every_end_that_is_trained(behaviour: str, tokenizer: Any, tiny_causal: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_causal)
    model.resize_token_embeddings(len(tokenizer))
    task_of(text_generation={"format": "chat"}).scores.fit_model(model, tokenizer)
    for example in encoded(tokenizer, TURNS):
        following = [*example["trained"][1:], False]
        ends = [ids for ids, is_in, goes_on in zip(example["input_ids"], example["trained"], following, strict=True)
                if is_in and not goes_on]  # fmt: skip
        assert set(ends) <= set(model.generation_config.eos_token_id)


def test_a_system_text_that_a_template_moves_is_before_its_question(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["moves_system"]
    assert shown(tokenizer, [SYSTEM, *TURNS]) == [
        "<s>[INST] 친절히\n\n안녕[/INST]⟦ 네</s>⟧",
        "<s>[INST] 안녕[/INST] 네</s>[INST] 친절히\n\n배고파[/INST]⟦ 밥 먹어요</s>⟧",
    ]


def test_thoughts_are_trained_where_the_template_shows_them(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["thinking"]
    assert shown(tokenizer, THOUGHT[:2]) == [
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n⟦<think>\n인사다\n</think>\n\n네<|im_end|>⟧"
    ]
    assert shown(tokenizer, THOUGHT[:2], train_thoughts=False) == [
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n<think>\n인사다\n</think>\n\n⟦네<|im_end|>⟧"
    ]
    tokenizer.chat_template = TEMPLATES["channels"]
    assert shown(tokenizer, THOUGHT)[1].endswith(
        "⟦<|channel|>analysis<|message|>점심<|end|><|start|>assistant<|channel|>final<|message|>밥 먹어요<|return|>⟧"
    )


@pytest.mark.parametrize("given", ["field", "content"])
def test_a_thought_that_the_prompt_opens_goes_on_from_there(tokenizer: Any, given: str) -> None:
    tokenizer.chat_template = TEMPLATES["opens_thought"]
    answer = {**FIRST[1], "reasoning_content": "인사다"} if given == "field" else {
        "role": "assistant", "content": "<think>\n인사다\n</think>\n\n네"
    }  # fmt: skip
    assert shown(tokenizer, [FIRST[0], answer]) == ["<s><|user|>안녕<|assistant|><think>\n⟦인사다\n</think>\n\n네</s>⟧"]


def test_a_thought_that_the_template_does_not_know_is_put_into_tags(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    assert shown(tokenizer, THOUGHT[:2]) == [
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n⟦<think>\n인사다\n</think>\n\n네<|im_end|>⟧"
    ]


def test_calls_are_trained_and_results_are_not(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    tool, call = json.dumps([TOOL], ensure_ascii=False), '{"name": "weather", "arguments": {"city": "서울"}}'
    assert shown(tokenizer, CALLED, [TOOL]) == [
        f"<|im_start|>system\n{tool}<|im_end|>\n<|im_start|>user\n날씨<|im_end|>\n<|im_start|>assistant\n"
        f"⟦<tool_call>{call}</tool_call><|im_end|>⟧\n<|im_start|>tool\n맑음<|im_end|>\n"
        "<|im_start|>assistant\n⟦맑아요<|im_end|>⟧"
    ]
    tokenizer.chat_template = plain_template(tokenizer)
    (text,) = shown(tokenizer, CALLED, [TOOL])
    assert f"⟦<tool_call>\n{call}\n</tool_call></s>⟧" in text and "맑음⟧" not in text and '"weather"' in text


def test_what_a_template_leaves_out_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["without_system"]
    assert shown(tokenizer, [SYSTEM, *FIRST]) == ["chat template이 받지 않는 대화(System role not supported)"]
    assert shown(tokenizer, FIRST, [TOOL]) == ["chat template이 출력하지 않는 도구(tools)"]
    tokenizer.chat_template = TEMPLATES["lines"]
    assert shown(tokenizer, CALLED) == ["chat template이 출력하지 않는 도구 호출(tool_calls)"]


def test_a_marked_answer_alone_is_trained(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    marked = [TURNS[0], {**TURNS[1], "train": False}, *TURNS[2:]]
    assert shown(tokenizer, marked) == [EXPECTED["chatml"][0].replace("⟦네<|im_end|>⟧", "네<|im_end|>")]


def test_segments_are_trained_as_they_are_marked(tokenizer: Any) -> None:
    segments = [
        {"role": "segment", "content": "<s>물음: 안녕\n답: ", "train": False},
        {"role": "segment", "content": "네</s>", "train": True},
    ]
    assert shown(tokenizer, segments) == ["<s>물음: 안녕\n답: ⟦네</s>⟧"]
    open_end = [segments[0], {**segments[1], "content": "네"}]
    assert shown(tokenizer, open_end) == ["<s>물음: 안녕\n답: ⟦네⟧"], "the author wrote no end"


def test_a_template_of_our_own_begins_as_the_tokenizer_does(tokenizer: Any) -> None:
    from tokenizers import processors

    plain = plain_template(tokenizer)
    tokenizer.chat_template = plain
    assert shown(tokenizer, FIRST) == ["### 질문\n안녕\n\n### 답변\n⟦네</s>⟧"]
    backend, own = tokenizer.backend_tokenizer, tokenizer.backend_tokenizer.post_processor
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    try:
        tokenizer.chat_template = plain_template(tokenizer)
        assert shown(tokenizer, FIRST) == ["<s>### 질문\n안녕\n\n### 답변\n⟦네</s>⟧"]
    finally:
        backend.post_processor = own
