"""Curves of cost against size as SVG for the documentation, legible on a light and on a dark page. It knows nothing of what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Panel", "draw"]

_GREY = "#808080"  # between black and white: 3.9 to 1 against either
_COLOURS = ("#2f7ed8", "#d9730d", "#3c9a5f", "#b0529e")  # each at least 3 to 1 against white and against slate
_MARKS = "osD^"


class Panel(NamedTuple):
    """One set of axes, both logarithmic: lines by name, each (x, y) pairs."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Panels side by side into a file; the same numbers give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": path.stem,
        "svg.fonttype": "none",
        "text.color": _GREY,
        "axes.labelcolor": _GREY,
        "axes.edgecolor": _GREY,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
    }
    with rc_context(settings):
        figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for (name, points), colour, mark in zip(panel.lines.items(), _COLOURS, _MARKS, strict=False):
                axes.plot(*zip(*points, strict=True), marker=mark, markersize=4, color=colour, label=name)
            axes.set(xscale="log", yscale="log", title=panel.title, xlabel=panel.across, ylabel=panel.up)
            axes.patch.set_alpha(0)
            axes.grid(alpha=0.3)
            axes.legend(framealpha=0, fontsize=8)
        figure.patch.set_alpha(0)
        figure.savefig(path, format="svg", metadata={"Date": None})
