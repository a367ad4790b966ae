"""The E-step of EM in numpy float64, a sequence at a time: the oracle of `_em_torch`. Forward-backward as in Rabiner (1989)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "expected_counts", "log_likelihood"]

Array = NDArray[np.float64]


class Counts(NamedTuple):
    """Expected sufficient statistics of a set of sequences.

    Attributes:
        initial: (H,) Σ P(z_0 = h | x).
        transition: (H, H) Σ_t P(z_t = h, z_{t+1} = h' | x).
        emission: (V, H) Σ_{t: x_t = v} P(z_t = h | x), of observed tokens.
        log_likelihood: Σ log P(x), −inf if one of them is impossible; those add nothing to the rest.
    """

    initial: Array
    transition: Array
    emission: Array
    log_likelihood: float


def expected_counts(
    initial: Array, transition: Array, emission: Array, tokens: NDArray[np.integer], lengths: NDArray[np.integer]
) -> Counts:
    """Expected counts under (initial (H,), transition (H, H), emission (V, H)).

    Args:
        initial: (H,) P(z_0).
        transition: (H, H) P(z_{t+1} = column | z_t = row).
        emission: (V, H) P(x_t = row | z_t = column).
        tokens: (B, T), −1 where a token is missing: its emission is 1 in every state.
        lengths: (B,) how many positions of each row belong to it.
    """
    total = Counts(np.zeros_like(initial), np.zeros_like(transition), np.zeros_like(emission), 0.0)
    log_likelihood = 0.0
    for row, length in zip(tokens, lengths, strict=True):
        if length:
            log_likelihood += _add(total, initial, transition, emission, row[:length])
    return total._replace(log_likelihood=log_likelihood)


def log_likelihood(
    initial: Array, transition: Array, emission: Array, tokens: NDArray[np.integer], lengths: NDArray[np.integer]
) -> Array:
    """log P(x) of every row, (B,); arguments as for `expected_counts`."""
    pairs = zip(tokens, lengths, strict=True)
    evidences = [_forward(initial, transition, _likelihoods(emission, row[:length]))[1] for row, length in pairs]
    with np.errstate(divide="ignore"):
        return np.array([float(np.log(evidence).sum()) for evidence in evidences])


def _add(total: Counts, initial: Array, transition: Array, emission: Array, tokens: NDArray[np.integer]) -> float:
    """Add the counts of one sequence to the arrays of `total`; its log-likelihood."""
    likelihoods = _likelihoods(emission, tokens)
    filtered, evidence = _forward(initial, transition, likelihoods)
    if not evidence.all():
        return -np.inf
    backward = np.ones_like(filtered)
    for t in range(len(tokens) - 2, -1, -1):
        ratio = likelihoods[t + 1] * backward[t + 1] / evidence[t + 1]
        total.transition[:] += filtered[t][:, None] * transition * ratio
        backward[t] = transition @ ratio
    posterior = filtered * backward
    total.initial[:] += posterior[0]
    for token, weights in zip(tokens, posterior, strict=True):
        if token >= 0:
            total.emission[token] += weights
    return float(np.log(evidence).sum())


def _forward(initial: Array, transition: Array, likelihoods: Array) -> tuple[Array, Array]:
    """(T, H) P(z_t | x_≤t), and (T,) P(x_t | x_<t); both 0 from where the sequence becomes impossible."""
    filtered, evidence = np.zeros_like(likelihoods), np.zeros(len(likelihoods))
    predicted = initial
    for t, likelihood in enumerate(likelihoods):
        joint = predicted * likelihood
        evidence[t] = joint.sum()
        if evidence[t] == 0:
            break
        filtered[t] = joint / evidence[t]
        predicted = filtered[t] @ transition
    return filtered, evidence


def _likelihoods(emission: Array, tokens: NDArray[np.integer]) -> Array:
    """(T, H) P(x_t | z_t = h), ones where the token is missing."""
    return np.where(tokens[:, None] >= 0, emission[tokens], 1.0)
