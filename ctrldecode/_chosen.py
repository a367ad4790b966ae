"""Log-probabilities of the tokens that were chosen, noted while the scores that they were chosen from are at hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode._prefixes import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Chosen"]


class _Scores(NamedTuple):
    """Scores (B, V) of the next tokens, and what to take away to have log-probabilities, (B,); None for nothing."""

    scores: Tensor
    log_totals: Tensor | NDArray[np.float64] | None
    version: int  # of the scores, which belong to the caller

    def log_prob(self, row: int, token: int) -> float:
        """NaN where the scores were written over."""
        if self.version != _version(self.scores):
            return math.nan
        value = self.scores[row, token].item()
        return value if self.log_totals is None else value - float(self.log_totals[row])


class _Offer(NamedTuple):
    """What tokens were chosen from: digests of the rows, the scores that came in, and those that went out."""

    ends: list[bytes]
    came: _Scores
    went: _Scores


class Chosen:
    """log p and log q of the last token of a prefix, by digests of prefixes: under the scores that came in, and those that went out.

    Args:
        max_entries: how many are kept.
    """

    def __init__(self, max_entries: int) -> None:
        self._known = Ledger(max_entries)
        self._last: _Offer | None = None

    def offer(
        self,
        ends: list[bytes],
        scores: Tensor,
        log_totals: Tensor | None,
        out: Tensor,
        log_normalisers: NDArray[np.float64],
    ) -> None:
        """What rows may go on with.

        A single row of scores that came in is copied: who verifies a draft writes what it gets over what it gave. More rows would cost
        a pass over memory, as would those that went out; they are not known any more once written over.

        Args:
            ends: digests of the rows.
            scores: (B, V) that came in.
            log_totals: (B,) what to take away from them for log p; None where those that went out are log p of all that is allowed.
            out: (B, V) that went out.
            log_normalisers: (B,) what to take away from them for log q.
        """
        went = _kept(out, log_normalisers)
        came = (
            went._replace(log_totals=None) if log_totals is None else _kept(scores, log_totals, copy=len(scores) == 1)
        )
        self._last = _Offer(ends, came, went)

    def note(self, keys: Sequence[list[bytes]], tokens: Sequence[int]) -> None:
        """Rows that may have been chosen from the last scores: per row its digests, with its last token and without it."""
        rows: list[bytes] = []
        values: list[tuple[float, float]] = []
        for own, token in zip(keys, tokens, strict=True):
            value = self._from_last(own[0], token) if len(own) > 1 else None
            if value is not None:
                rows.append(own[-1])
                values.append(value)
        if rows:
            self._known.put(rows, np.array(values))

    def log_probs(self, before: bytes, after: bytes, token: int) -> tuple[float, float]:
        """log p and log q of a token between two prefixes; NaN where one is not known."""
        known = self._known.get(after)
        value = self._from_last(before, token) if known is None else (float(known[0]), float(known[1]))
        return (math.nan, math.nan) if value is None else value

    def _from_last(self, before: bytes, token: int) -> tuple[float, float] | None:
        if self._last is None or before not in self._last.ends:
            return None
        row = self._last.ends.index(before)
        found = self._last.came.log_prob(row, token), self._last.went.log_prob(row, token)
        return None if math.isnan(found[0]) and math.isnan(found[1]) else found


def _kept(scores: Tensor, log_totals: Tensor | NDArray[np.float64], *, copy: bool = False) -> _Scores:
    kept = scores.clone() if copy or scores.is_inference() else scores
    return _Scores(kept, log_totals, _version(kept))


def _version(scores: Tensor) -> int:
    """How often a tensor was written to, which tensors made in inference mode do not count."""
    return 0 if scores.is_inference() else scores._version  # noqa: SLF001  autograd's counter of writes has no other name
