"""Who speaks in a conversation: the spellings of roles that are read, and what to write instead of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exceptions import BadRow

ROLE_FIELDS = ("role", "from")
_ROLES = {
    "system": "system", "developer": "system", "시스템": "system",
    "user": "user", "human": "user", "prompter": "user", "사용자": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "어시스턴트": "assistant",
    "function_call": "call", "tool_call": "call",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "function_response": "tool",
    "tool_response": "tool",
}  # fmt: skip
# What Korean data calls the two who speak. They are proposed and not read: only the author knows who is to be trained.
_LIKELY = {
    **dict.fromkeys(("고객", "손님", "질문자", "이용자", "유저", "환자", "내담자", "민원인", "학생"), "user"),
    **dict.fromkeys(
        ("상담사", "상담원", "상담자", "답변자", "챗봇", "봇", "도우미", "ai", "의사", "선생님", "교사"), "assistant"
    ),
}
_SPEAKERS = ("user", "assistant")
_MOST_SHOWN = 5


def known_role(role: object) -> str | None:
    """Return the role that a spelling means: system, user, assistant, tool, or call for a tool's call; else None."""
    return _ROLES.get(role.strip().casefold()) if isinstance(role, str) else None


def role_field(message: Mapping[str, Any]) -> str:
    """Return the field that holds a message's role; the first of the usual ones where none does."""
    return next((name for name in ROLE_FIELDS if message.get(name) is not None), ROLE_FIELDS[0])


def check_roles(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check that every message of a conversation has a role that is read.

    Args:
        messages: The messages as they are in the data.

    Raises:
        BadRow: One has none, or an unknown one; it names all unknown ones, and what to write instead.
    """
    bare = next((message for message in messages if message.get(role_field(message)) is None), None)
    if bare is not None:
        raise BadRow(
            "role이 없는 메시지",
            found=f"있는 키: {', '.join(map(str, list(bare)[:_MOST_SHOWN])) or '없음'}",
            remedy='메시지를 {"role": "user", "content": "..."} 형식으로 쓰세요. role은 system, user, assistant, tool '
            "가운데 하나입니다.",
        )
    written = {str(message[role_field(message)]).strip(): role_field(message) for message in messages}
    unknown = [role for role in written if known_role(role) is None]
    if unknown:
        known = {known_role(role) for role in written}
        more = f" 외 {len(unknown) - _MOST_SHOWN}개" if len(unknown) > _MOST_SHOWN else ""
        raise BadRow(
            f"알 수 없는 role {_quoted(unknown)}{more}",
            remedy=_what_to_write({role: written[role] for role in unknown}, known),
        )


def _what_to_write(fields: Mapping[str, str], known: Iterable[str | None]) -> str:
    """Say what to write instead of unknown roles; fields: role → its field; known: the roles that are beside them."""
    meant = _meant(list(fields), known)
    if meant:
        changes = ", ".join(f'"{fields[role]}": "{role}" → "{fields[role]}": "{meant[role]}"' for role in fields)
        return f"파일에서 role을 바꾸세요: {changes}. 모델이 학습할 답을 말하는 쪽이 assistant입니다."
    return (
        f"파일에서 {_quoted(list(fields))}의 이름을 system, user, assistant, tool 가운데 하나로 바꾸세요. 모델이 "
        "학습할 답을 말하는 쪽이 assistant이고, user와 assistant는 번갈아 나와야 합니다."
    )


def _meant(unknown: Sequence[str], known: Iterable[str | None]) -> dict[str, str]:
    """Return the likely role of each unknown one: by its name, else who speaks first asks; empty where that is open."""
    meant = {role: _LIKELY[role.casefold()] for role in unknown if role.casefold() in _LIKELY}
    rest = [role for role in unknown if role not in meant]
    free = [role for role in _SPEAKERS if role not in {*known, *meant.values()}]
    return meant | dict(zip(rest, free, strict=False)) if len(rest) <= len(free) else {}


def _quoted(roles: Sequence[str]) -> str:
    return ", ".join(f"'{role}'" for role in roles[:_MOST_SHOWN])
