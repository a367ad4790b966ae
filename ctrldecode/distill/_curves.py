"""The curves of a card: held-out and training nats a token over the tokens seen, as PNG. The only module that knows matplotlib."""

from __future__ import annotations

import io
from itertools import accumulate
from typing import TYPE_CHECKING

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "the curves of a card need matplotlib; install it with: pip install 'ctrldecode[plots]', or give --no-curves"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["curves"]


def curves(records: Sequence[dict[str, float]]) -> bytes:
    """A PNG of the figures of all updates; at least one."""
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    seen = [tokens / 1e6 for tokens in accumulate(record["tokens"] for record in records)]
    axes.plot(
        seen, [record["training"] for record in records], color="0.7", linewidth=1, label="training, before the update"
    )
    steps = [(x, record["held_out"]) for x, record in zip(seen, records, strict=True) if not record["pass_ends"]]
    passes = [(x, record["held_out"]) for x, record in zip(seen, records, strict=True) if record["pass_ends"]]
    axes.plot(*zip(*(steps or passes), strict=True), color="C0", linewidth=1, label="held out, some texts")
    axes.plot(*zip(*passes, strict=True), color="C0", linestyle="", marker="o", label="held out, at the ends of passes")
    axes.axhline(records[-1]["language_model"], color="C1", linestyle="--", label="the language model, held out")
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel("nats a token")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
