"""The edges of an HMM times a token automaton, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Edges"]


class Edges(NamedTuple):
    """What the recurrence over remaining tokens needs to know of the vocabulary.

    Attributes:
        source: (M,) int64, sorted. With target, the pairs (q, δ(q, v)) that some token leads along.
        target: (M,) int64.
        sums: (M, H) float32, Σ w(v) E(v, h) over the tokens v with δ(source, v) = target.
        final: (Q, H) float32, 1[q ∈ F] · Σ E(v, h) over the end-of-sequence tokens v.
    """

    source: Tensor
    target: Tensor
    sums: Tensor
    final: Tensor
