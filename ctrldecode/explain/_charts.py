"""Lines over the steps of a record, as SVG inside a page. It knows numbers and names only."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.explain._show import number
from ctrldecode.explain._verdict import titled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.explain.record import Trace

__all__ = ["charts"]

# In units of the drawing, which is scaled to the column it stands in; room for numbers at the left, and for steps below.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 480, 200, 62, 12, 26
_STYLES = 4  # kinds of line in page.css; more factors than that share them


class _Series(NamedTuple):
    name: str
    values: tuple[float, ...]  # one a step; −inf and NaN are gaps


def charts(trace: Trace) -> str:
    """The log-weight and the sums of the tokens' log-weights over the steps, as two figures; nothing where there are no steps."""
    if not trace.steps:
        return ""
    weights = [_Series("log-weight so far", tuple(step.log_weight for step in trace.steps))]
    sums = [
        _Series(titled(factor), tuple(step.effects[at].sum_log_weights for step in trace.steps))
        for at, factor in enumerate(trace.factors)
        if factor.kind != "support"
    ]
    if len(sums) != 1:
        sums.insert(0, _Series("all together", tuple(step.sum_log_weights for step in trace.steps)))
    return _figure("Log-weight so far, nat", weights) + _figure("Sum of the tokens’ log-weights, nat", sums)


def _figure(title: str, series: Sequence[_Series]) -> str:
    low, high = _range([value for one in series for value in one.values])
    steps = len(series[0].values)
    lines = "".join(_line(at % _STYLES, one.values, low, high) for at, one in enumerate(series))
    told = "; ".join(f"{one.name}: {number(one.values[-1])} at the end" for one in series)
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 32 12" aria-hidden="true"><path class="line s{at % _STYLES}" d="M0 6H32"/></svg>{escape(one.name)}</li>'
        for at, one in enumerate(series)
    )
    width = _WIDTH - _LEFT - 8
    cursor = f'<line class="cursor" data-left="{_LEFT}" data-width="{width}" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title} over the steps. {told}")}">'
        f"{_axes(low, high, steps)}{cursor}{lines}</svg><figcaption>{escape(title)}<ul>{keys}</ul></figcaption></figure>"
    )


def _range(values: list[float]) -> tuple[float, float]:
    """Lowest and highest finite value, 0 among them, with room between."""
    finite = [0.0, *(value for value in values if math.isfinite(value))]
    low, high = min(finite), max(finite)
    return (low, high) if high - low > 1e-3 else (low - 0.5, high + 0.5)


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(low: float, high: float, steps: int) -> str:
    apart = 16 / (_HEIGHT - _TOP - _BOTTOM) * (high - low)  # less than that, and the number would stand on that of 0
    marks = sorted({0.0, *(mark for mark in (low, high) if abs(mark) >= apart)})
    rules = "".join(
        f'<path class="axis" d="M{_LEFT} {_y(mark, low, high):.1f}H{_WIDTH - 8}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(mark, low, high) + 4:.1f}" text-anchor="end">{_mark(mark)}</text>'
        for mark in marks
    )
    below = _HEIGHT - 8
    last = f'<text x="{_WIDTH - 8}" y="{below}" text-anchor="end">{steps}</text>' if steps > 1 else ""
    return f'{rules}<text x="{_LEFT}" y="{below}">1</text>{last}'


def _mark(value: float) -> str:
    """A number beside an axis, with two digits behind the point at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-", "−")


def _line(style: int, values: Sequence[float], low: float, high: float) -> str:
    """A line through the finite values, broken where there are none, and a dot at the last of them."""
    width = _WIDTH - _LEFT - 8
    path, pen, last = "", "M", ""
    for at, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        x, y = _LEFT + width * at / max(1, len(values) - 1), _y(value, low, high)
        path += f"{pen}{x:.1f} {y:.1f}"
        pen = "L"
        last = f'<circle class="dot s{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<path class="line s{style}" d="{path}"/>{last}' if path else ""
