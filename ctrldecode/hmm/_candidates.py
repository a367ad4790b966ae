"""Weights of the likeliest tokens only, with a bound on what the others could have added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ctrldecode.hmm.lookahead import Lookahead, LookaheadState

__all__ = ["Truncation", "add"]

_FIRST = 64  # with a tolerance: how many tokens are weighed at first; then four times as many, and so on
_GROWTH = 4


@dataclass
class Truncation:
    """What candidate lists left out; the only thing in `Lookahead` that changes, and nothing it returns depends on it.

    Attributes:
        steps: rows weighed from candidates.
        tokens: candidates weighed, summed over them.
        largest: the greatest bound so far on the mass of the tokens left out over the mass kept (ψ ≤ 1 bounds what a token
            that was not weighed can be worth); inf if nothing kept had weight and all tokens were weighed.
    """

    steps: int = 0
    tokens: int = 0
    largest: float = 0.0


def add(potential: Lookahead, state: LookaheadState, scores: Tensor, candidates: float, account: Truncation) -> None:
    """Add the log-weights of candidates to scores in place; the other tokens get −inf.

    The likeliest tokens are weighed: `candidates` of them or, if it is below 1, as many as it takes until the rest, each worth at most
    ψ = 1, is below that fraction of the mass kept. A row of which nothing has weight is weighed over all tokens.

    Args:
        potential: a `Lookahead`.
        state: a state of B rows.
        scores: (B, V) log-probabilities up to a constant, with other potentials added or not.
        candidates: a number of tokens, or a tolerance.
        account: where to count.
    """
    size = scores.shape[1]
    tolerance = candidates if candidates < 1 else math.inf
    count = min(size, _FIRST if candidates < 1 else int(candidates))
    total = scores.float().logsumexp(-1, keepdim=True)
    log_probs = scores.float() - total.masked_fill(total.isneginf(), 0.0)
    log_psi = potential.log_psi(state).to(scores.device)
    while True:
        top, tokens = log_probs.topk(count)
        weights = potential.log_weights(state, tokens).to(scores.device)
        kept = (top + weights).logsumexp(-1)
        rest = torch.log1p(-top.exp().sum(-1).clamp_max(1.0)) if count < size else torch.full_like(kept, -math.inf)
        bound = (rest - kept - log_psi).exp().nan_to_num(nan=math.inf)
        if count == size or bool(((bound <= tolerance) & ~kept.isneginf()).all()):
            break
        count = size if bool(kept.isneginf().any()) else min(size, count * _GROWTH)
    account.steps += len(scores)
    account.tokens += count * len(scores)
    account.largest = max([account.largest, *bound[bound.isfinite()].tolist()])
    chosen = torch.full_like(scores, -math.inf)
    scores += chosen.scatter_(1, tokens, weights.to(chosen.dtype))
