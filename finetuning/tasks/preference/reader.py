"""Reading preferences: pairs of a good and a bad answer, and answers that were judged, in the shapes people have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.korean.column_names import BAD_ANSWERS, GOOD_ANSWERS, JUDGEMENTS, PROMPTS
from finetuning.tasks.generation.chat.messages import Message, listed, read_messages
from finetuning.tasks.generation.chat.reader import ConversationReader, is_there
from finetuning.tasks.generation.chat.shapes import (
    REFUSED_COLUMNS,
    SHAPES,
    Conversation,
    find_shape,
    read_conversation,
    shape_of,
)
from finetuning.tasks.preference.losses import LOSSES
from finetuning.types import Column

_JUDGED = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "good", "desirable", "좋음", "좋은답", "선호"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "bad", "undesirable", "나쁨", "나쁜답", "비선호"), False),
}
_NOT_REFUSED = ("chosen", "rejected")


class PreferenceReader(ConversationReader):
    """Reads a prompt with a good and a bad answer, or under kto a conversation whose last answer was judged.

    The prompt has any shape of a conversation; without one, both answers are whole conversations that begin alike. A
    row's `messages` end with its good (or judged) answer, `rejected` with the bad one.
    """

    refused_columns = MappingProxyType(
        {name: remedy for name, remedy in REFUSED_COLUMNS.items() if name not in _NOT_REFUSED}
    )

    @property
    def is_of_pairs(self) -> bool:
        """Whether the loss takes pairs of answers."""
        return LOSSES[self.settings.preference.loss].is_of_pairs

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns of the answers and those of the prompt's shape; see `RowReader.columns`."""
        good = self.column("chosen", "chosen_column", GOOD_ANSWERS, target=True)
        bad = self.column("rejected", "rejected_column", BAD_ANSWERS, target=True)
        judged = self.column("judged", "judged_column", JUDGEMENTS, target=True)
        is_of_pairs = self.is_of_pairs
        has_pairs = all(is_there(column, available) for column in (good, bad))
        if not available or has_pairs or is_of_pairs:
            self._check_is_no_kto(is_of_pairs, has_pairs, judged, available)
            return (*self._prompt(available, with_answer=False), good, bad)
        return (*self._prompt(available, with_answer=True), judged)

    def _check_is_no_kto(self, is_of_pairs: bool, has_pairs: bool, judged: Column, available: Sequence[str]) -> None:
        if is_of_pairs and available and not has_pairs and is_there(judged, available):
            raise DataError(
                f"답마다 좋은지 나쁜지 표시한 데이터('{judged.name}' 열)이며, 좋은 답과 나쁜 답의 쌍이 아닙니다.",
                where=f"preference.loss: {self.settings.preference.loss}",
                remedy="--set preference.loss=kto로 학습하세요.",
            )

    def _prompt(self, available: Sequence[str], with_answer: bool) -> tuple[Column, ...]:
        """Return the columns of the prompt, and with it those of the answer that was judged."""
        named = self.column("prompt", "prompt_column", PROMPTS)
        others = [name for name in available if name not in (*GOOD_ANSWERS, *BAD_ANSWERS)]
        if named.name in available and not named.is_default():
            found = ("pair", {"prompt": str(named.name)})
        else:
            found = find_shape(others, with_target=with_answer) or ("", {})
        shape, names = SHAPES.get(found[0]), found[1]
        if shape is None:
            return () if available and not with_answer else (named,)
        return tuple(
            self.found_column(
                role, "prompt_column", name, target=role == shape.target and with_answer,
                optional=role not in shape.needs,
            )
            for role, name in names.items()
            if role != "liked" and (with_answer or role not in (shape.target, "response"))
        )  # fmt: skip

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Return the settings with conversations as the format; see `RowReader.refine`."""
        options = self.settings.text_generation.model_copy(update={"format": "chat"})
        return self.settings.model_copy(update={"text_generation": options})

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring a row into `messages`, `tools` and `rejected` or `judged`; see `RowReader.prepare`."""
        cells = {role: cell for role, cell in row.items() if role not in ("chosen", "rejected", "judged")}
        if "judged" in row:
            found = self._conversation(cells)
            return {**_cells(found, _last_answer(found.messages)), "judged": _as_judgement(row["judged"])}
        if "chosen" not in row:
            found = self._conversation(cells)
            return {"messages": list(found.messages), "tools": list(found.tools)}
        good, bad = (self._conversation(cells, row[role]) for role in ("chosen", "rejected"))
        place = _answers_from(good.messages, bad.messages)
        return {**_cells(good, place), "rejected": _answering(bad.messages, place)}

    def _conversation(self, cells: Mapping[str, Any], answer: Any = None) -> Conversation:
        """Read a prompt with an answer, or an answer that is the whole conversation."""
        options = self.settings.text_generation
        turns = listed(answer)
        if turns is not None and read_messages(turns)[0]["role"] != "assistant":
            kept = {role: cell for role, cell in cells.items() if role in ("system", "tools")}
            whole = read_conversation("messages", {**kept, "messages": turns}, options.system_prompt, False)
            _check_asks(cells, whole.messages)
            return whole
        if not any(role in cells for shape in SHAPES.values() for role in shape.needs):
            raise BadRow("질문이 없는 쌍(prompt 열이나, 질문부터 시작하는 메시지 목록이 필요합니다)")
        shape = shape_of(cells)
        target = SHAPES[shape].target or "response"
        answered = cells if answer is None else {**cells, target: answer}
        return read_conversation(shape, answered, options.system_prompt, options.leading_answer == "row")

    def complete(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Leave a row as it is: its answers were checked; see `RowReader.complete`."""
        return row, ""


def _cells(conversation: Conversation, place: int) -> dict[str, Any]:
    return {"messages": _answering(conversation.messages, place), "tools": list(conversation.tools)}


def _answering(messages: Sequence[Message], place: int) -> list[Message]:
    """Mark the answers before a place as not trained."""
    return [
        {**message, "train": False} if number < place and message["role"] == "assistant" else message
        for number, message in enumerate(messages)
    ]


def _answers_from(good: Sequence[Message], bad: Sequence[Message]) -> int:
    """Return where the two answers of a pair begin; raise BadRow where they are no answers to one prompt."""
    pairs = enumerate(zip(good, bad, strict=False))
    place = next((number for number, (one, other) in pairs if one != other), min(len(good), len(bad)))
    tails = good[place:], bad[place:]
    if not any(tails):
        raise BadRow("좋은 답과 나쁜 답이 같은 쌍")
    if any(not tail or tail[-1]["role"] != "assistant" for tail in tails):
        raise BadRow("답이 없는 쌍")
    if any(tail[0]["role"] != "assistant" for tail in tails):
        raise BadRow("좋은 답과 나쁜 답의 질문이 다른 쌍")
    return place


def _last_answer(messages: Sequence[Message]) -> int:
    if messages[-1]["role"] != "assistant":
        raise BadRow("답이 없는 대화")
    return len(messages) - 1


def _check_asks(cells: Mapping[str, Any], messages: Sequence[Message]) -> None:
    """Check that a whole conversation has the question of the prompt's column; raise BadRow where it has not."""
    prompt = cells.get("prompt")
    if not isinstance(prompt, str) or listed(prompt) is not None or not prompt.strip():
        return
    if not any(prompt.strip() in message["content"] for message in messages if message["role"] != "assistant"):
        raise BadRow("prompt의 질문이 없는 chosen이나 rejected")


def _as_judgement(cell: Any) -> str:
    """Return `true` or `false` for a cell that says whether an answer is good."""
    found = cell if isinstance(cell, bool) else _JUDGED.get(str(cell).strip().casefold())
    if found is None:
        raise BadRow("좋은지(true) 나쁜지(false) 알 수 없는 답")
    return "true" if found else "false"
