"""A conversation with a model, held in memory and never written to the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetuning.cells import printable
from finetuning.device.usage import room_to_copy
from finetuning.inference.evaluator import Evaluator
from finetuning.ops.packed_weights import packed_weights
from finetuning.tasks.generation.chat.encoding import prompt_ids
from finetuning.tasks.generation.chat.shapes import read_conversation
from finetuning.tasks.generation.chat.template import ChatTemplate
from finetuning.tasks.generation.decoding import Decoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, StoppingCriteriaList

_BROKEN = "\ufffd"
_SILENCE = "…"  # stands for an empty answer in the next prompt


def print_piece(piece: str) -> None:
    """Print a part of an answer as soon as it is generated."""
    print(printable(piece, keep_lines=True), end="", flush=True)


@dataclass
class ChatSession:
    """The turns of a conversation, and the model that answers.

    Attributes:
        evaluator: Holds the model.
        show: Called with each part of an answer as it is generated, and with a line break at its end.
        is_stopped: Asked after each token whether the answer is to end there.
    """

    evaluator: Evaluator
    show: Callable[[str], None] = print_piece
    is_stopped: Callable[[], bool] = lambda: False
    _turns: list[dict[str, str]] = field(default_factory=list)

    def forget(self) -> None:
        """Begin a new conversation."""
        self._turns.clear()

    def reply(self, text: str) -> str:
        """Answer the user's next turn, showing the answer as it is generated.

        Args:
            text: The user's message.

        Returns:
            The answer, which becomes part of the conversation; what there is of it where it was stopped.
        """
        evaluator, settings = self.evaluator, self.evaluator.task.settings
        self._turns.append({"role": "user", "content": text})
        system = settings.text_generation.system_prompt
        decoding = evaluator.decoding(is_measured=False)
        conversation = read_conversation("messages", {"messages": self._turns}, system, keeps_opening=True)
        room = max(1, evaluator.max_length - decoding.max_new_tokens)
        ids = prompt_ids(conversation, ChatTemplate.of(evaluator.tokenizer), room)
        inputs = torch.tensor([ids], device=evaluator.runtime.device)
        streamer = HangulStreamer(evaluator.tokenizer, self.show)
        generate: Any = evaluator.model.generate
        with evaluator.runtime.generating(), packed_weights(evaluator.model, 1, room_to_copy()):
            generate(
                input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=decoding.max_new_tokens,
                streamer=streamer, stopping_criteria=self._stops(),
                **decoding.arguments(len(ids), self._numbers(decoding)),
            )  # fmt: skip
        answer = streamer.shown.strip()
        self._turns.append({"role": "assistant", "content": answer or _SILENCE})
        return answer

    def _stops(self) -> StoppingCriteriaList:
        """Return what ends an answer that was stopped."""
        from transformers import StoppingCriteriaList

        def stops(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), self.is_stopped(), device=input_ids.device)

        return StoppingCriteriaList([stops])

    def _numbers(self, decoding: Decoding) -> np.ndarray | None:
        """Return what the next answer is drawn with: a person who asks again wants another answer."""
        return np.random.default_rng().random((1, decoding.max_new_tokens)) if decoding.samples else None


class HangulStreamer:
    """Shows generated text as it grows, each syllable once all of its bytes are there."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, show: Callable[[str], None] = print_piece) -> None:
        self.tokenizer, self._show_piece = tokenizer, show
        self.ids: list[int] = []
        self.shown = ""
        self._prompt_is_next = True

    def put(self, value: Any) -> None:
        """Take the next token ids from `generate`; the first call holds the prompt, which is not shown."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        self.ids.extend(value.flatten().tolist())
        self._show(str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).rstrip(_BROKEN).replace(_BROKEN, ""))

    def end(self) -> None:
        """Show the rest; drop bytes that never became a character."""
        self._show(str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).replace(_BROKEN, ""))
        self._show_piece("\n")

    def _show(self, text: str) -> None:
        if len(text) > len(self.shown):
            self._show_piece(text[len(self.shown) :])
            self.shown = text
