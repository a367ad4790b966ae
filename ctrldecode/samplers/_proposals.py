"""Ways to choose the next token of every particle, each with the weight that makes up for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ctrldecode.core.potential import take
from ctrldecode.errors import InputError
from ctrldecode.samplers._population import Chosen, rank_within

if TYPE_CHECKING:
    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._population import Proposal
    from ctrldecode.samplers._problem import Problem

__all__ = ["draw", "forced", "masked", "rejecting"]

# Candidates that are looked at first; then twice as many, until one is allowed. A model's own choices are mostly fine.
_FIRST = 16


def masked(target: tuple[Potential[Any], int], proposal: tuple[Potential[Any], int] | None = None) -> Proposal:
    """v ~ q(v | x) ∝ p(v | x) · the proposal's weight, by default the target's; weight p(v | x) · target / q(v | x).

    Args:
        target: ψ and its place among the states.
        proposal: the same of another potential whose weights tilt the choice.
    """

    def choose(
        problem: Problem, controls: tuple[Any, ...], log_probs: Tensor, index: Tensor, rng: torch.Generator
    ) -> Chosen:
        del problem
        potential, place = target
        scores = _weighed(potential, controls[place], log_probs)
        tilted = scores if proposal is None else _weighed(proposal[0], controls[proposal[1]], log_probs)
        normalisers, tokens = draw(tilted, index, rng)
        log_weights = normalisers[index] + (scores[index, tokens].double() - tilted[index, tokens].double()).nan_to_num(
            -math.inf,
            neginf=-math.inf,  # both are −inf in a dead end
        )
        return Chosen(tokens, log_weights)

    return choose


def forced(
    choose: Proposal,
    target: tuple[Potential[Any], int],
    proposal: tuple[Potential[Any], int] | None,
    particles: Tensor,
    tokens: Tensor,
) -> Proposal:
    """As `choose`, but some of the particles (F,) take given tokens (F,): the retained ones of conditional SMC."""

    def choose_some(
        problem: Problem, controls: tuple[Any, ...], log_probs: Tensor, index: Tensor, rng: torch.Generator
    ) -> Chosen:
        chosen = choose(problem, controls, log_probs, index, rng)
        potential, place = target
        other, where = target if proposal is None else proposal
        rows = index[particles]
        scores = _weighed(potential, take(controls[place], rows), log_probs[rows])
        tilted = _weighed(other, take(controls[where], rows), log_probs[rows])
        at = torch.arange(len(rows))
        weights = tilted.double().logsumexp(-1) + scores[at, tokens].double() - tilted[at, tokens].double()
        if not bool(weights.isfinite().all()):
            raise InputError(
                "a retained text has a token to which target or proposal gives weight 0; retain texts of the target, and propose all that "
                "it allows"
            )
        return Chosen(
            chosen.tokens.index_copy(0, particles, tokens),
            chosen.log_weights.index_copy(0, particles, weights),
            chosen.checks,
        )

    return choose_some


def draw(scores: Tensor, index: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens by softmax of the scores (U, V), one for each of the particles (A,) that have the rows `index`.

    Returns:
        Log normalisers (U,) float64, −inf where a row has no token, and the tokens (A,); 0 there.
    """
    top = scores.max(-1, keepdim=True).values
    probs = (scores - top.masked_fill(top.isneginf(), 0.0)).exp().double()
    total = probs.sum(-1)
    probs[total == 0, 0] = 1.0
    place = rank_within(index)
    draws = torch.multinomial(probs, int(place.max()) + 1, replacement=True, generator=rng)
    return total.log() + top[:, 0].double(), draws[index, place]


