"""The page as HTML: one file that needs no network. Every text is escaped, whatever the data hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.cells import printable
from finetuning.reporting.page.blocks import confused_pairs, label_table, matrix_of, pieces_of
from finetuning.reporting.page.curves import Chart
from finetuning.reporting.page.drawing import chart_svg, distribution_svg, scatter_svg
from finetuning.reporting.page.view import Page, scale_of
from finetuning.tasks.evidence import Block, Confusion, Distribution, LabelScores, Scatter

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def render(page: Page, charts: Sequence[Chart], best_step: int) -> str:
    """Render a page.

    Args:
        page: What it shows.
        charts: The curves of the run; none for an evaluation.
        best_step: The step of the saved model.

    Returns:
        The HTML.
    """
    labels = page.labels
    pictures = [(chart.title, chart_svg(chart, best_step)) for chart in charts]
    style, script = style_and_script()
    return (
        environment_of()
        .get_template("page.html.j2")
        .render(
            page=page,
            style=style,
            script=script,
            scale=None if page.quality is None else scale_of(page.quality),
            pictures=pictures,
            blocks=[_block(block) for block in page.evaluation.evidence.blocks],
            pieces=lambda part: pieces_of(part, labels),
        )
    )


def environment_of() -> Environment:
    """Return what renders the templates: every text is escaped, and shown without what a terminal or a page acts on."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = lambda text: printable(str(text), keep_lines=True)
    return environment


def style_and_script() -> tuple[str, str]:
    """Return the page's style sheet and script."""
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return style, script


def _block(block: Block) -> dict[str, Any]:
    """Return what the template of a block's kind reads."""
    if isinstance(block, Confusion):
        left_out = len(block.labels) - len(matrix_of(block).labels)
        return {"kind": "matrix", "matrix": matrix_of(block), "pairs": confused_pairs(block), "left_out": left_out}
    if isinstance(block, LabelScores):
        shown = label_table(block)
        return {"kind": "labels", "scores": shown, "left_out": len(block.scores) - len(shown)}
    if isinstance(block, Distribution):
        return {"kind": "picture", "title": block.title, "svg": distribution_svg(block)}
    assert isinstance(block, Scatter)
    return {"kind": "picture", "title": "예측과 정답", "svg": scatter_svg(block)}
