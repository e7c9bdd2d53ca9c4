"""The system text of a conversation: it stands before every turn, and stays when a conversation begins anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.inference.chat import ChatSession
from finetuning.inference.evaluator import Evaluator
from finetuning.tasks.registry import find_task
from memory_utils import MemoryManager


def test_the_system_text_stands_before_every_turn(tiny_causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, object] = {
        "model": {"task": "text-generation"}, "generation": {"max_new_tokens": 4},
        "text_generation": {"system_prompt": "brief"},
    }  # fmt: skip
    settings, runtime = Settings.model_validate(given), Runtime(Accelerator(cpu=True))
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.chat_template = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
    model = AutoModelForCausalLM.from_pretrained(tiny_causal, dtype=torch.float32)
    memory = MemoryManager(settings, runtime.device, 256)
    prompts, whole = list[str](), model.generate

    def generate(**given: Any) -> Any:
        prompts.append(str(tokenizer.decode(given["input_ids"][0])))
        return whole(**given)

    monkeypatch.setattr(model, "generate", generate)
    evaluator = Evaluator(find_task(settings), model, tokenizer, (), 256, runtime, memory, lambda: None)
    conversation = ChatSession(evaluator, lambda piece: None)
    for text in ("one", "two"):
        conversation.reply(text)
    conversation.forget()
    conversation.reply("three")
    assert prompts[0] == "[system]brief[user]one" and prompts[2] == "[system]brief[user]three"
    assert prompts[1].startswith("[system]brief[user]one[assistant]") and prompts[1].endswith("[user]two")
