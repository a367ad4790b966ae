"""The plots of a report, as PNG: log Z against model calls, and a histogram of weights. Needs matplotlib."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "the plots of a report need matplotlib; install it with: pip install 'ctrldecode[plots]'"
    ) from error

from ctrldecode.cli._sampling import running_log_z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.cli._sampling import Run

__all__ = ["log_z", "weights"]

_SHOWN = 8  # prompts with a line of their own


def log_z(runs: Sequence[Run]) -> bytes:
    """log of the mean weight, and the bound where there is one, after each text, over model calls."""
    figure, axes = _axes()
    for number, run in enumerate(runs[:_SHOWN]):
        calls, means, bounds = running_log_z(run.samples)
        colour = f"C{number}"
        label = run.prompt[:24] or "estimate"
        if run.samples.info.get("acceptance") is None:  # texts of equal weight say nothing of Z
            axes.plot(calls, means, color=colour, linewidth=1.2, label=label)
        else:
            axes.axhline(float(run.samples.log_z[0]), color=colour, linewidth=1.2, label=label)
        if bounds is not None:
            axes.plot(calls, bounds, color=colour, linestyle="--", linewidth=1, label="upper bound")
    axes.set_xlabel("model calls")
    axes.set_ylabel("log Z")
    axes.legend(frameon=False)
    return _png(figure)


def weights(runs: Sequence[Run]) -> bytes:
    """A histogram of log-weights, less the log of their mean; texts of weight 0 are counted in its title."""
    figure, axes = _axes()
    zero = 0
    for number, run in enumerate(runs[:_SHOWN]):
        own = run.samples.log_weights[0]
        live = own[~own.isneginf()]
        zero += len(own) - len(live)
        if len(live):
            centred = (live - float(run.samples.log_weights[0].logsumexp(0)) + math.log(len(own))).tolist()
            axes.hist(centred, bins=30, color=f"C{number}", alpha=0.6)
    axes.set_xlabel("log-weight − log of the mean weight")
    axes.set_ylabel("texts")
    if zero:
        axes.set_title(f"{zero} texts of weight 0 not shown", fontsize=9)
    return _png(figure)


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
