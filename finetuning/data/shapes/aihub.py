"""Text sets of AI Hub (aihub.or.kr) as flat rows, those of 2021 to 2024 whose JSON is described in public.

`dataSetSn` is the number in a set's address, `aihub.or.kr/aihubdata/data/view.do?dataSetSn=...`. Files are read as they
are published: a whole set, a document, or a question each. Other sets are read through `data.records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from finetuning.cells import as_text

Rows = Iterable[Mapping[str, Any]]

_HUMAN, _SYSTEM, _TURNS = "HS", "SS", 9
_EMOTION = ("profile", "talk")


def is_summaries(value: Any) -> bool:
    """Return whether JSON has dialogues with summaries (한국어 대화 요약, dataSetSn=117)."""
    first = _first(value, "data")
    return isinstance(first.get("body"), Mapping) and {"dialogue", "summary"} <= first["body"].keys()


def summaries(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a row for each dialogue: `prompt`, what each participant says on a line, and `response`, the summary."""
    rows = []
    for one in map(_object, value["data"]):
        body, header = _object(one.get("body")), _object(one.get("header"))
        said = [f"{as_text(turn.get('participantID'))}: {as_text(turn.get('utterance'))}"
                for turn in _objects(body.get("dialogue"))]  # fmt: skip
        about = _object(header.get("dialogueInfo"))
        rows.append(
            {"dialogue_id": about.get("dialogueID"), "prompt": "\n".join(said), "response": body.get("summary")}
        )
    return rows


def is_sessions(value: Any) -> bool:
    """Return whether JSON is a dialogue in sessions (일상대화 한국어 멀티세션 데이터, dataSetSn=71678, 2024)."""
    first = _first(value, "sessionInfo")
    return isinstance(first.get("dialog"), list) and isinstance(first.get("sessionSummary"), Mapping)


def sessions(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a row for each session: `prompt`, what each speaker says on a line, and `response`, its summary."""
    about = _object(value.get("multisessionInfo"))
    rows = []
    for one in map(_object, value["sessionInfo"]):
        said = [f"{as_text(turn.get('speaker'))}: {as_text(turn.get('utterance'))}"
                for turn in _objects(one.get("dialog"))]  # fmt: skip
        summary = _object(one.get("sessionSummary")).get("dialogSummary")
        rows.append({
            "multisession_id": about.get("multisessionID"), "session_id": one.get("sessionID"),
            "prompt": "\n".join(said), "response": summary,
        })  # fmt: skip
    return rows


def is_precedent(value: Any) -> bool:
    """Return whether JSON is a court's decision with questions (법률/규정 텍스트 분석, dataSetSn=71723, 2024)."""
    return {"question", "answer"} <= _first(value, "jdgmnInfo").keys() and isinstance(value.get("Summary"), list)


def precedents(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a row for each question about a decision: `question`, `answer`, `context`, its gist, and `summary`."""
    about, first = _object(value.get("info")), _first(value, "Summary")
    kind = _object(value.get("Class_info"))
    return [
        {
            "id": about.get("id"), "case": about.get("caseNm"), "field": kind.get("class_name"),
            "question": one.get("question"), "answer": one.get("answer"),
            "context": first.get("summ_contxt"), "summary": first.get("summ_pass"),
        }
        for one in map(_object, value["jdgmnInfo"])
    ]  # fmt: skip


def is_question(value: Any) -> bool:
    """Return whether JSON is one question with its answer (필수의료 의학지식, dataSetSn=71875, 2024, and 71874)."""
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in ("question", "answer"))


def questions(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the question as the file's only row."""
    return [value]


def emotions(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Flatten dialogues with an emotion (감성 대화 말뭉치, dataSetSn=86); None for rows of another shape.

    `text` is what the person says, `label` the emotion's code (E10 to E69), `messages` the whole dialogue.
    """
    first = next(iter(rows), {}) if set(_EMOTION) <= set(columns) else {}
    if not (_code(first) and _said(first)):
        return None
    note = "감성 대화 말뭉치 형식이어서 사람의 말을 text, 감정 코드(E10~E69)를 label, 대화를 messages로 읽었습니다."
    return ("text", "label", "messages"), _Emotions(rows), note


class _Emotions:
    """The rows of dialogues with an emotion."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            said = _said(row)
            messages = [{"role": role, "content": text} for role, text in said]
            person = "\n".join(text for role, text in said if role == "user")
            yield {"text": person, "label": _code(row), "messages": messages}


def _code(row: Mapping[str, Any]) -> str:
    profile = row.get("profile")
    emotion = profile.get("emotion") if isinstance(profile, Mapping) else None
    return as_text(emotion.get("type")) if isinstance(emotion, Mapping) else ""


def _said(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return who says what, in order; a dialogue of fewer turns has empty ones."""
    talk = row.get("talk")
    content = talk.get("content") if isinstance(talk, Mapping) else None
    if not isinstance(content, Mapping):
        return []
    turns = [(role, f"{name}{number:02d}") for number in range(1, _TURNS + 1)
             for role, name in (("user", _HUMAN), ("assistant", _SYSTEM))]  # fmt: skip
    return [(role, text) for role, name in turns if (text := as_text(content.get(name)).strip())]


def _object(value: Any) -> Mapping[str, Any]:
    """Return an object; an empty one for anything else, whose row is then told as one without a text."""
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; none for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _first(value: Any, name: str) -> Mapping[str, Any]:
    """Return the first object of a list in an object; an empty one where there is none."""
    listed = value.get(name) if isinstance(value, Mapping) else None
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], Mapping) else {}
