"""Reading conversations and plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exceptions import BadRow
from finetuning.cells import check_is_text
from finetuning.config.schema import Settings
from finetuning.korean.column_names import PROMPTS, RESPONSES, TEXTS
from finetuning.tasks.generation.chat.messages import leading_answer, listed, unread_fields
from finetuning.tasks.generation.chat.shapes import (
    REFUSED_COLUMNS,
    SEGMENT,
    SHAPES,
    find_shape,
    optional_columns,
    read_conversation,
    shape_of,
)
from finetuning.tasks.generation.shared import PROMPT_AND_RESPONSE
from finetuning.tasks.parts import RowReader
from finetuning.types import Column, Remark

_LISTS = ("messages", "text", "prompt", "response")  # roles whose cell may be a list of messages
_TEXTS = ("instruction", "input", "output")
_SETTINGS = {
    "instruction": "prompt_column", "input": "prompt_column", "prompt": "prompt_column", "passage": "prompt_column",
    "history": "prompt_column", "output": "response_column", "response": "response_column",
}  # fmt: skip


class ConversationReader(RowReader):
    """Reads conversations or plain text.

    A row has one of the shapes in `chat.shapes`, or else it is plain text.
    """

    instead = PROMPT_AND_RESPONSE
    refused_columns = REFUSED_COLUMNS

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns that the settings name, or else those of a common shape, or else the text's."""
        wanted = self.settings.text_generation.format
        text = self.column("text", "text_column", TEXTS)
        pair = (
            self.column("prompt", "prompt_column", PROMPTS),
            self.column("response", "response_column", RESPONSES, target=True),
        )
        named = {column.role for column in (text, *pair) if column.name in available and not column.is_default()}
        if wanted == "text" or (wanted is None and "text" in named and "prompt" not in named):
            return (text, *self._optional("messages", available, {str(text.name)}))
        found = find_shape(available, with_target=wanted != "chat") if "prompt" not in named else None
        if found is not None and found[0] != "pair":
            shape, names = SHAPES[found[0]], found[1]
            target = shape.target or "response"
            if "response" in named:
                names = {**names, target: str(pair[1].name)}
            return tuple(
                self.found_column(
                    role, _SETTINGS.get(role, "text_column"), name, target=role == target,
                    optional=role not in shape.needs and role != target,
                )
                for role, name in names.items()
            )  # fmt: skip
        if found is None and "prompt" not in named and wanted != "chat":
            return pair if all(is_there(column, available) for column in pair) else (text,)
        return (*pair, *self._optional("pair", available, {str(column.name) for column in pair}))

    def _optional(self, shape: str, available: Sequence[str], taken: set[str]) -> Iterator[Column]:
        """Yield what a shape reads where it is there."""
        for role, name in optional_columns(shape, available, taken).items():
            yield self.found_column(role, _SETTINGS.get(role, "text_column"), name, optional=True)

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Return the settings with the format that was found; see `RowReader.refine`."""
        found = "text" if "text" in roles else "chat"
        options = self.settings.text_generation.model_copy(update={"format": found})
        return self.settings.model_copy(update={"text_generation": options})

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring a conversation of any shape into `messages` and `tools`; see `RowReader.prepare`."""
        options = self.settings.text_generation
        if "text" in row:
            if options.format == "text" or listed(row["text"]) is None:
                return {"text": row["text"]}
            row = {**row, "messages": row["text"]}
        for role in _TEXTS:
            check_is_text(role, row.get(role))
        made = read_conversation(shape_of(row), row, options.system_prompt, options.leading_answer == "row")
        return {"messages": list(made.messages), "tools": list(made.tools)}

    def remarks(self, row: Mapping[str, Any]) -> Iterator[Remark]:
        """Tell message fields that are not read, and turns before the first question; see `RowReader.remarks`."""
        cells = (listed(row.get(role)) for role in _LISTS)
        lists = [messages for messages in cells if messages is not None]
        for messages in lists:
            yield from (Remark("field", name) for name in unread_fields(messages))
        opening = leading_answer(lists[0]) if lists else ""
        if opening and self.settings.text_generation.leading_answer == "turn":
            yield Remark("opening", opening)

    def complete(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Cut a question without an answer off a conversation's end; see `RowReader.complete`."""
        messages = row.get("messages", ())
        if not messages:
            return row, ""
        answers = [place for place, message in enumerate(messages) if message["role"] in ("assistant", SEGMENT)]
        if not answers:
            raise BadRow("답이 없는 대화")
        if not any(messages[place].get("train", True) for place in answers):
            raise BadRow("학습하지 않는다고 표시한 답(train: false, weight: 0)만 있는 대화")
        end = answers[-1] + 1
        left_out = messages[end]["content"] if end < len(messages) else ""
        return {**row, "messages": messages[:end]}, left_out


def is_there(column: Column, available: Sequence[str]) -> bool:
    """Return whether a source has the column, or one of its usual names while its setting has the default."""
    usual = column.is_default() and any(name.casefold() in column.usual for name in available)
    return column.name in available or usual
