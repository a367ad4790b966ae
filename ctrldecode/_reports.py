"""What a processor did to a row, as values. It knows nothing of how they come about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Masked", "RowReport"]


class Masked(NamedTuple):
    """What one step removed: how many tokens the model allowed that became impossible, and their probability."""

    tokens: int
    mass: float


@dataclass(frozen=True)
class RowReport:
    """What was done to one row.

    Attributes:
        log_weight: Σ_t log Σ_v p(v | x_<t) ψ(x_<t·v) / ψ(x_<t), natural log: the importance weight of the row, when it was
            sampled, against the target p(x) ψ(x) / ψ(prompt). The mean of its exponential over samples estimates
            Z / ψ(prompt), Z = Σ_x p(x) ψ(x). −inf if the row met a dead end.
        steps: new tokens chosen, the end of sequence among them.
        masked: one entry a step.
        dead_end: whether every token of some step had weight zero.
        prompt: ids of the row's prompt, without padding.
        tokens: the new tokens, one a step; the one of a step that is being chosen is not known yet.
        log_probs: log p of each of these under the scores that came in, natural log; NaN where it is not known: a call for a draft
            came between, beams went on from another row, or other prompts have come since.
        log_sampled: log q of each of these, what it was sampled with, if nothing stood behind the processor; NaN as above. At a dead end q
            is what "stop" leaves, the ends of sequence alone, or 0.
        log_normalisers: log Σ_v p(v | x_<t) ψ(x_<t·v) / ψ(x_<t), one a step; they add up to the log-weight.
    """

    log_weight: float
    steps: int
    masked: tuple[Masked, ...]
    dead_end: bool
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    log_sampled: tuple[float, ...]
    log_normalisers: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """log p(x) − log q(x) of the new tokens: the importance weight against the model restricted to a set of texts.

        It is one for whatever way tokens were weighed, if every text of the set can be sampled and none outside it: hard conditions under a
        lookahead whose log-weights are no quotients of one ψ, such as one with patience, or under a support. The mean of its exponential over
        samples estimates the model's probability of the set. NaN where a step is not known, NaN or inf where a token was forbidden, −inf
        if the row met a dead end.
        """
        if self.dead_end:
            return -math.inf
        # A step that is being chosen has no token yet.
        steps = zip(self.log_probs, self.log_sampled, self.masked, strict=False)
        # Both are −inf where padding is impossible, and where a token is that was forbidden, which is no sample.
        return math.fsum(0.0 if p == q and not removed.tokens else p - q for p, q, removed in steps)
