"""Filtering, smoothing and the best path of an HMM over batches of tokens, in float64.

For single steps over large matrices, as generation needs them, see `ctrldecode.kernels.hmm`; here a whole sequence is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ctrldecode.errors import InputError
from ctrldecode.hmm._batches import MISSING
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from torch import Tensor

    from ctrldecode.hmm._batches import Batch
    from ctrldecode.hmm.model import HMM

__all__ = ["Filtered", "StatePath", "forward", "posterior", "viterbi"]


class Filtered(NamedTuple):
    """What an HMM knows of its states after each token; see `HMM.filter`.

    Attributes:
        posterior: (B, T, H) float64, P(z_t | x_1 … x_t).
        predicted: (B, H) float64, P(z_{T+1} | x_1 … x_T).
        log_evidence: (B, T) float64, log P(x_t | x_<t).
    """

    posterior: Tensor
    predicted: Tensor
    log_evidence: Tensor


class StatePath(NamedTuple):
    """The most probable states of sequences; see `HMM.viterbi`.

    Attributes:
        states: (B, T) long, −1 behind the end of a sequence.
        log_prob: (B,) float64, of states and tokens together.
    """

    states: Tensor
    log_prob: Tensor


def forward(hmm: HMM, batch: Batch) -> Filtered:
    """The scaled forward recursion (Rabiner 1989, section V.A)."""
    transition, real = hmm.transition.double(), batch.real
    predicted = hmm.initial.double().expand(len(batch.tokens), -1)
    shape = (*batch.tokens.shape, hmm.states)
    posterior = predicted.new_zeros(shape)
    log_evidence = predicted.new_zeros(shape[:2])
    for t in range(shape[1]):
        joint = predicted * _evidence(hmm, batch.tokens[:, t])  # (B, H)
        total = joint.sum(1)
        known = batch.tokens[:, t] != MISSING
        log_evidence[:, t] = torch.where(known, total.log(), 0.0)
        state = torch.where((total > 0)[:, None], joint, predicted)
        state = state / state.sum(1, keepdim=True)
        posterior[:, t] = state.masked_fill(~real[:, t, None], 0.0)
        predicted = torch.where(real[:, t, None], state @ transition, predicted)
    return Filtered(posterior, predicted, log_evidence)


def posterior(hmm: HMM, batch: Batch) -> Tensor:
    """γ_t ∝ α̂_t ∘ b_t with b_t = A (E(x_{t+1}) ∘ b_{t+1}), each b_t scaled to a largest entry of 1; (B, T, H)."""
    alphas, _, log_evidence = forward(hmm, batch)
    _check_possible(log_evidence)
    transition, real = hmm.transition.double(), batch.real
    backward = alphas.new_ones(len(alphas), hmm.states)
    gammas = torch.zeros_like(alphas)
    for t in range(alphas.shape[1] - 1, -1, -1):
        gamma = alphas[:, t] * backward
        gammas[:, t] = gamma / gamma.sum(1, keepdim=True).clamp_min(torch.finfo(gamma.dtype).tiny)  # 0 / tiny: padding
        before = (_evidence(hmm, batch.tokens[:, t]) * backward) @ transition.T
        before = before / before.amax(1, keepdim=True)
        backward = torch.where(real[:, t, None], before, backward)
    return gammas


def viterbi(hmm: HMM, batch: Batch) -> StatePath:
    """The max-product recursion in logarithms; one sequence at a time, since each step fills an (H, H) matrix."""
    log_initial, log_transition = hmm.initial.double().log(), hmm.transition.double().log()
    states = torch.full_like(batch.tokens, -1)
    log_prob = log_initial.new_zeros(len(states))
    for row, length in enumerate(batch.lengths.tolist()):
        if length:
            emits = _evidence(hmm, batch.tokens[row, :length]).log()  # (T, H)
            states[row, :length], log_prob[row] = _best_path(log_initial, log_transition, emits)
    _check_possible(log_prob[:, None])
    return StatePath(states, log_prob)


def _best_path(log_initial: Tensor, log_transition: Tensor, emits: Tensor) -> tuple[Tensor, Tensor]:
    """States (T,) and their log-probability, from log-emissions (T, H)."""
    scores = log_initial + emits[0]
    origins: list[Tensor] = []
    for emit in emits[1:]:
        best, origin = (scores[:, None] + log_transition).max(0)
        scores = best + emit
        origins.append(origin)
    log_prob, state = scores.max(0)
    path = [state]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return torch.stack(path[::-1]), log_prob


def _evidence(hmm: HMM, tokens: Tensor) -> Tensor:
    """E(h, x) for tokens (N,), (N, H) float64; ones for a token that is not known."""
    rows = kernels.rows(hmm.emission, tokens.clamp_min(0)).double()
    return rows.masked_fill((tokens == MISSING)[:, None], 1.0)


def _check_possible(log_probs: Tensor) -> None:
    """Raise for a row of log-probabilities (B, T) that holds −inf."""
    impossible = log_probs.isneginf()
    if bool(impossible.any()):
        row, position = (int(i) for i in impossible.nonzero()[0])
        raise InputError(
            f"sequence {row} has probability 0 under the HMM, which cannot emit it from token {position} on, so that no states "
            "explain it; leave it out, put -1 for the token, or distil with a pseudocount"
        )
