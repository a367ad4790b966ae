"""Weights of the likeliest tokens only, with a bound on what the others could have added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["Truncation", "add"]

_FIRST = 64  # with a tolerance: how many tokens are weighed at first; then four times as many, and so on
_GROWTH = 4


@dataclass
class Truncation:
    """What candidate lists left out; the only thing in `Lookahead` that changes, and nothing it returns depends on it.

    Attributes:
        steps: rows weighed from candidates.
        tokens: candidates weighed, summed over them.
        largest: the greatest bound so far on the mass of the tokens left out over the mass kept (the largest β of the state that a
            token leads to bounds what it can be worth).
    """

    steps: int = 0
    tokens: int = 0
    largest: float = 0.0


def add(
    scores: Tensor,
    weigh: Callable[[Tensor], Tensor],
    bounds: Tensor,
    log_psi: Tensor,
    candidates: float,
    account: Truncation,
) -> None:
    """Add the log-weights of candidates to scores in place; the other tokens get −inf.

    Candidates are the tokens with the largest bound on p(v)·ψ(x·v): `candidates` of them or, if it is below 1, as many as it takes
    until the bounds of the others add up to less than that fraction of the mass kept. A row of which nothing has weight is
    weighed over all tokens.

    Args:
        scores: (B, V) log-probabilities up to a constant, with other potentials added or not.
        weigh: from tokens (B, K) to their log-weights (B, K).
        bounds: (B, V) upper bounds of log ψ(x·v), ψ being what `weigh` gives the increments of: a lookahead or a power of it.
        log_psi: (B,) log ψ(x).
        candidates: a number of tokens, or a tolerance.
        account: where to count.
    """
    size = scores.shape[1]
    tolerance = candidates if candidates < 1 else math.inf
    count = min(size, _FIRST if candidates < 1 else int(candidates))
    total = scores.float().logsumexp(-1, keepdim=True)
    log_probs = scores.float() - total.masked_fill(total.isneginf(), 0.0)
    most = log_probs + bounds
    while True:
        tokens = most.topk(count).indices
        weights = weigh(tokens)
        kept = (log_probs.gather(1, tokens) + weights).logsumexp(-1)
        rest = most.scatter(1, tokens, -math.inf).logsumexp(-1)
        bound = (rest - kept - log_psi).exp().nan_to_num(nan=math.inf).masked_fill(rest.isneginf(), 0.0)
        empty = kept.isneginf()
        if count == size or bool(((bound <= tolerance) & ~empty).all()):
            break
        count = size if bool(empty.any()) else min(size, count * _GROWTH)
    account.steps += len(scores)
    account.tokens += count * len(scores)
    account.largest = max([account.largest, *bound[bound.isfinite()].tolist()])
    chosen = torch.full_like(scores, -math.inf)
    scores += chosen.scatter_(1, tokens, weights.to(chosen.dtype))
