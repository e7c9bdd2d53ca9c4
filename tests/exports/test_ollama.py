"""The Modelfile for Ollama: its template says what the Jinja template said that the model was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuning.exports.ollama import NotRegular, frame_of, modelfile
from finetuning.tasks.generation.chat.template import BOS, PLAIN_TEMPLATE, ChatTemplate
from finetuning.tasks.generation.decoding import Decoding

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) "
    "+ '\n' + (first if loop.first else '') + message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' "
    "+ message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
WITHOUT_HISTORY = "{{ messages[-1].content }}"
NUMBERED = (
    "{% for message in messages %}{{ loop.index ~ '. ' ~ message.content ~ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'answer: ' }}{% endif %}"
)
CONVERSATION = [
    {"role": "system", "content": "존댓말로 답하세요."}, {"role": "user", "content": "안녕?"},
    {"role": "assistant", "content": "안녕하세요.\n반갑습니다."}, {"role": "user", "content": "날씨 \"어때\"?"},
]  # fmt: skip


def template_of(folder: Path, jinja: str, bos: str | None = None, ends: tuple[str, ...] = ()) -> ChatTemplate:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ends)})
    if bos is not None:
        tokenizer.add_special_tokens({"bos_token": bos})
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    tokenizer.chat_template = jinja
    return ChatTemplate.of(tokenizer)


SHAPES = {
    "plain": (PLAIN_TEMPLATE, None, (), "</s>"),
    "plain with bos": (BOS + PLAIN_TEMPLATE, "<s>", (), "</s>"),
    "chatml": (CHATML, None, ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "gemma": (GEMMA, "<bos>", ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    "llama 3": (LLAMA3, "<|begin_of_text|>", ("<|eot_id|>",), "<|eot_id|>"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_conversation_is_rendered_as_in_training_and_stops_where_it_was_trained_to(
    shape: str, tiny_causal: Path
) -> None:
    jinja, bos, specials, end = SHAPES[shape]
    template = template_of(tiny_causal, jinja, bos, specials)
    frame = frame_of(template)
    for start in (0, 1):
        for stop in (start + 1, 4) if start else (2, 4):
            messages = CONVERSATION[start:stop]
            assert (bos or "") + frame.prompt(messages) == template.prompt(messages)
    text, problem = modelfile("model.gguf", template, None, Decoding(64), 64)
    assert problem is None
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ") and f'PARAMETER stop "{end}"' in text
    assert text.count("{{ range .Messages }}") == 1 and text.count("{{ if") == text.count("{{ end }}") - 1


@pytest.mark.parametrize("jinja", [WITHOUT_HISTORY, NUMBERED])
def test_a_template_that_cannot_be_said_in_go_is_told_and_left_out(jinja: str, tiny_causal: Path) -> None:
    template = template_of(tiny_causal, jinja)
    with pytest.raises(NotRegular):
        frame_of(template)
    text, problem = modelfile("model.gguf", template, "짧게", Decoding(64), 64)
    assert problem and "TEMPLATE" not in text and 'SYSTEM """짧게"""' in text


def test_a_model_of_plain_text_gets_the_prompt_as_it_is() -> None:
    text, problem = modelfile("model.gguf", None, None, Decoding(64, samples=True, narrowing={"temperature": 0.7}), 64)
    assert problem is None
    assert '"""{{ .Prompt }}"""' in text and "temperature 0.7" in text and "stop" not in text