def rejecting(
    target: tuple[Potential[Any], int],
) -> Proposal:
    """Adaptive weighted rejection: tokens in order of their own noise until one is allowed, without a mask.

    A second round, in which what was refused stays out, estimates the mass that is allowed. Let S_j be the mass that is left
    after j refusals, k of them in both rounds; the first draw of all was allowed with probability 1 / Σ_{j ≤ k} 1/S_j given all
    that was refused and accepted, since the order in which the first acceptance came among the refusals has probability ∝ 1/S_j.
    So this number is an unbiased estimate of the allowed mass together with the token: properly weighted in the sense of Lipkin
    et al. (2025, Fast Controlled Generation from Language Models with Adaptive Weighted Rejection Sampling).

    Weights other than 0 and 1 are not tested for, but taken into the weight.
    """

    def choose(
        problem: Problem, controls: tuple[Any, ...], log_probs: Tensor, index: Tensor, rng: torch.Generator
    ) -> Chosen:
        del problem
        potential, place = target
        state = take(controls[place], index)
        probs = log_probs[index].double().exp()
        probs /= probs.sum(-1, keepdim=True)
        first = _first_allowed(potential, state, probs, rng)
        again = _first_allowed(potential, state, _without(probs, first.refused), rng)
        refused = torch.cat([first.refused, again.refused], dim=1)
        there = refused >= 0
        mass = probs.gather(1, refused.clamp_min(0)) * there
        # S_k is a sum over what is left, and the others add to it: no difference of numbers close to 1 is taken.
        rest = _without(probs, refused).sum(-1, keepdim=True)
        before = rest + mass.flip(1).cumsum(1).flip(1)
        total = (there / before).nansum(-1) + 1 / rest[:, 0]
        log_weights = (first.log_weights.double() - total.log()).masked_fill(first.tokens < 0, -math.inf)
        return Chosen(first.tokens.clamp_min(0), log_weights, first.checks + again.checks)

    return choose


class _Found(NamedTuple):
    """The first allowed token of each particle: ids (A,), −1 for none; log-weights (A,); refused ids (A, K), padded by −1."""

    tokens: Tensor
    log_weights: Tensor
    refused: Tensor
    checks: int


def _first_allowed(potential: Potential[Any], state: Any, probs: Tensor, rng: torch.Generator) -> _Found:
    """Test tokens in the order of an exponential race at rates probs (A, V), which draws without replacement."""
    race = torch.empty_like(probs).exponential_(generator=rng) / probs
    count, size = probs.shape
    tokens, log_weights = torch.full((count,), -1), torch.zeros(count)
    refused = torch.full((count, 0), -1)
    rows, width, checks = torch.arange(count), _FIRST, 0
    while len(rows):
        width = min(width, size)
        arrival, ids = race[rows].topk(width, largest=False)
        possible = arrival.isfinite()
        weights = potential.log_weights(take(state, rows), ids).cpu()
        allowed = possible & ~weights.isneginf()
        found = allowed.any(-1)
        place = torch.where(found, allowed.int().argmax(-1), width)
        hit = rows[found]
        tokens[hit] = ids[found, place[found]]
        log_weights[hit] = weights[found, place[found]]
        done = found | ~possible.all(-1) | torch.tensor(width == size)
        passed = ids.masked_fill((torch.arange(width) >= place[:, None]) | ~possible, -1)
        wider = torch.full((count, width), -1)
        wider[:, : refused.shape[1]] = refused
        wider[rows[done]] = passed[done]
        refused = wider
        checks += int((passed[done] >= 0).sum()) + int(found.sum())
        rows, width = rows[~done], 8 * width
    return _Found(tokens, log_weights, refused, checks)


def _without(probs: Tensor, refused: Tensor) -> Tensor:
    """Probabilities (A, V) with those of the refused (A, K) set to 0; −1 is none."""
    size = probs.shape[1]
    padded = torch.cat([probs, probs.new_zeros(len(probs), 1)], dim=1)
    return padded.scatter(1, refused.masked_fill(refused < 0, size), 0.0)[:, :size]


def _weighed(potential: Potential[Any], state: Any, log_probs: Tensor) -> Tensor:
    """log p + log-weights, (U, V)."""
    scores = log_probs.clone()
    potential.add_log_weights(state, scores)
    return scores
