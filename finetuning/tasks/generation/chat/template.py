"""A tokenizer's chat template: rendering, and what is found out about it by rendering."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exceptions import BadRow, ModelError, first_line_of
from finetuning.tasks.generation.chat.messages import Message
from finetuning.tasks.generation.chat.time_limit import LimitPassed, limited

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Chat template for a model without one: headings, and the tokenizer's end token after an answer.
PLAIN_TEMPLATE = """\
{%- if tools -%}{{ '### 도구\\n' }}
{%- for tool in tools -%}{{ tool | tojson + '\\n' }}{%- endfor -%}{{ '\\n' }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' -%}{{ '### 질문\\n' + message.content + '\\n\\n' }}
{%- elif message.role == 'tool' -%}{{ '### 도구 결과\\n' + message.content + '\\n\\n' }}
{%- else -%}{{ '### 답변\\n' }}
{%- if message.reasoning_content -%}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif -%}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ '<tool_call>\\n' }}{{ call.function | tojson }}{{ '\\n</tool_call>' }}
{%- endfor -%}
{{ eos_token + '\\n\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### 답변\\n' }}{%- endif -%}
"""
BOS = "{{- bos_token -}}\n"

_LONGEST_S, _MOST_BYTES = 10.0, 1 << 30  # for one rendering, which takes less than a millisecond
_QUESTION: Message = {"role": "user", "content": "뷁쟇"}
_ANSWER, _THOUGHT, _FUNCTION, _ARGUMENT = "쀍뛟쀍", "궳뀕궳", "f_뾄", "쌺쁿"
_CALL = {"type": "function", "function": {"name": _FUNCTION, "arguments": {"city": _ARGUMENT}}}


class TemplateRefused(BadRow):
    """The template does not take a conversation. The message says why."""


@dataclass(frozen=True)
class ChatTemplate:
    """The template of a tokenizer, with the spelling of messages that it reads.

    Attributes:
        tokenizer: The tokenizer.
        special: Matches a special token.
        special_ids: Ids of the special tokens.
        end: The token that ends an answer, as text, or None if the tokenizer has none.
        after_end: What the template puts behind the end of a last answer, such as a line break.
        thoughts: `field` if it reads `reasoning_content`, `inline` if it keeps `<think>` in the content, else `none`.
        empty_content: The content of a message that only calls tools: "" or None.
        calls_as_text: Whether the arguments of a call must be JSON text instead of an object.
        shows_calls: Whether a call of a tool is rendered.
    """

    tokenizer: PreTrainedTokenizerBase
    special: re.Pattern[str]
    special_ids: frozenset[int]
    end: str | None = None
    after_end: str = ""
    thoughts: str = "field"
    empty_content: str | None = ""
    calls_as_text: bool = False
    shows_calls: bool = True

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
        """Find out by a few renderings how a tokenizer's template works."""
        special = special_tokens(tokenizer)
        longest_first = sorted(special, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)) if special else r"(?!)")
        template = cls(tokenizer, pattern, frozenset(special.values()))
        template = replace(template, thoughts=template._find_thoughts())
        template = template._with_calls()
        return template._with_end()

    # --- rendering ---

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Render a conversation.

        Args:
            messages: The messages.
            tools: JSON schemas of the functions that may be called.

        Returns:
            The text.

        Raises:
            TemplateRefused: The template does not take it.
            ModelError: The template does not end.
        """
        return self._apply(messages, tools, asks=False)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Render a conversation up to the point where the model answers; see `text`."""
        return self._apply(messages, tools, asks=True)

    def _apply(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], asks: bool) -> str:
        spelled = [self._spelled(message) for message in messages]
        options: dict[str, Any] = {"tools": list(tools)} if tools else {}
        try:
            with limited(_LONGEST_S, _MOST_BYTES):
                return str(
                    self.tokenizer.apply_chat_template(spelled, tokenize=False, add_generation_prompt=asks, **options)
                )
        except LimitPassed as error:
            raise ModelError(
                f"chat template이 대화 하나를 만드는 데 {_LONGEST_S:.0f}초나 {_MOST_BYTES // 2**30} GiB를 넘어 "
                "멈췄습니다.",
                where=f"대화의 role: {', '.join(message['role'] for message in messages)}",
                remedy="무한 반복이 있는지 확인하고, text_generation.chat_template에 다른 Jinja 파일을 지정하세요.",
            ) from error
        except Exception as error:  # a template may raise anything, not only Jinja's errors
            raise TemplateRefused(f"chat template이 받지 않는 대화({first_line_of(error)})") from error

    def _spelled(self, message: Message) -> Message:
        """Return a message in the spelling that the template reads."""
        made = {name: value for name, value in message.items() if name != "train"}
        thought = made.get("reasoning_content")
        if thought and self.thoughts == "inline":
            del made["reasoning_content"]
            made["content"] = f"<think>\n{thought}\n</think>\n\n{made['content']}"
        elif thought:
            made["thinking"] = thought
        if "tool_calls" in made:
            made["content"] = made["content"] or self.empty_content
            if self.calls_as_text:
                made["tool_calls"] = [_with_text(call) for call in made["tool_calls"]]
        return made

    # --- what is found out ---

    def _find_thoughts(self) -> str:
        for spelling in ("field", "inline"):
            answer = {"role": "assistant", "content": _ANSWER, "reasoning_content": _THOUGHT}
            if _THOUGHT in replace(self, thoughts=spelling)._tried([_QUESTION, answer]):
                return spelling
        return "none"

    def _with_calls(self) -> ChatTemplate:
        """Find the spelling of a call under which its function and its argument are rendered."""
        asked = [_QUESTION, {"role": "assistant", "content": "", "tool_calls": [_CALL]}]
        for empty_content in ("", None):
            for calls_as_text in (False, True):
                spelling = replace(self, empty_content=empty_content, calls_as_text=calls_as_text)
                text = spelling._tried(asked)
                if _FUNCTION in text and _ARGUMENT in text:
                    return spelling
        return replace(self, shows_calls=False)

    def _with_end(self) -> ChatTemplate:
        """Find the token that ends an answer: the one behind it, in a last turn or before the next question."""
        answer: Message = {"role": "assistant", "content": _ANSWER}
        last = self._tried([_QUESTION, answer]).partition(_ANSWER)[2]
        between = self._tried([_QUESTION, answer, _QUESTION]).partition(_ANSWER)[2]
        found = self.special.match(last.lstrip())
        if found is not None:
            return replace(self, end=found[0], after_end=last.lstrip()[found.end() :])
        found = self.special.match(between.lstrip())
        end = found[0] if found is not None else self.tokenizer.eos_token
        return replace(self, end=None if end is None else str(end), after_end=last)

    def _tried(self, messages: Sequence[Message]) -> str:
        try:
            return self.text(messages)
        except TemplateRefused:
            return ""


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return text → id of the tokens that stand for no text."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)) | added


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template for a model without one. It begins with bos where the tokenizer adds that itself."""
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("가")["input_ids"][:1] == [tokenizer.bos_token_id]
    return BOS + PLAIN_TEMPLATE if adds_bos else PLAIN_TEMPLATE
