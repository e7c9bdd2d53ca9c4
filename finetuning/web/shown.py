"""Pieces of the page as HTML. Every text is escaped, whatever the data hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from finetuning.cells import as_text, printable

_LONGEST_CELL = 160


def shown(text: object) -> str:
    """Return a text for HTML, without what a page would act on."""
    return escape(printable(str(text), keep_lines=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls inside its own box."""
    head = "".join(f"<th scope='col'>{shown(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{shown(_cut(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def record_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of records."""
    return table(columns, ([row.get(name) for name in columns] for row in rows))


def items(texts: Iterable[str]) -> str:
    """Return a list, "" where nothing is in it."""
    inner = "".join(f"<li>{shown(text)}</li>" for text in texts)
    return f"<ul>{inner}</ul>" if inner else ""


def problem(what: str, where: str = "", remedy: str = "") -> str:
    """Return an error: what happened, where, what to do."""
    rest = "".join(f"<p>{shown(line)}</p>" for line in (remedy, where) if line)
    return f"<div class='problem' role='alert'><strong>{shown(what)}</strong>{rest}</div>"


def said(text: str) -> str:
    """Return a sentence that says how things stand."""
    return f"<p class='said' role='status'>{shown(text)}</p>" if text else ""


def bars(counts: Mapping[str, float], form: str = "{:,}", most: int = 30) -> str:
    """Return a bar and a number for each name, the largest first."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])[:most]
    largest = max((value for _, value in ordered), default=0) or 1
    rows = "".join(
        f"<div class='bar'><span>{shown(name)}</span><i style='width:{max(0.0, 40 * value / largest):.1f}%'></i>"
        f"<b>{form.format(value)}</b></div>"
        for name, value in ordered
    )
    return f"<div class='bars'>{rows}</div>"


def command(line: str) -> str:
    """Return a command, to be copied."""
    return f"<pre class='command' tabindex='0'><code>{shown(line)}</code></pre>" if line else ""


def marked(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with parts of it in colour.

    Args:
        text: The text.
        spans: Start, end and name of each part, which do not overlap.

    Returns:
        The HTML.
    """
    pieces, place = [], 0
    for start, end, name in sorted(spans):
        if start < place:
            continue
        hue = sum(map(ord, name)) * 47 % 360
        pieces.append(shown(text[place:start]))
        mark = f"<mark style='--hue:{hue}'>{shown(text[start:end])}<sub>{shown(name)}</sub></mark>"
        pieces.append(mark)
        place = end
    return f"<p class='text'>{''.join(pieces)}{shown(text[place:])}</p>"


def _cut(cell: object) -> str:
    text = as_text(cell)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
