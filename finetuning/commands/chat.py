"""chat: a conversation with a trained model in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exceptions import SettingsError
from finetuning.commands.console import read_line
from finetuning.commands.session import Session, saved_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetuning.inference.evaluator import Evaluator

_AGAIN, _QUIT = "/처음부터", "/끝"
_BROKEN = "\ufffd"


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Reads a line, streams the answer, remembers the turns; `/처음부터` forgets them, `/끝` or Ctrl+D ends."""
    from finetuning.tasks.generation.conversations import to_messages

    if session.task.name != "text-generation":
        raise SettingsError(
            f"{session.task.name} 모델과는 대화할 수 없습니다.",
            where="model.task",
            remedy="text-generation으로 학습한 모델의 폴더를 --output_dir로 지정하세요.",
        )
    if session.settings.text_generation.format == "text":
        raise SettingsError(
            "질문과 답이 아니라 텍스트만으로 학습한 모델과는 대화할 수 없습니다.",
            where="text_generation.format: text",
            remedy="텍스트를 이어 쓰게 하려면 predict를 쓰세요. 대화는 질문과 답으로 학습한 뒤에 할 수 있습니다.",
        )
    evaluator = saved_model(session, arguments)
    evaluator.model.eval()
    print(f"대화를 시작합니다. {_AGAIN}: 처음부터 다시, {_QUIT} 또는 Ctrl+D: 끝", file=sys.stderr)
    turns: list[dict[str, str]] = []
    while (line := _read_line()) is not None:
        if line == _QUIT:
            return
        if line == _AGAIN:
            turns = []
            print("지금까지의 대화를 잊었습니다.", file=sys.stderr)
        elif line:
            turns.append({"role": "user", "content": line})
            messages = to_messages({"messages": turns}, session.settings.text_generation.system_prompt)
            turns.append({"role": "assistant", "content": answer(evaluator, messages) or "…"})


def answer(evaluator: Evaluator, messages: Sequence[dict[str, str]]) -> str:
    """Generates the next answer, printing it as it comes."""
    import torch

    from finetuning.tasks.generation.conversations import prompt_ids
    from finetuning.tasks.generation.shared import sampling_of

    tokenizer, model = evaluator.tokenizer, evaluator.model
    options = evaluator.task.settings.generation
    ids = prompt_ids(messages, tokenizer, max(1, evaluator.max_length - options.max_new_tokens))
    inputs = torch.tensor([ids], device=evaluator.runtime.device)
    streamer = HangulStreamer(tokenizer)
    generate: Any = model.generate
    with torch.inference_mode(), evaluator.runtime.autocast():
        generate(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=options.max_new_tokens,
            repetition_penalty=options.repetition_penalty, streamer=streamer, **sampling_of(options),
        )  # fmt: skip
    return streamer.shown.strip()


class HangulStreamer:
    """Prints generated text as it grows, a syllable only once all of its bytes are there."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.shown = ""
        self._prompt_is_next = True

    def put(self, value: Any) -> None:
        """Takes the next token ids, as `generate` hands them over; the first call is the prompt."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        self.ids.extend(value.flatten().tolist())
        self._show(str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).rstrip(_BROKEN).replace(_BROKEN, ""))

    def end(self) -> None:
        """Shows what is left: bytes that never became a character are dropped."""
        self._show(str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).replace(_BROKEN, ""))
        print(flush=True)

    def _show(self, text: str) -> None:
        if len(text) > len(self.shown):
            print(text[len(self.shown) :], end="", flush=True)
            self.shown = text


def _read_line() -> str | None:
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = read_line()
    return line.strip() if line is not None else None
