"""Stepwise EM of a hidden Markov model with an absorbing end, as a pure pair (init, step).

The state is the expected statistics of one sequence; a step moves them towards those of a batch and the parameters are read
off (Cappé & Moulines 2009, "On-line expectation-maximization algorithm for latent data models"). With rate 1 and all data in
the batch it is plain EM. It knows nothing of files, of language models or of how batches are chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ctrldecode.kernels.hmm import _em_torch as kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctrldecode.distill.workers import Workers

__all__ = ["EMInfo", "EMState", "Parameters", "Prior", "expect", "init", "log_likelihood", "move", "parameters", "step"]


class Parameters(NamedTuple):
    """A hidden Markov model: initial (H,), transition (H, H), emission (V, H) token-major."""

    initial: Tensor
    transition: Tensor
    emission: Tensor


class Prior(NamedTuple):
    """What is known before any data: Dirichlet pseudocounts, and that the last state is the end.

    Attributes:
        tokens: (V,) distribution over tokens that pseudo-emissions have; positive.
        eos_token_ids: ids that the last state emits, and no other.
        sequences: how many sequences the data have; the statistics are multiplied by it before pseudocounts are added.
        emission: pseudo-emissions a state; 0 only where every state is sure to emit.
        transition: pseudo-moves a state, and as many pseudo-beginnings; 0 only where every state is sure to move.
    """

    tokens: Tensor
    eos_token_ids: tuple[int, ...]
    sequences: int
    emission: float
    transition: float


class EMState(NamedTuple):
    """Expected statistics of one sequence, and how many steps were taken.

    Attributes:
        initial: (H,) of the first state.
        transition: (H, H) of moves.
        emission: (V, H) of emissions.
        updates: steps so far.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor
    updates: int


class EMInfo(NamedTuple):
    """What a step saw.

    Attributes:
        log_likelihood: Σ log P(x) of its batch under the parameters before it.
        rate: how far the statistics moved.
    """

    log_likelihood: float
    rate: float


def init(initial: Tensor, transition: Tensor, emission: Tensor, sequences: int) -> EMState:
    """A state from counts of some sequences: initial (H,), transition (H, H), emission (V, H)."""
    return EMState(initial / sequences, transition / sequences, emission / sequences, 0)


def move(state: EMState, device: torch.device) -> EMState:
    """The state on a device."""
    return EMState(state.initial.to(device), state.transition.to(device), state.emission.to(device), state.updates)


def step(state: EMState, counts: kernel.Counts, sequences: int, forgetting: float) -> tuple[EMState, EMInfo]:
    """Move the statistics towards those of a batch: S ← (1 − ρ) S + ρ s, ρ = (updates + 2)^−forgetting.

    Args:
        state: before; it stays valid.
        counts: the expected counts of the batch under `parameters(state, prior)`, from `expect`.
        sequences: how many sequences they are of.
        forgetting: in (0.5, 1], for which the steps converge; 0 is plain EM, ρ = 1.
    """
    rate = (state.updates + 2) ** -forgetting
    initial = torch.lerp(state.initial, counts.initial / sequences, rate)
    transition = torch.lerp(state.transition, counts.transition / sequences, rate)
    emission = torch.lerp(state.emission, counts.emission / sequences, rate)
    return EMState(initial, transition, emission, state.updates + 1), EMInfo(float(counts.log_likelihood), rate)


def parameters(state: EMState, prior: Prior) -> Parameters:
    """The maximum of likelihood and prior together, given the statistics.

    The last state emits the ends of sequence and leads to itself; the others emit everything else.
    """
    states = len(state.initial)
    initial = state.initial * prior.sequences + prior.transition / states
    transition = state.transition * prior.sequences + prior.transition / states
    emission = torch.addmm(state.emission, prior.tokens[:, None], _ones(state, prior), beta=prior.sequences)
    ends = torch.tensor(prior.eos_token_ids, device=emission.device)
    last = emission[ends, -1] + prior.tokens[ends]  # so that an end that was never seen is one all the same
    emission[ends] = 0
    emission[:, -1] = 0
    emission[ends, -1] = last
    transition[-1] = 0
    transition[-1, -1] = 1
    return Parameters(
        initial / initial.sum(), transition / transition.sum(1, keepdim=True), emission.div_(emission.sum(0))
    )


def expect(model: Parameters, batches: Iterable[tuple[Tensor, Tensor]], workers: Workers) -> kernel.Counts:
    """Expected counts of batches of (tokens (B, T), lengths (B,)), summed over them and over all processes."""
    counts = kernel.zero_counts(len(model.initial), len(model.emission), model.initial.device)
    for tokens, lengths in batches:
        kernel.expected_counts(*model, tokens, lengths, counts)
    workers.sum_(*counts)
    return counts


def log_likelihood(model: Parameters, batches: Iterable[tuple[Tensor, Tensor]], workers: Workers) -> float:
    """Σ log P(x) over batches and processes."""
    total = torch.zeros((), dtype=torch.float64, device=model.initial.device)
    for tokens, lengths in batches:
        total += kernel.log_likelihood(*model, tokens, lengths).sum()
    workers.sum_(total)
    return float(total)


def _ones(state: EMState, prior: Prior) -> Tensor:
    """(1, H): pseudo-emissions of each state."""
    return torch.full((1, len(state.initial)), float(prior.emission), device=state.emission.device)
