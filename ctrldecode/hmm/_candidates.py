"""Weights of the likeliest tokens only, with a bound on what the others could have added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["Truncation", "add"]

_LEAST = 64  # with a tolerance: how many tokens are weighed at least
_CAUTION = 0.7  # of the tolerance, where what is kept is only guessed: a few tokens more, and a second round in one of six steps
_LITTLE = 1e-25  # of the largest bound: where less is kept, bounds tell nothing, and single precision little


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
    finished: Tensor,
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
        finished: (B,) bool, rows whose scores stay as they are, whichever tokens are candidates.
        candidates: a number of tokens, or a tolerance.
        account: where to count.
    """
    if not len(scores):
        return
    size = scores.shape[1]
    tolerance = candidates if candidates < 1 else math.inf
    came = scores.float()
    most = (came + bounds).masked_fill_(finished[:, None], -math.inf)
    top = most.amax(-1)
    top = top.masked_fill(top.isneginf(), 0.0)
    mass = (most - top[:, None]).double().exp_()
    if candidates < 1:
        if_the_hmm_were_the_model = (came.logsumexp(-1).double() + log_psi - top).exp()
        tokens = _largest(mass, _LEAST, _CAUTION * tolerance * if_the_hmm_were_the_model)
    else:
        tokens = most.topk(min(size, int(candidates))).indices
    while True:
        count = tokens.shape[1]
        weights = weigh(tokens)
        kept = (came.gather(1, tokens) + weights).logsumexp(-1)
        least = (kept.double() + log_psi - top).exp()  # in the units of `mass`
        rest = mass.scatter(1, tokens, 0.0).sum(-1)
        found: list[float] = (
            (rest / least).nan_to_num(nan=math.inf, posinf=math.inf).tolist() if count < size else [0.0]
        )
        if count == size or (-math.inf not in kept.tolist() and all(bound <= tolerance for bound in found)):
            break
        # What is kept only grows, so that as many as leave little enough beside it are enough, but for rounding and for ties.
        tokens = _largest(mass, size if bool((least < _LITTLE).any()) else count + _LEAST, tolerance * least)
    account.steps += len(scores)
    account.tokens += count * len(scores)
    account.largest = max(account.largest, *found)
    chosen = scores.gather(1, tokens).add_(weights)  # rounded once, as all tokens are without candidates
    scores.masked_fill_(~finished[:, None], -math.inf).scatter_(1, tokens, chosen)


def _largest(mass: Tensor, least: int, limit: Tensor) -> Tensor:
    """Tokens (B, K), in their own order, with the largest mass (B, V), the others having no more than the limit, (B,), together.

    K is the same for all rows, and at least `least`.
    """
    mass = mass.float()  # enough to choose by
    # numpy sorts in vector registers: 0.1 ms for 50,257 numbers, where torch takes 2.9.
    ordered = torch.from_numpy(np.sort(mass.numpy())) if mass.device.type == "cpu" else mass.sort().values
    size = mass.shape[1]
    wanted = (
        (ordered.cumsum(-1, dtype=torch.float64) > limit[:, None]).sum(-1).max()
    )  # smallest first, each with all below it
    count = min(size, max(least, int(wanted)))
    if len(mass) == 1 and (smallest := float(ordered[0, size - count])) > 0:
        return (mass[0] >= smallest).nonzero()[:, 0][None]  # `topk` takes ten times as long
    return mass.topk(count, sorted=False).indices.sort().values
