"""A Modelfile for Ollama: the chat template that a model was trained with, as a Go template, and its stop tokens.

Ollama reads no Jinja. What a template puts around a message is found out by rendering, as transformers does it, and the
Go template that says the same is compared with it on further conversations; one that differs is not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetuning.tasks.generation.chat.messages import Message
from finetuning.tasks.generation.chat.template import ChatTemplate, TemplateRefused
from finetuning.tasks.generation.decoding import Decoding

_SYSTEM, _FIRST, _ANSWER, _SECOND = "뷁쟇시", "쀍뛟질", "궳뀕답", "쌺쁿문"  # occur in no template
_CONVERSATIONS = (("질문 하나",), ("안녕?", "안녕하세요.", "오늘 날씨는?"), ("1", "2\n\n3", "가 나", "다", "라"))


class NotRegular(Exception):
    """A chat template does more than to put text around messages. The message says what, in Korean."""


@dataclass(frozen=True)
class MessageFrame:
    """What a chat template puts around the messages of a conversation.

    Attributes:
        opening: Before the first message of the user's where there is no system text. It includes `before_user`.
        before_system: Before the system text; None for a template without.
        after_system: Between the system text and the first message of the user's.
        before_user: Before a later message of the user's.
        after_user: After a message of the user's.
        before_answer: Before an answer in the history.
        after_answer: After an answer in the history.
        asking: At the end, where the model answers.
    """

    opening: str
    before_system: str | None
    after_system: str
    before_user: str
    after_user: str
    before_answer: str
    after_answer: str
    asking: str

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render a conversation, as the Go template does."""
        text, system, is_first = "", "", True
        for message in messages:
            content = message["content"]
            if message["role"] == "system":
                system = content
            elif message["role"] == "user":
                begin = self.opening if not system else f"{self.before_system}{system}{self.after_system}"
                text += (begin if is_first else self.before_user) + content + self.after_user
                is_first = False
            else:
                text += self.before_answer + content + self.after_answer
        return text + self.asking

    def go_template(self) -> str:
        """Return the frame as a template of Go, with Ollama's variables."""
        opening = _go(self.opening)
        if self.before_system is not None:
            system = _go(self.before_system) + _do("$.System") + _go(self.after_system)
            opening = _do("if $.System") + system + _do("else") + opening + _do("end")
        begin = _do("if $first") + _do("$first = false") + opening + _do("else") + _go(self.before_user) + _do("end")
        user = _do('if eq .Role "user"') + begin + _do(".Content") + _go(self.after_user)
        answer = (
            _do('else if eq .Role "assistant"') + _go(self.before_answer) + _do(".Content") + _go(self.after_answer)
        )
        messages = _do("range .Messages") + user + answer + _do("end") + _do("end")
        return _do("$first := true") + messages + _go(self.asking)


def frame_of(template: ChatTemplate) -> MessageFrame:
    """Find out what a chat template puts around messages.

    A bos token that the tokenizer adds itself is left out, since llama.cpp adds it as well.

    Args:
        template: The template.

    Returns:
        The frame, which renders conversations as the template does.

    Raises:
        NotRegular: There is no such frame.
    """
    user, later = _message("user", _FIRST), _message("user", _SECOND)
    answer, system = _message("assistant", _ANSWER), _message("system", _SYSTEM)
    try:
        before, after_user = _cut(template.text([user]), _FIRST)
        _, asked = _cut(template.prompt([user]), _FIRST)
        _, between, after_last = _cut(template.text([user, answer]), _FIRST, _ANSWER)
        _, _, turn, _ = _cut(template.text([user, answer, later]), _FIRST, _ANSWER, _SECOND)
    except TemplateRefused as error:
        raise NotRegular(str(error)) from error
    before_user = _without_start(turn, after_last)
    _without_end(before, before_user)
    try:
        before_system, after_system, _ = _cut(template.prompt([system, user]), _SYSTEM, _FIRST)
    except (TemplateRefused, NotRegular):
        before_system, after_system = None, ""
    bos = _added_bos(template)
    frame = MessageFrame(
        opening=before.removeprefix(bos),
        before_system=None if before_system is None else before_system.removeprefix(bos),
        after_system=after_system,
        before_user=before_user,
        after_user=after_user,
        before_answer=_without_start(between, after_user),
        after_answer=after_last,
        asking=_without_start(asked, after_user),
    )
    _compare(frame, template, bos)
    return frame


def modelfile(
    weights: str, template: ChatTemplate | None, system: str | None, decoding: Decoding, context: int
) -> tuple[str, str | None]:
    """Write a Modelfile.

    Args:
        weights: Name of the GGUF file beside it.
        template: The chat template; None for a model that was trained on plain text.
        system: The system text of every conversation.
        decoding: How texts are generated.
        context: The longest input in tokens, prompt and answer together.

    Returns:
        The Modelfile, and why it has no template, in Korean; None where it has one.
    """
    lines, problem = [f"FROM ./{weights}"], None
    if template is None:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    else:
        try:
            lines.append(f'TEMPLATE """{_quotable(frame_of(template).go_template())}"""')
        except NotRegular as error:
            problem = str(error)
        if system and '"""' not in system:
            lines.append(f'SYSTEM """{system}"""')
        if template.end is not None:
            lines.append(f'PARAMETER stop "{template.end}"')
    lines.append(f"PARAMETER num_ctx {context}")
    drawn = decoding.narrowing if decoding.samples else {"temperature": 0}  # Ollama has defaults of its own
    for name, neutral in (("temperature", 1), ("top_k", 0), ("top_p", 1)):
        lines.append(f"PARAMETER {name} {drawn.get(name, neutral):g}")
    lines.append(f"PARAMETER repeat_penalty {decoding.repetition_penalty:g}")
    return "\n".join(lines) + "\n", problem


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _cut(text: str, *marks: str) -> tuple[str, ...]:
    """Cut a text at marks that occur once, in this order."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            raise NotRegular("메시지를 두 번 쓰거나 쓰지 않는 template입니다")
        part, _, text = text.partition(mark)
        parts.append(part)
    return (*parts, text)


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise NotRegular("같은 메시지를 자리에 따라 다르게 쓰는 template입니다")
    return text.removeprefix(start)


def _without_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise NotRegular("두 번째 질문을 첫 질문과 다르게 쓰는 template입니다")
    return text.removesuffix(end)


def _added_bos(template: ChatTemplate) -> str:
    """Return the bos token that the tokenizer begins every text with, or ""."""
    tokenizer = template.tokenizer
    begins = tokenizer("가")["input_ids"][:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if tokenizer.bos_token_id is not None and begins else ""


def _compare(frame: MessageFrame, template: ChatTemplate, bos: str) -> None:
    """Raise NotRegular where a frame renders a conversation in another way than its template."""
    for turns in _CONVERSATIONS:
        messages = [_message(("user", "assistant")[place % 2], turn) for place, turn in enumerate(turns)]
        with_system = [] if frame.before_system is None else [[_message("system", "짧게 답하세요."), *messages]]
        for conversation in (messages, *with_system):
            if frame.prompt(conversation) != template.prompt(conversation).removeprefix(bos):
                raise NotRegular("대화의 길이나 내용에 따라 다르게 쓰는 template입니다")


def _do(action: str) -> str:
    """Return an action of a Go template."""
    return "{{ " + action + " }}"


def _go(text: str) -> str:
    """Return text as it stands in a Go template."""
    return text.replace("{{", '{{ "{{" }}')


def _quotable(text: str) -> str:
    if '"""' in text:
        raise NotRegular('template에 """가 있습니다')
    return text
