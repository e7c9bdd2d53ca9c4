"""Charts drawn by matplotlib: as SVG with real text for the page, and as PNG for slides.

Nothing of matplotlib's global state is changed: figures are made without pyplot, and the font is given by its file.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetuning.cells import printable
from finetuning.reporting.page.curves import MOST_OVERLAID, Chart
from finetuning.reporting.page.fonts import korean_font
from finetuning.tasks.evidence import Confusion, Distribution, Scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 20
_MOST_DOTS = 1500
_LONGEST_LABEL = 18
_SIZE_IN = (4.6, 2.7)  # of a chart of the page, in inches of 72 points: legible where it is scaled to a phone
_DPI = 144


@dataclass(frozen=True)
class Look:
    """Colours of a drawing.

    Attributes:
        ink: Of text and axes.
        line: Of the grid.
        colours: Of the series, in their order.
        ground: Behind the drawing; None for the page's own.
    """

    ink: str
    line: str
    colours: tuple[str, ...]
    ground: str | None


# colours that stand for the page's variables, so that a drawing follows light and dark
_VARIABLES = {"#010203": "var(--ink)", "#040506": "var(--line)", "#070809": "var(--s0)", "#0a0b0c": "var(--s1)",
              "#0d0e0f": "var(--s2)"}  # fmt: skip
_OVERLAID = {f"#1122{number:02x}": f"var(--r{number})" for number in range(MOST_OVERLAID)}
PAGE = Look("#010203", "#040506", ("#070809", "#0a0b0c", "#0d0e0f"), None)
OVERLAY = Look(PAGE.ink, PAGE.line, tuple(_OVERLAID), None)
SLIDE = Look("#1f2328", "#d0d7de", ("#2563eb", "#d9480f", "#2b8a3e"), "#ffffff")


def chart_svg(chart: Chart, best_step: int) -> str:
    """Draw lines over steps, with a mark at the step of the saved model."""
    return _svg(lambda axes: _draw_chart(axes, chart, best_step, PAGE))


def overlay_svg(chart: Chart) -> str:
    """Draw the same curve of several runs; the page says which colour is which run."""
    return _svg(lambda axes: _draw_lines(axes, chart, OVERLAY))


def distribution_svg(block: Distribution) -> str:
    """Draw how values are distributed, the share of each group's rows."""
    return _svg(lambda axes: _draw_distribution(axes, block, PAGE))


def scatter_svg(block: Scatter) -> str:
    """Draw predicted over true numbers, at most 1,500 rows spread over the split."""
    return _svg(lambda axes: _draw_scatter(axes, block, PAGE))


def curves_png(charts: Sequence[Chart], best_step: int, title: str) -> bytes:
    """Draw all charts of a run as one picture."""
    with _drawing():
        columns = min(len(charts), 3)
        rows = -(-len(charts) // columns)
        figure = _figure((6.0 * columns, 3.2 * rows + 0.5), SLIDE)
        for place, chart in enumerate(charts, 1):
            axes = figure.add_subplot(rows, columns, place)
            _draw_chart(axes, chart, best_step, SLIDE)
            axes.set_title(chart.title, color=SLIDE.ink, fontsize=11, loc="left")
        figure.suptitle(_label(title, 60), color=SLIDE.ink, fontsize=13)
        return _png(figure)


def confusion_png(block: Confusion, title: str) -> bytes:
    """Draw a confusion matrix: each cell's colour is its share of the true label's rows.

    Args:
        block: The matrix.
        title: The picture's title.

    Returns:
        The picture.
    """
    with _drawing():
        size = max(4.0, min(14.0, 1.6 + 0.45 * len(block.labels)))
        figure = _figure((size + 1.0, size), SLIDE)
        axes = figure.add_subplot()
        number_size = max(7, min(18, round(60 / len(block.labels))))
        shares = block.counts / np.maximum(block.counts.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        names = [_label(label) for label in block.labels]
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("예측", color=SLIDE.ink)
        axes.set_ylabel("정답", color=SLIDE.ink, rotation=0, labelpad=16)
        axes.set_title(_label(title, 60), color=SLIDE.ink, fontsize=12)
        for (row, column), count in np.ndenumerate(block.counts):
            if count:
                colour = "#ffffff" if shares[row, column] > 0.55 else SLIDE.ink
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=number_size)
        return _png(figure)


def _draw_chart(axes: Axes, chart: Chart, best_step: int, look: Look) -> None:
    _draw_lines(axes, chart, look)
    if any(line.has_points for line in chart.lines):
        axes.axvline(best_step, color=look.ink, linewidth=0.8, linestyle=":")
    if len(chart.lines) > 1:
        axes.legend(frameon=False, labelcolor=look.ink, fontsize=10)


def _draw_lines(axes: Axes, chart: Chart, look: Look) -> None:
    from matplotlib.ticker import MaxNLocator

    _prepare(axes, look)
    for line, colour in zip(chart.lines, look.colours, strict=False):
        marker = "o" if line.has_points or len(line.x) == 1 else ""
        axes.plot(line.x, line.y, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=_label(line.name))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # there is no half a step
    axes.set_xlabel("스텝", color=look.ink)
    axes.set_ylim(*_padded(np.concatenate([line.y for line in chart.lines])))


def _draw_distribution(axes: Axes, block: Distribution, look: Look) -> None:
    _prepare(axes, look)
    groups = {name: values[np.isfinite(values)] for name, values in block.groups.items()}
    groups = {name: values for name, values in groups.items() if len(values)}
    if groups:
        edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins=_BINS)
        for (name, values), colour in zip(groups.items(), look.colours, strict=False):
            shares = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(shares, edges, color=colour, linewidth=1.4, label=f"{_label(name)} ({len(values):,})")
        axes.legend(frameon=False, labelcolor=look.ink, fontsize=10)
    axes.set_xlabel(block.axis, color=look.ink)
    axes.set_ylabel("비율 (%)", color=look.ink)


