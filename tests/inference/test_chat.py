"""Streaming: the shown text grows by whole characters and equals the decoded tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.inference.chat import ChatSession, HangulStreamer
from finetuning.inference.evaluator import Evaluator
from finetuning.inference.predictor import Predictor
from finetuning.tasks.generation.chat.encoding import prompt_ids
from finetuning.tasks.generation.chat.shapes import Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate
from finetuning.tasks.registry import find_task
from memory_utils import MemoryManager

TEMPLATE = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"


def test_a_syllable_is_shown_once_all_its_bytes_are_there(tiny_causal: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    text = "밥 먹었어? 뷁 😀 ok"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text)  # a byte a token
    streamer = HangulStreamer(tokenizer)
    streamer.put(torch.tensor([[5, 6, 7]]))  # the prompt is not shown
    shown = ""
    for token in ids:
        streamer.put(torch.tensor([token]))
        shown += capsys.readouterr().out
        assert text.startswith(shown)
    streamer.end()
    assert shown + capsys.readouterr().out == text + "\n"


def test_bytes_that_never_become_a_character_are_not_shown(tiny_causal: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    ids = tokenizer("가나", add_special_tokens=False)["input_ids"]
    streamer = HangulStreamer(tokenizer)
    streamer.put(torch.tensor([[5]]))
    for token in [*ids[:4], *ids[:3], ids[0]]:  # a broken syllable in the middle and at the end
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert capsys.readouterr().out == "가가\n"


def test_a_conversation_that_outgrows_the_model_loses_its_oldest_turns_whole(tiny_causal: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.chat_template = TEMPLATE
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    messages = Conversation(tuple({"role": role, "content": f"말{number}"} for number, role in enumerate(roles)))
    template = ChatTemplate.of(tokenizer)
    whole = tokenizer.decode(prompt_ids(messages, template, 1000))
    assert whole == "[system]말0[user]말1[assistant]말2[user]말3[assistant]말4[user]말5"
    for left_out in (whole, whole.replace("[user]말1[assistant]말2", "")):
        room = len(tokenizer(left_out, add_special_tokens=False)["input_ids"]) - 1
        fitting = tokenizer.decode(prompt_ids(messages, template, room))
        assert fitting.startswith("[system]말0[user]") and fitting.endswith("[user]말5")
        assert len(fitting) < len(left_out)


def evaluator_of(folder: Path, cache: Path, precision: str = "no") -> Evaluator:
    """A causal model whose answers have 12 tokens."""
    from accelerate.state import AcceleratorState
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test's precision
    said: dict[str, object] = {
        "model": {"task": "text-generation"}, "generation": {"max_new_tokens": 12},
        "data": {"dataset_cache_dir": str(cache)},
    }  # fmt: skip
    settings, runtime = Settings.model_validate(said), Runtime(Accelerator(cpu=True, mixed_precision=precision))
    task, tokenizer = find_task(settings), AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None  # every answer has all of its tokens
    memory = MemoryManager(settings, runtime.device, 64)
    return Evaluator(task, model, tokenizer, (), 64, runtime, memory, lambda: None)


def test_an_answer_that_is_stopped_ends_with_the_token_that_is_there(tiny_causal: Path, tmp_path: Path) -> None:
    tokens = 0

    def third() -> bool:
        nonlocal tokens
        tokens += 1
        return tokens == 3

    conversation = ChatSession(evaluator_of(tiny_causal, tmp_path), lambda piece: None, third)
    conversation.reply("안녕")
    assert tokens == 3
    conversation.reply("그리고")  # the next answer is not stopped
    assert tokens == 3 + 12


class CountedCasts(TorchDispatchMode):
    """Counts how often each weight is cast."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.names = {weight.data_ptr(): name for name, weight in model.named_parameters() if weight.dim() == 2}
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.names:
            self.found[self.names[args[0].data_ptr()]] += 1
        return func(*args, **(kwargs or {}))


def test_an_answer_casts_each_weight_once_for_all_of_its_tokens(tiny_causal: Path, tmp_path: Path) -> None:
    evaluator = evaluator_of(tiny_causal, tmp_path, "bf16")
    with CountedCasts(evaluator.model) as counted:
        ChatSession(evaluator, lambda piece: None).reply("안녕")
    assert len(counted.found) > 5 and set(counted.found.values()) == {1}


def test_generated_texts_cast_each_weight_once_for_all_of_their_tokens(tiny_causal: Path, tmp_path: Path) -> None:
    evaluator = evaluator_of(tiny_causal, tmp_path, "bf16")
    unlabelled = DataManager(evaluator.task.settings, evaluator.task).load_unlabelled(None, ["안녕\n", "그리고\n"])
    with CountedCasts(evaluator.model) as counted:
        made = [one for _, one in zip(range(2), Predictor(evaluator).predict(unlabelled), strict=True)]
    assert len(made) == 2 and len(counted.found) > 5 and set(counted.found.values()) == {1}
