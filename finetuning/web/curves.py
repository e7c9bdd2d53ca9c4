"""The curves of a run that trains now, as small SVG: drawn anew every few seconds, without a plotting library."""

from __future__ import annotations

import numpy as np

from finetuning.reporting.page.curves import Chart, Line
from finetuning.web.shown import shown

_WIDE, _HIGH, _LEFT, _EDGE = 360, 150, 62, 16


def drawn(chart: Chart) -> str:
    """Return a chart as a figure with a caption."""
    x, y = np.concatenate([line.x for line in chart.lines]), np.concatenate([line.y for line in chart.lines])
    good = np.isfinite(y)
    if not good.any():
        return ""
    low, high, last = float(y[good].min()), float(y[good].max()), float(x.max())
    spread, first = (high - low) or 1.0, float(x.min())

    def path(line: Line) -> str:
        across = _LEFT + (line.x - first) / ((last - first) or 1.0) * (_WIDE - _LEFT - _EDGE)
        down = _EDGE + (high - line.y) / spread * (_HIGH - 2 * _EDGE)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True) if np.isfinite(b))

    lines = "".join(
        f"<polyline class='line-{number}' points='{path(line)}'/>"
        + "".join(f"<circle class='line-{number}' cx='{point.split(',')[0]}' cy='{point.split(',')[1]}' r='3'/>"
                  for point in path(line).split() if line.has_points or len(line.x) == 1)
        for number, line in enumerate(chart.lines)
    )  # fmt: skip
    axis = (
        f"<text x='{_LEFT - 6}' y='{_EDGE + 4}' text-anchor='end'>{high:.3g}</text>"
        f"<text x='{_LEFT - 6}' y='{_HIGH - _EDGE + 4}' text-anchor='end'>{low:.3g}</text>"
        f"<text x='{_WIDE - _EDGE}' y='{_HIGH - 1}' text-anchor='end'>{last:,.0f}</text>"
    )
    names = ", ".join(f"{line.name} {line.y[-1]:.4g}" for line in chart.lines if len(line.y))
    legend = "".join(
        f"<span class='line-{number}'>● {shown(line.name)} {line.y[-1]:.4g}</span>"
        for number, line in enumerate(chart.lines)
    )
    return (
        f"<figure class='curve'><figcaption>{shown(chart.title)}</figcaption>"
        f"<svg viewBox='0 0 {_WIDE} {_HIGH}' role='img' aria-label='{shown(chart.title)}: {shown(names)}'>"
        f"{lines}{axis}</svg><div class='legend'>{legend}</div></figure>"
    )
