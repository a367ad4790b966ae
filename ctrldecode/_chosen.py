"""Log-probabilities of the tokens that were chosen, noted while the scores that they were chosen from are at hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode._prefixes import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Chosen"]


class _Scores(NamedTuple):
    """What gives log p of the next tokens: digests of the rows, (B, V), and what to take away, (B,), or None for nothing."""

    ends: list[bytes]
    scores: Tensor
    log_totals: Tensor | None
    version: int  # of the scores, which belong to the caller


class Chosen:
    """log p of the last token of a prefix, by digests of prefixes.

    Args:
        max_entries: how many are kept.
    """

    def __init__(self, max_entries: int) -> None:
        self._known = Ledger(max_entries)
        self._last: _Scores | None = None

    def offer(self, ends: list[bytes], scores: Tensor, log_totals: Tensor | None) -> None:
        """Scores (B, V) of the tokens that may follow rows; log p is these less the log totals (B,), if there are any.

        A single row of scores that came in is copied: who verifies a draft writes what it gets over what it gave. More rows would cost
        a pass over memory, as would those that went out, which have no log totals; they are not known any more once written over.
        """
        single = len(scores) == 1 and log_totals is not None
        kept = scores.clone() if single or scores.is_inference() else scores
        self._last = _Scores(ends, kept, log_totals, _version(kept))

    def note(self, keys: Sequence[list[bytes]], tokens: Sequence[int]) -> None:
        """Rows that may have been chosen from the last scores: per row its digests, with its last token and without it."""
        rows: list[bytes] = []
        values: list[list[float]] = []
        for own, token in zip(keys, tokens, strict=True):
            value = self._from_last(own[0], token) if len(own) > 1 else None
            if value is not None:
                rows.append(own[-1])
                values.append([value])
        if rows:
            self._known.put(rows, np.array(values))

    def log_prob(self, before: bytes, after: bytes, token: int) -> float:
        """log p of a token between two prefixes; NaN where it is not known."""
        known = self._known.get(after)
        value = self._from_last(before, token) if known is None else float(known[0])
        return math.nan if value is None else value

    def _from_last(self, before: bytes, token: int) -> float | None:
        if self._last is None or before not in self._last.ends or self._last.version != _version(self._last.scores):
            return None
        row = self._last.ends.index(before)
        value = self._last.scores[row, token].item()
        return value if self._last.log_totals is None else value - self._last.log_totals[row].item()


def _version(scores: Tensor) -> int:
    """How often a tensor was written to, which tensors made in inference mode do not count."""
    return 0 if scores.is_inference() else scores._version  # noqa: SLF001  autograd's counter of writes has no other name
