"""Tables of docs/tasks.md made from results of `decoding` and `parsing`, in both languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]

_DECODING = {
    "ko": {
        "head": ("단어", "디코딩", "KLUE-NER 개체 macro-F1", "개체 micro-F1", "KorQuAD EM", "F1"),
        "cut": "조사 앞에서 자름", "whole": "자르지 않음", "constrained": "제약", "free": "토큰마다 따로",
        "decoding": "제약의 효과", "words": "자르기의 효과",
    },
    "en": {
        "head": ("words", "decoding", "KLUE-NER entity macro-F1", "entity micro-F1", "KorQuAD EM", "F1"),
        "cut": "cut before particles", "whole": "whole", "constrained": "constrained", "free": "each token alone",
        "decoding": "what constraints add", "words": "what cutting adds",
    },
}  # fmt: skip
_PARSING = {
    "ko": {"head": ("모델", "UAS", "LAS", "KLUE UAS macro-F1", "KLUE LAS macro-F1"),
           "the next word": "항상 바로 다음 어절", "trained": "{name}, {epochs} epoch, `learning_rate` {rate:g}"},
    "en": {"head": ("model", "UAS", "LAS", "KLUE's UAS macro-F1", "KLUE's LAS macro-F1"),
           "the next word": "always the next word", "trained": "{name}, {epochs} epochs, `learning_rate` {rate:g}"},
}  # fmt: skip
_ENCODER = {"ko": "내장 인코더", "en": "the bundled encoder"}


def decoding_table(result: dict[str, Any], language: str) -> str:
    """Return the scores of each cut and decoding with the range over seeds, and what each adds with the same seed."""
    words = _DECODING[language]
    lines = [
        [words[cut], words[decoding], *map(_mean_and_range, _all_runs(result, cut, decoding))]
        for cut in ("cut", "whole")
        for decoding in ("constrained", "free")
    ]
    best = _all_runs(result, "cut", "constrained")
    for kind, other in (("decoding", ("cut", "free")), ("words", ("whole", "constrained"))):
        lines.append([words[kind], "", *map(_added, best, _all_runs(result, *other))])
    return _table(words["head"], lines)


def parsing_table(result: dict[str, Any], language: str) -> str:
    """Return the scores of each parser with the range over seeds."""
    words = _PARSING[language]
    metrics = result["tables"][0]["columns"][-4:]
    by_parser: dict[tuple[Any, ...], list[Row]] = {}
    for row in result["tables"][0]["rows"]:
        if row["seed"] != "mean":
            by_parser.setdefault((row["parser"], row.get("epochs"), row.get("learning rate")), []).append(row)
    lines = []
    for (name, epochs, rate), rows in by_parser.items():
        shown = _ENCODER[language] if name == "encoder" else name
        said = words.get(name) or words["trained"].format(name=shown, epochs=epochs, rate=rate)
        lines.append([said, *(_mean_and_range([row[metric] for row in rows]) for metric in metrics)])
    return _table(words["head"], lines)


TABLES: dict[str, Callable[[dict[str, Any], str], str]] = {"decoding": decoding_table, "parsing": parsing_table}


def _all_runs(result: dict[str, Any], cut: str, decoding: str) -> list[list[float]]:
    """Return the scores by seed of each metric of each task."""
    return [
        row[column]
        for table in result["tables"]
        for row in table["rows"]
        if (row["words"], row["decoding"]) == (cut, decoding)
        for column in table["columns"]
        if column.endswith(" by seed")
    ]


def _places(values: Sequence[float]) -> int:
    """Return how many decimals are shown, of shares of one or of percentages."""
    return 1 if max(values) > 1 else 3


def _mean_and_range(values: Sequence[float]) -> str:
    places = _places(values)
    return f"{sum(values) / len(values):.{places}f} ({min(values):.{places}f}–{max(values):.{places}f})"


def _added(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the mean and range of what values of the same seeds are higher by."""
    places, added = _places(values), [one - other for one, other in zip(values, others, strict=True)]
    return f"{sum(added) / len(added):+.{places}f} ({min(added):+.{places}f}–{max(added):+.{places}f})"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in (head, ["---"] * len(head), *lines))