def _draw_scatter(axes: Axes, block: Scatter, look: Look) -> None:
    _prepare(axes, look)
    places = np.unique(np.linspace(0, len(block.truth) - 1, min(len(block.truth), _MOST_DOTS)).astype(int))
    truth, said = block.truth[places], block.predicted[places]
    low, high = float(min(truth.min(), said.min())), float(max(truth.max(), said.max()))
    axes.plot([low, high], [low, high], color=look.ink, linewidth=0.8, linestyle=":")
    axes.plot(truth, said, color=look.colours[0], marker="o", markersize=3, alpha=0.45, linestyle="none")
    axes.set_xlabel("정답", color=look.ink)
    axes.set_ylabel("예측", color=look.ink)


def _padded(values: np.ndarray) -> tuple[float, float]:
    """Return limits around values, wide enough that a small change does not look like a large one."""
    low, high = float(values.min()), float(values.max())
    room = max(0.06 * (high - low), 0.04 * abs(high)) or 0.1
    return low - room, high + room


def _prepare(axes: Axes, look: Look) -> None:
    axes.grid(color=look.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=look.ink, labelsize=10, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.line)


def _figure(size_in: tuple[float, float], look: Look) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout="constrained")
    if look.ground is None:
        figure.patch.set_visible(False)
    else:
        figure.patch.set_facecolor(look.ground)
    return figure


def _label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Return a label of the data as a picture shows it."""
    shown = printable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw with settings of our own, in this block alone: a label with `$` is no formula, text of SVG stays text."""
    from matplotlib import rc_context

    options = {
        "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "report",
        "axes.unicode_minus": False,  # the Korean font has no such sign
    }  # fmt: skip
    with rc_context(options), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # of characters that the font lacks, such as emoji
        yield


def _settle(figure: Figure) -> None:
    """Give every text the Korean font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    path = korean_font()
    figure.draw_without_rendering()  # makes the texts of the ticks
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontproperties(FontProperties(fname=str(path), size=text.get_fontsize()))


def _png(figure: Figure) -> bytes:
    _settle(figure)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=_DPI)
    return written.getvalue()


def _svg(draw: Callable[[Axes], None]) -> str:
    """Return a drawing as an `<svg>` element whose text is text, in the page's colours and font."""
    written = io.StringIO()
    with _drawing():
        figure = _figure(_SIZE_IN, PAGE)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        _settle(figure)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _of_page(written.getvalue())


def _of_page(svg: str) -> str:
    """Return matplotlib's file as an element of the page: its own size, names and fonts give way to the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r' id="(?![mp][0-9a-f]{8,}")[^"]*"', "", svg)  # other than clips and markers, which are referred to
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' d="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    for colour, variable in (_VARIABLES | _OVERLAID).items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\s*\n\s*", "\n", svg)
