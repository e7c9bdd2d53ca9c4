"""Shapes in which people have conversations, a small file of each, and what is trained of it.

`python -m tests.support.shapes MODEL` prints the table: each shape with the first row as `plan` shows it, or with the
sentence that refuses it. MODEL is a folder with a fast tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROWS = 12


@dataclass(frozen=True)
class Case:
    """A file of one shape.

    Attributes:
        name: The shape.
        rows: Its rows, or one that is repeated with a number.
        expected: The first example, trained parts between ⟦ and ⟧, or a part of the message that refuses it.
        is_refused: Whether it is refused.
        settings: Settings beside the defaults, by dotted name.
    """

    name: str
    row: dict[str, Any]
    expected: str
    is_refused: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "jsonl"

    def write(self, folder: Path) -> Path:
        """Write twelve such rows, told apart by a number in the question, and return the file."""
        rows = [json.loads(json.dumps(self.row, ensure_ascii=False).replace("질문", f"질문{number}"))
                for number in range(ROWS)]  # fmt: skip
        path = folder / f"{self.name.replace(' ', '_')}.{self.kind}"
        if self.kind == "csv":
            import csv

            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(self.row))
                writer.writeheader()
                writer.writerows({name: cell if isinstance(cell, str) else repr(cell) for name, cell in row.items()}
                                 for row in rows)  # fmt: skip
        elif self.kind == "json":
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        else:
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return path


def _chat(*turns: tuple[str, str], **options: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content, **options} for role, content in turns]


def _shared(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"from": role, "value": content} for role, content in turns]


ASKED, ANSWERED = ("user", "질문"), ("assistant", "답")
PLAIN = "<user>질문<end><assistant>⟦답<end>⟧"
WITH_SYSTEM = f"<system>친절히<end>{PLAIN}"
TWO_TURNS = "<user>앞 물음<end><assistant>⟦앞 답<end>⟧<user>질문<end><assistant>⟦답<end>⟧"
TOOL = {"type": "function", "function": {"name": "weather", "description": "날씨", "parameters": {"type": "object"}}}
CALL = {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "서울"}'}}
CALLED = [
    *_chat(ASKED), {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c0", "content": "맑음"}, *_chat(ANSWERED),
]  # fmt: skip
WITH_CALL = (
    '<user>질문<end><assistant>⟦<call>{"name": "weather", "arguments": {"city": "서울"}}<end>⟧'
    "<tool>맑음<end><assistant>⟦답<end>⟧"
)
WITH_TOOL = f"<tools>{json.dumps([TOOL], ensure_ascii=False)}<end>"

CASES = (
    Case("openai chat", {"messages": _chat(("system", "친절히"), ASKED, ANSWERED)}, WITH_SYSTEM),
    Case("openai developer", {"messages": _chat(("developer", "친절히"), ASKED, ANSWERED)}, WITH_SYSTEM),
    Case("predict's answer to messages", {"messages": _chat(ASKED), "generated": ANSWERED[1]}, PLAIN),
    Case("predict's answer to a prompt", {"prompt": ASKED[1], "generated": ANSWERED[1]}, PLAIN),
    Case("openai weight",
         {"messages": [*_chat(("user", "앞 물음")), {"role": "assistant", "content": "앞 답", "weight": 0},
                       *_chat(ASKED), {"role": "assistant", "content": "답", "weight": 1}]},
         TWO_TURNS.replace("⟦앞 답<end>⟧", "앞 답<end>")),
    Case("openai half weight", {"messages": [*_chat(ASKED), *_chat(ANSWERED, weight=0.5)]}, "weight 0.5", True),
    Case("openai name", {"messages": [*_chat(ASKED, name="지민"), *_chat(ANSWERED)]}, PLAIN),
    Case("openai content parts",
         {"messages": [{"role": "user", "content": [{"type": "text", "text": "질문"}]}, *_chat(ANSWERED)]}, PLAIN),
    Case("openai image part",
         {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                       *_chat(ANSWERED)]}, "문자열이 아닌 부분(image_url)", True),
    Case("openai tools", {"messages": CALLED, "tools": [TOOL]}, WITH_TOOL + WITH_CALL),
    Case("openai tools as text", {"messages": CALLED, "tools": json.dumps([TOOL])}, WITH_TOOL + WITH_CALL),
    Case("openai tools without a call", {"messages": _chat(ASKED, ANSWERED), "tools": [TOOL]}, WITH_TOOL + PLAIN),
    Case("openai function call",
         {"messages": [*_chat(ASKED), {"role": "assistant", "content": None, "function_call": CALL["function"]},
                       {"role": "function", "name": "weather", "content": "맑음"}, *_chat(ANSWERED)]}, WITH_CALL),
    Case("system column", {"system": "친절히", "messages": _chat(ASKED, ANSWERED)}, WITH_SYSTEM),
    Case("two systems", {"system": "무뚝뚝", "messages": _chat(("system", "친절히"), ASKED, ANSWERED)},
         "system 열과 다른 system 메시지", True),
    Case("reasoning content",
         {"messages": [*_chat(ASKED), {"role": "assistant", "content": "답", "reasoning_content": "생각"}]},
         "<user>질문<end><assistant>⟦<think>\n생각\n</think>\n\n답<end>⟧"),
    Case("thinking", {"messages": [*_chat(ASKED), {"role": "assistant", "content": "답", "thinking": "생각"}]},
         "<user>질문<end><assistant>⟦<think>\n생각\n</think>\n\n답<end>⟧"),
    Case("messages in csv as json", {"messages": json.dumps(_chat(ASKED, ANSWERED), ensure_ascii=False)}, PLAIN,
         kind="csv"),
    Case("messages in csv as python", {"messages": repr(_chat(ASKED, ANSWERED))}, PLAIN, kind="csv"),
    Case("messages column of another name", {"상담기록": _chat(ASKED, ANSWERED)}, PLAIN,
         settings={"data.text_column": "상담기록"}),
    Case("roles in capitals", {"messages": _chat(("USER", "질문"), ("Assistant", "답"))}, PLAIN),
    Case("trl prompt completion", {"prompt": _chat(ASKED), "completion": _chat(ANSWERED)}, PLAIN),
    Case("trl prompt completion with system",
         {"prompt": _chat(("system", "친절히"), ASKED), "completion": _chat(ANSWERED)}, WITH_SYSTEM),
    Case("trl text prompt", {"prompt": "질문", "completion": "답"}, PLAIN),
    Case("trl kto", {"prompt": "질문", "completion": "답", "label": True}, "KTO", True),
    Case("trl preference", {"prompt": "질문", "chosen": "답", "rejected": "나쁜 답"}, "선호 데이터", True),
    Case("trl preference chosen by name", {"prompt": "질문", "chosen": "답"}, PLAIN,
         settings={"data.response_column": "chosen"}),
    Case("sharegpt", {"conversations": _shared(("human", "질문"), ("gpt", "답"))}, PLAIN),
    Case("sharegpt system column",
         {"conversations": _shared(("human", "질문"), ("gpt", "답")), "system": "친절히", "tools": ""}, WITH_SYSTEM),
    Case("sharegpt tools",
         {"conversations": _shared(("human", "질문"), ("function_call", '{"name": "weather", "arguments": '
                                   '{"city": "서울"}}'), ("observation", "맑음"), ("gpt", "답")),
          "tools": json.dumps([TOOL["function"]])}, WITH_TOOL + WITH_CALL),
    Case("sharegpt begins with gpt",
         {"conversations": _shared(("gpt", "어서 오세요"), ("human", "질문"), ("gpt", "답"))}, PLAIN),
    Case("sharegpt begins with gpt, row",
         {"conversations": _shared(("gpt", "어서 오세요"), ("human", "질문"), ("gpt", "답"))},
         "assistant로 시작하는", True, {"text_generation.leading_answer": "row"}),
    Case("sharegpt ends with a question",
         {"conversations": _shared(("human", "질문"), ("gpt", "답"), ("human", "또"))}, PLAIN),
    Case("llama factory kto",
         {"conversations": _shared(("human", "질문"), ("gpt", "답")), "kto_tag": False}, "KTO", True),
    Case("llama factory preference",
         {"conversations": _shared(("human", "질문")), "chosen": {"from": "gpt", "value": "답"},
          "rejected": {"from": "gpt", "value": "나쁜 답"}}, "선호 데이터", True),
    Case("llama factory preference, the chosen answer by name",
         {"conversations": _shared(("human", "질문")), "chosen": {"from": "gpt", "value": "답"}}, PLAIN,
         settings={"data.response_column": "chosen"}),
    Case("alpaca", {"instruction": "질문", "input": "", "output": "답"}, PLAIN),
    Case("alpaca input", {"instruction": "질문", "input": "글", "output": "답"},
         "<user>질문\n\n글<end><assistant>⟦답<end>⟧"),
    Case("alpaca null input", {"instruction": "질문", "input": None, "output": 3},
         "<user>질문<end><assistant>⟦3<end>⟧"),
    Case("alpaca system and history",
         {"instruction": "질문", "input": "", "output": "답", "system": "친절히", "history": [["앞 물음", "앞 답"]]},
         f"<system>친절히<end>{TWO_TURNS}"),
    Case("dolly", {"instruction": "질문", "context": "글", "response": "답"},
         "<user>질문\n\n글<end><assistant>⟦답<end>⟧"),
    Case("openorca", {"id": "1", "system_prompt": "친절히", "question": "질문", "response": "답"}, WITH_SYSTEM),
    Case("openhermes", {"input": "질문", "output": "답", "system": "친절히", "source": "x"}, WITH_SYSTEM),
    Case("question answer context", {"context": "글", "question": "질문", "answer": "답"},
         "<user>글\n\n질문<end><assistant>⟦답<end>⟧"),
    Case("korean columns", {"물음": "질문", "답변": "답"}, PLAIN, kind="csv"),
    Case("clova studio", {"C_ID": "0", "T_ID": "0", "Text": "질문", "Completion": "답"}, PLAIN, kind="csv"),
    Case("clova studio, several turns", {"C_ID": "0", "T_ID": "1", "Text": "질문", "Completion": "답"},
         "앞 턴이 다른 행에 있는", True, kind="csv"),
    Case("axolotl train flags",
         {"conversations": [{"from": "human", "value": "앞 물음", "train": False},
                            {"from": "gpt", "value": "앞 답", "train": False},
                            {"from": "human", "value": "질문", "train": False},
                            {"from": "gpt", "value": "답", "train": True}]},
         TWO_TURNS.replace("⟦앞 답<end>⟧", "앞 답<end>")),
    Case("axolotl train detail",
         {"messages": [*_chat(ASKED), {"role": "assistant", "content": "답", "train_detail": [{"begin_offset": 0}]}]},
         "train_detail", True),
    Case("axolotl segments",
         {"segments": [{"text": "<s>질문\n", "label": False}, {"text": "답</s>", "label": True}]}, "<s>질문\n⟦답</s>⟧"),
    Case("axolotl segments without one", {"segments": []}, "빈 segments", True),
    Case("nothing but a system text", {"messages": _chat(("system", ""))}, "user가 없는", True),
    Case("no answer to train", {"messages": [*_chat(ASKED), *_chat(ANSWERED, train=False)]},
         "학습하지 않는다고 표시한 답", True),
    Case("unknown role", {"messages": _chat(ASKED, ("narrator", "말"), ANSWERED)}, "알 수 없는 role 'narrator'", True),
    Case("two questions", {"messages": _chat(ASKED, ("user", "또"), ANSWERED)}, "번갈아 나오지 않는", True),
    Case("images", {"messages": _chat(ASKED, ANSWERED), "images": ["a.png"]}, "텍스트가 아닌 입력", True),
    Case("text with its own marks", {"text": "### 물음: 질문\n\n### 답: 답"}, "#⟦## 물음: 질문\n\n### 답: 답</s>⟧"),
)  # fmt: skip

# A template in which every part of a conversation stands, as short as it can be.
TEMPLATE = """\
{%- if tools -%}<tools>{{ tools | tojson }}<end>{%- endif -%}
{%- for m in messages -%}
<{{ m.role }}>
{%- if m.reasoning_content -%}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif -%}
{{ m.content or '' }}
{%- for call in m.tool_calls or [] -%}<call>{{ call.function | tojson }}{%- endfor -%}
<end>
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}"""
MARKS = ("<end>", "<user>", "<assistant>", "<system>", "<tool>", "<tools>", "<call>")


def first_example(case: Case, tokenizer: Any, folder: Path) -> str:
    """Read a case's file as a run does, and return its first example as `plan` shows it.

    Args:
        case: The case.
        tokenizer: Tokenizer with `TEMPLATE` and `MARKS`.
        folder: Where the file and the cache go.

    Returns:
        The text, trained parts between ⟦ and ⟧.

    Raises:
        DataError: The file is refused.
    """
    from data_manager import DataManager
    from finetuning.config.schema import Settings
    from finetuning.tasks.registry import find_task, refined_task

    options: dict[str, dict[str, Any]] = {
        "model": {"task": "text-generation"},
        "data": {"dataset_name": str(case.write(folder)), "dataset_cache_dir": str(folder / "cache")},
    }
    for name, value in case.settings.items():
        section, _, key = name.partition(".")
        options.setdefault(section, {})[key] = value
    settings = Settings.model_validate(options)
    data = DataManager(settings, find_task(settings))
    rows = data.load_splits()["train"]
    task = refined_task(data.task, *data.label_profile(rows))
    data = DataManager(task.settings, task)
    examples = data.encode(rows, tokenizer, (), 1000)
    first = int(examples.table[0]["row"]) - 1
    return str(task.encodes.describe(examples.table[0], tokenizer)).replace(f"질문{first}", "질문")


def main(model: str) -> None:
    """Print the table of all cases."""
    import tempfile

    from transformers import AutoTokenizer

    from exceptions import FinetuningError
    from tests.support.chat import with_special_tokens

    tokenizer = with_special_tokens(AutoTokenizer.from_pretrained(model), MARKS)
    tokenizer.chat_template = TEMPLATE
    print("| shape | trained |\n|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = first_example(case, tokenizer, Path(folder))
            except FinetuningError as error:
                found = f"refused: {error.what}"
        print(f"| {case.name} | {found} |".replace("\n", "↵"))


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
