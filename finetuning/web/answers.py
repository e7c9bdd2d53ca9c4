"""What a model answered, as HTML, by the shape of the answer: labels with scores, spans in colour, texts, passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetuning.web.language import Say
from finetuning.web.shown import bars, marked, record_table, said, shown


def answer_html(answer: Mapping[str, Any], row: Mapping[str, str], roles: Mapping[str, str], say: Say) -> str:
    """Return a prediction for one row.

    Args:
        answer: The row with its prediction beside it.
        row: What the model was given.
        roles: The same by role.
        say: The language.

    Returns:
        The HTML.
    """
    said_by_model = {name: value for name, value in answer.items() if name not in row}
    if "entities" in said_by_model:
        entities = said_by_model["entities"]
        text = roles.get("text") or next(iter(row.values()), "")
        spans = [(one["start"], one["end"], one["label"]) for one in entities]
        columns = ("text", "label", "score")
        return marked(text, spans) + (record_table(columns, _rounded(entities)) if entities else said(
            say("찾은 것이 없습니다.", "Nothing was found.")))  # fmt: skip
    if "answer" in said_by_model and "start" in said_by_model:
        return _in_passage(said_by_model, roles.get("context", ""), say)
    label, score = _named(said_by_model, "label"), _named(said_by_model, "score")
    if isinstance(label, str) and isinstance(score, float):
        return f"<h3>{shown(label)}</h3>{bars({label: score}, '{:.1%}')}"
    if isinstance(label, list) and isinstance(score, list):
        none = said(say("맞는 라벨이 없습니다.", "No label fits."))
        return bars(dict(zip(label, score, strict=True)), "{:.1%}") if label else none
    if isinstance(score, float) and label is None:
        return f"<h3>{score:.3f}</h3>"
    texts = [value for value in said_by_model.values() if isinstance(value, str)]
    if len(texts) == 1:
        return f"<p class='text'>{shown(texts[0])}</p>"
    return record_table(list(said_by_model), [said_by_model])


def nearest_html(question: Mapping[str, Any], found: Sequence[Mapping[str, Any]], passages: Sequence[str]) -> str:
    """Return passages in the order of their likeness to a question, by the cosine of their vectors."""
    asked = np.array(_vector(question))
    scores = {}
    for text, one in zip(passages, found, strict=True):
        vector = np.array(_vector(one))
        length = float(np.linalg.norm(asked) * np.linalg.norm(vector)) or 1.0
        scores[text] = float(asked @ vector) / length
    return bars(scores, "{:.3f}", most=len(scores))


def _vector(answer: Mapping[str, Any]) -> list[float]:
    return next(value for name, value in answer.items() if name.endswith("embedding"))


def _in_passage(answer: Mapping[str, Any], passage: str, say: Say) -> str:
    if answer["start"] is None:
        return said(say("이 문서에는 답이 없습니다.", "The passage does not answer it."))
    span = (answer["start"], answer["end"], f"{answer['score']:.0%}")
    return f"<h3>{shown(answer['answer'])}</h3>{marked(passage, [span])}"


def _named(answer: Mapping[str, Any], name: str) -> Any:
    """Return a value of the prediction, whose name differs where the row has a column of that name."""
    return answer.get(name, answer.get(f"predicted_{name}"))


def _rounded(entities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "score": f"{one['score']:.3f}"} for one in entities]
