"""Chat templates by behaviour, written for the tests, and what of a conversation is trained under each."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|observation|>",
    "[INST]", "[/INST]", "[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "<|start|>", "<|message|>",
    "<|channel|>", "<|return|>", "<|call|>", "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip

# A heading, the content, an end token and a line break; tools are told in the system text, calls are JSON.
CHATML = """\
{%- if tools -%}<|im_start|>system
{{ (messages[0].content + '\n') if messages[0].role == 'system' }}{{ tools | tojson }}<|im_end|>
{% elif messages[0].role == 'system' -%}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
{%- for m in messages if m.role != 'system' -%}
<|im_start|>{{ m.role }}
{{ m.content or '' }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

# Every answer begins with a thought, empty where there is none; answers before the last question lose it.
THINKING = """\
{%- set ns = namespace(last=0) -%}
{%- for m in messages if m.role == 'user' -%}{%- set ns.last = messages.index(m) -%}{%- endfor -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.index0 > ns.last -%}
<think>
{{ m.reasoning_content or '' }}
</think>

{% endif -%}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

# The prompt opens a thought. Answers are rendered without theirs.
OPENS_THOUGHT = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}<|assistant|>{{ m.content.split('</think>')[-1].lstrip('\n') }}{{ eos_token }}
{%- elif m.role == 'user' -%}<|user|>{{ m.content }}
{%- else -%}{{ m.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|><think>
{% endif -%}"""

# The system text stands before the question that is the last message, and nowhere once an answer follows.
MOVES_SYSTEM = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none -%}
{{- bos_token -}}
{%- for m in messages if m.role != 'system' -%}
{%- if m.role == 'user' -%}[INST]{{ ' ' + (system + '\n\n' if loop.last and system else '') + m.content }}[/INST]
{%- else -%}{{ ' ' + m.content }}{{ eos_token }}
{%- endif -%}
{%- endfor -%}"""

# The next turn's heading ends an answer.
ENDED_BY_HEADING = """\
{%- for m in messages -%}
<|{{ m.role }}|>
{{ m.content }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{% endif -%}"""

# Headings are plain text, and nothing ends an answer.
WITHOUT_END = """\
{%- for m in messages -%}
### {{ {'user': 'User', 'assistant': 'Assistant', 'system': 'System'}[m.role] }}:
{{ m.content }}

{% endfor -%}
{%- if add_generation_prompt -%}### Assistant:
{% endif -%}"""

# The whole text ends with the end of text, also behind an answer's own end.
ENDS_TWICE = """\
{%- for m in messages -%}
<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{% else -%}{{ eos_token }}{% endif -%}"""

# Refuses system messages, and trims.
WITHOUT_SYSTEM = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for m in messages -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}"""

# A line break behind the end of every turn but no heading tokens in common with the others.
LINES = """\
{%- for m in messages -%}
[|{{ m.role }}|]{{ m.content }}{{ '[|endofturn|]' if m.role != 'user' }}
{% endfor -%}
{%- if add_generation_prompt -%}[|assistant|]{% endif -%}"""

# A last answer ends otherwise than one that a turn follows, and thoughts have a part of their own.
CHANNELS = """\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if m.thinking and loop.last -%}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{%- endif -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}
{%- else -%}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{% endif -%}"""

TEMPLATES = {
    "chatml": CHATML, "thinking": THINKING, "opens_thought": OPENS_THOUGHT, "moves_system": MOVES_SYSTEM,
    "ended_by_heading": ENDED_BY_HEADING, "without_end": WITHOUT_END, "ends_twice": ENDS_TWICE,
    "without_system": WITHOUT_SYSTEM, "lines": LINES, "channels": CHANNELS,
}  # fmt: skip


def with_special_tokens(tokenizer: Any, special: Sequence[str] = SPECIAL) -> Any:
    """Return a copy of a tokenizer with special tokens, by default those of all templates here, and a bos token."""
    from tokenizers import AddedToken

    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "<s>"})
    made.add_tokens(
        [AddedToken(text, special=True, normalized=False) for text in dict.fromkeys(special)], special_tokens=True
    )
    made.pad_token = made.eos_token
    return made


def task_of(**options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "text-generation"}, **options}))


def encoded(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), **options: Any
) -> list[dict[str, Any]]:
    """Return the examples of a conversation, as the encoder makes them."""
    task = task_of(text_generation={"format": "chat", **options})
    rows = {"row": [1], "messages": [json.dumps(messages)], "tools": [json.dumps(tools)]}
    columns = task.encodes.encode(rows, tokenizer, (), 4000)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def shown(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), **options: Any
) -> list[str]:
    """Return the examples of a conversation as text, with the trained parts between ⟦ and ⟧."""
    encodes = task_of(text_generation={"format": "chat", **options}).encodes
    return [
        example["refused"] or encodes.describe(example, tokenizer)
        for example in encoded(tokenizer, messages, tools, **options)
    ]
