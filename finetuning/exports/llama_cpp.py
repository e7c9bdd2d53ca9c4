"""Whether llama.cpp answers as transformers does: the same tokens, each the likeliest, to a few questions."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.tasks.generation.chat.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUESTIONS = ("안녕하세요?", "오늘 저녁에 뭐 먹을까?", "한국의 수도는 어디야?", "좋은 습관 세 가지만 알려 줘.")
NOT_CHECKED = "llama.cpp에서는 불러와 보지 않았습니다. 확인하려면 `pip install xllamacpp` 뒤에 다시 실행하세요."
_TOKENS = 16
_MOST_S = 1800.0
_CHILD = Path(__file__).with_name("llama_cpp_child.py")


@dataclass(frozen=True)
class Agreement:
    """How often llama.cpp gave the answer of transformers.

    Attributes:
        same: Number of questions with the same answer, token by token.
        asked: Number of questions.
        problem: Why llama.cpp gave no answers, as it said it; None where it did.
    """

    same: int
    asked: int
    problem: str | None = None

    def line(self) -> str:
        """Return the agreement as a Korean log line."""
        if self.problem is not None:
            return f"llama.cpp가 이 파일을 읽지 못했습니다: {self.problem}"
        return (
            f"llama.cpp에서 불러와 확인했습니다. 질문 {self.asked}개 중 {self.same}개에 "
            f"transformers(float32)와 똑같이 답합니다(greedy, 토큰 {_TOKENS}개)."
        )


def compare(
    gguf: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None,
    questions: Sequence[str] = QUESTIONS,
) -> Agreement | None:  # fmt: skip
    """Ask a model and its GGUF file the same questions.

    Args:
        gguf: The GGUF file.
        model: The model in float32, fitted to its task.
        tokenizer: Its tokenizer.
        template: The chat template, which llama.cpp applies by itself from the file; None for a model of plain text.
        questions: What is asked.

    Returns:
        How often they agree; None without the package xllamacpp.
    """
    if find_spec("xllamacpp") is None:
        return None
    asked: list[Any] = []
    expected = []
    for question in questions:
        message = {"role": "user", "content": question}
        text = question if template is None else template.prompt([message])
        ids = tokenizer(text, add_special_tokens=template is None)["input_ids"]
        asked.append(ids if template is None else [message])
        expected.append(_answer(model, ids))
    answers, problem = _ask_llama_cpp(gguf, asked, is_chat=template is not None)
    ends = _ends(model)
    pairs = list(zip(expected, answers, strict=False))
    same = sum(_without_end(ours, ends) == _without_end(theirs, ends) for ours, theirs in pairs)
    return Agreement(same, len(questions), problem)


def _answer(model: PreTrainedModel, ids: list[int]) -> list[int]:
    import torch

    inputs = torch.tensor([ids])
    generate: Any = model.generate
    with torch.inference_mode():
        made = generate(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=_TOKENS, do_sample=False,
            repetition_penalty=1.0,
        )  # fmt: skip
    return list(made[0, len(ids) :].tolist())


def _ends(model: PreTrainedModel) -> set[int]:
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _without_end(ids: list[int], ends: set[int]) -> list[int]:
    """Return an answer up to its end; llama.cpp does not tell the token that ended it."""
    place = next((place for place, number in enumerate(ids) if number in ends), len(ids))
    return ids[:place]


def _ask_llama_cpp(gguf: Path, asked: Sequence[Any], is_chat: bool) -> tuple[list[list[int]], str | None]:
    """Ask in a process of its own, which llama.cpp ends where it cannot go on."""
    with tempfile.TemporaryDirectory() as name:
        answers = Path(name) / "answers.json"
        request = {"model": str(gguf), "asked": asked, "is_chat": is_chat, "tokens": _TOKENS, "answers": str(answers)}
        try:  # -P: modules beside the file must not hide packages of their names
            done = subprocess.run(
                [sys.executable, "-P", str(_CHILD)],
                input=json.dumps(request), capture_output=True, text=True, encoding="utf-8", errors="replace",
                timeout=_MOST_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return [], f"{_MOST_S / 60:.0f}분이 지나도 답하지 않습니다"
        if not answers.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            return [], said[-1][:300] if said else f"종료 코드 {done.returncode}"
        return json.loads(answers.read_text(encoding="utf-8")), None
