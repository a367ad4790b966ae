"""Particles that grow together, a token at a time; prefixes that several of them share are computed once.

It knows how a population is laid out, stepped and resampled, not how a token is chosen (`_proposals`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ctrldecode.core.potential import take
from ctrldecode.samplers._problem import log_mean_exp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

    # Problem, states of the potentials (U rows), log p (U, V), which of the U rows each particle has (A,), generator.
    Proposal: TypeAlias = Callable[[Problem, tuple[Any, ...], Tensor, Tensor, torch.Generator], "Chosen"]

__all__ = ["Chosen", "Population", "advance", "begin", "begin_behind", "rank_within", "resampled"]


class Chosen(NamedTuple):
    """What a proposal did for A particles.

    Attributes:
        tokens: (A,) ids.
        log_weights: (A,) float64, logs of p(v | x) ψ(x·v) / ψ(x) over the probability of the choice, or of an unbiased estimate.
        checks: how many tokens were tested one by one.
    """

    tokens: Tensor
    log_weights: Tensor
    checks: int = 0


@dataclass(frozen=True)
class Population:
    """N = B·n particles, those of one prompt side by side, over U prefixes that differ.

    Attributes:
        lm: the language model's state, U rows.
        controls: states of the potentials in use, U rows each.
        index: (N,) which of the U rows a particle has; −1 once its text has ended.
        tokens: (N, t) ids so far, −1 behind a text's end.
        log_weights: (N,) float64, with respect to p(x) ψ(x) / ψ(prompt).
        log_twist: (N,) float64, log of the twist's value over that of the prompt.
        left: (N,) tokens that may still come.
        prompts: B.
        lm_calls: next-token distributions that the language model was asked for.
        checks: tokens tested one by one.
    """

    lm: Any
    controls: tuple[Any, ...]
    index: Tensor
    tokens: Tensor
    log_weights: Tensor
    log_twist: Tensor
    left: Tensor
    prompts: int
    lm_calls: int
    checks: int

    @property
    def alive(self) -> Tensor:
        """(N,) bool: particles whose text goes on."""
        return self.index >= 0

    def by_prompt(self, values: Tensor) -> Tensor:
        """Values (N,) as (B, n)."""
        return values.view(self.prompts, -1)

    def texts(self) -> list[list[int]]:
        """The ids of every particle."""
        return [[token for token in row if token >= 0] for row in self.tokens.tolist()]


def begin(problem: Problem, potentials: Sequence[Potential[Any]], num: int) -> Population:
    """`num` particles of every prompt, none with a token."""
    prompts = len(problem.prompts)
    index = torch.arange(prompts).repeat_interleave(num)
    states = [problem.start(model) for model in (problem.lm, *potentials)]
    return _begun(states, index, torch.full_like(index, problem.max_new_tokens), prompts)


def begin_behind(
    problem: Problem, potentials: Sequence[Potential[Any]], rows: Sequence[int], prefixes: Sequence[Sequence[int]]
) -> Population:
    """One particle behind each of some prefixes, which belong to the prompts `rows`; the tokens of the prefixes are not repeated."""
    places: dict[tuple[int, ...], int] = {}
    index = torch.tensor(
        [places.setdefault((row, *text), len(places)) for row, text in zip(rows, prefixes, strict=True)]
    )
    owners, texts = [key[0] for key in places], [key[1:] for key in places]
    states = [problem.resume(model, owners, texts) for model in (problem.lm, *potentials)]
    left = torch.tensor([problem.max_new_tokens - len(text) for text in prefixes])
    return _begun(states, index, left, 1)


def _begun(states: Sequence[Any], index: Tensor, left: Tensor, prompts: int) -> Population:
    zeros = torch.zeros(len(index), dtype=torch.float64)
    return Population(
        lm=states[0],
        controls=tuple(states[1:]),
        index=index,
        tokens=torch.empty(len(index), 0, dtype=torch.long),
        log_weights=zeros,
        log_twist=zeros,
        left=left,
        prompts=prompts,
        lm_calls=0,
        checks=0,
    )


def advance(
    problem: Problem,
    potentials: Sequence[Potential[Any]],
    population: Population,
    choose: Proposal,
    rng: torch.Generator,
    twist: int | None = None,
) -> Population:
    """One more token for every particle that is alive; of the potentials, number `twist` is evaluated at the tokens chosen."""
    alive = population.alive.nonzero()[:, 0]
    index = population.index[alive]
    log_probs = problem.lm.log_weights(population.lm).cpu()
    chosen = choose(problem, population.controls, log_probs, index, rng)
    log_weights = population.log_weights.index_add(0, alive, chosen.log_weights)
    log_twist = population.log_twist
    if twist is not None:
        found = _at_tokens(potentials[twist], population.controls[twist], index, chosen.tokens)
        log_twist = log_twist.index_add(0, alive, found)
    tokens = torch.full((len(population.index), 1), -1)
    tokens[alive, 0] = chosen.tokens
    goes_on = ~problem.ends(chosen.tokens) & ~log_weights[alive].isneginf() & (population.left[alive] > 1)
    after = replace(
        population,
        index=torch.full_like(population.index, -1),
        tokens=torch.cat([population.tokens, tokens], dim=1),
        log_weights=log_weights,
        log_twist=log_twist,
        left=population.left - 1,
        lm_calls=population.lm_calls + len(log_probs),
        checks=population.checks + chosen.checks,
    )
    if not bool(goes_on.any()):
        return after
    return _stepped(problem, potentials, after, alive[goes_on], index[goes_on], chosen.tokens[goes_on])


def _stepped(
    problem: Problem,
    potentials: Sequence[Potential[Any]],
    population: Population,
    rows: Tensor,
    index: Tensor,
    tokens: Tensor,
) -> Population:
    """States after the tokens of the particles in `rows`, each pair of prefix and token once."""
    keys, inverse = torch.unique(index * problem.lm.size + tokens, return_inverse=True)
    parents, ids = keys // problem.lm.size, keys % problem.lm.size
    controls = tuple(
        potential.step(take(state, parents), ids)
        for potential, state in zip(potentials, population.controls, strict=True)
    )
    where = population.index.clone()
    where[rows] = inverse
    return replace(population, lm=problem.lm.step(take(population.lm, parents), ids), controls=controls, index=where)


def _at_tokens(potential: Potential[Any], state: Any, index: Tensor, tokens: Tensor) -> Tensor:
    """log-weights (A,) float64 of one token a particle, in one call for all U rows that some particle has."""
    rows, slots = torch.unique(index, return_inverse=True)
    place = rank_within(slots)
    table = torch.zeros(len(rows), int(place.max()) + 1, dtype=torch.long)
    table[slots, place] = tokens
    return potential.log_weights(take(state, rows), table).cpu()[slots, place].double()


def rank_within(index: Tensor) -> Tensor:
    """How many particles before each one (A,) have the same row."""
    order = torch.argsort(index, stable=True)
    counts = torch.bincount(index)
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(index)) - (counts.cumsum(0) - counts)[index[order]]
    return rank


def resampled(population: Population, ancestors: Tensor, which: Tensor) -> Population:
    """Particles replaced by their ancestors (N,), at equal weights under the intermediate target, for the prompts (B,) in `which`."""
    intermediate = population.log_weights + population.log_twist
    mean = log_mean_exp(population.by_prompt(intermediate))[:, None]
    log_twist = population.log_twist[ancestors]
    equal = (mean - population.by_prompt(log_twist)).flatten()
    changed = which.repeat_interleave(len(ancestors) // population.prompts)
    return replace(
        population,
        index=population.index[ancestors],
        tokens=population.tokens[ancestors],
        log_weights=torch.where(changed, equal, population.log_weights),
        log_twist=log_twist,
        left=population.left[ancestors],
    )
