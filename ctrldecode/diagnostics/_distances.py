"""How far weighted samples are from a target that is known exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.diagnostics._exact import Distribution

__all__ = ["Distances", "Interval", "distances"]

_RESAMPLES = 1000


class Interval(NamedTuple):
    """An estimate with the 2.5 % and 97.5 % quantiles of its bootstrap distribution.

    Distances of empirical distributions are biased upwards, and resampling adds as much again: of few samples, the interval may lie
    above the estimate.
    """

    value: float
    low: float
    high: float


class Distances(NamedTuple):
    """How far weighted samples q̂ are from a target π.

    Attributes:
        kl: KL(q̂ ‖ π), in nats; +inf if a sample lies outside the target. Of few samples it is too large: a sample of n from π itself
            has about (number of texts − 1) / 2n.
        reverse_kl: KL(π ‖ q̂); +inf unless every text of the target was sampled.
        total_variation: ½ Σ |q̂ − π|, in 0 to 1.
        unseen: π's mass on texts that were not sampled.
    """

    kl: Interval
    reverse_kl: Interval
    total_variation: Interval
    unseen: float


def distances(
    texts: Sequence[Sequence[int]],
    log_weights: Tensor,
    target: Distribution,
    *,
    rng: np.random.Generator,
    resamples: int = _RESAMPLES,
) -> Distances:
    """How far weighted samples of one prompt are from the exact target, with bootstrap intervals over the samples.

    Args:
        texts: n texts as ids, such as `samples.tokens[0]`.
        log_weights: (n,), such as `samples.log_weights[0]`.
        target: from `exact`.
        rng: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: there is no text of positive weight.
    """
    weights = (log_weights.double() - log_weights.double().max()).exp().nan_to_num(0.0).numpy()
    if not len(weights) or not weights.sum() > 0:
        raise InputError("distances wants at least one text of positive weight; draw more samples")
    support = {text: place for place, text in enumerate(target.texts)}
    outside = len(support)
    places = np.array([support.get(tuple(text), outside) for text in texts])
    log_pi = np.append(target.log_probs, -math.inf)

    def measured(picked: NDArray[np.int64]) -> tuple[float, float, float]:
        mass = np.bincount(places[picked], weights[picked], minlength=outside + 1)
        return _measured(mass / mass.sum(), log_pi)

    whole = measured(np.arange(len(texts)))
    drawn = np.array([measured(rng.integers(len(texts), size=len(texts))) for _ in range(resamples)]).reshape(-1, 3)
    # Of a distance that is +inf in the sample itself, the quantiles are not worth having.
    ends = (
        np.quantile(np.nan_to_num(drawn, posinf=1e308), [0.025, 0.975], axis=0) if resamples else np.tile(whole, (2, 1))
    )
    low, high = ends.tolist()
    intervals = [
        Interval(value, low[i], high[i]) if math.isfinite(value) else Interval(value, value, value)
        for i, value in enumerate(whole)
    ]
    seen = np.unique(places[weights > 0])
    unseen = 1.0 - float(np.exp(log_pi[seen]).sum())
    return Distances(intervals[0], intervals[1], intervals[2], max(0.0, unseen))


def _measured(q: NDArray[np.float64], log_pi: NDArray[np.float64]) -> tuple[float, float, float]:
    """KL(q ‖ π), KL(π ‖ q), total variation."""
    pi = np.exp(log_pi)
    here = q > 0
    forward = float((q[here] * (np.log(q[here]) - log_pi[here])).sum())
    there = pi > 0
    with np.errstate(divide="ignore"):
        reverse = float((pi[there] * (log_pi[there] - np.log(q[there]))).sum())
    return forward, reverse, float(np.abs(q - pi).sum() / 2)
