"""`smc`: twisted sequential Monte Carlo. It knows when to resample and how, and leaves the rest to `_population`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ctrldecode.core.potential import take
from ctrldecode.errors import InputError
from ctrldecode.samplers._particles import Particles, ParticleSampler, StepInfo, particles_together
from ctrldecode.samplers._population import Population, advance, resampled
from ctrldecode.samplers._proposals import forced, masked
from ctrldecode.samplers._samples import effective_sample_size, systematic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["SMC"]


@dataclass(frozen=True)
class Schedule:
    """When and how particles are resampled.

    Attributes:
        threshold: share of the particles below which the effective sample size calls for it.
        every: number of tokens between two looks at it.
        twist: place of the twist among the potentials; None if there is none.
        proposal: place of the proposal; None if it is the target itself.
        retained: for each prompt the ids of a text that survives; None for plain SMC.
    """

    threshold: float
    every: int
    twist: int | None
    proposal: int | None
    retained: tuple[tuple[int, ...], ...] | None


class SMC(ParticleSampler):
    """Twisted sequential Monte Carlo: particles that are unlikely to come to a good end are replaced by copies of others.

    The intermediate targets are p(x) ψ(x) τ(x), with a twist τ that foresees what ψ will ask for: a `Lookahead`, or the `Future` of
    a trie. The twist is divided out at the end, so the weights are those of the target itself and E[mean w] = Z whatever the
    twist (Del Moral 2004, theorem 7.4.2; Zhao et al. 2024, Probabilistic Inference in Language Models via Twisted Sequential
    Monte Carlo). A twist must be positive where ψ is. The particles of a prompt depend on one another: they are a sample of π as
    their number grows.
    """

    name = "smc"

    def init(
        self,
        problem: Problem,
        num: int,
        rng: torch.Generator,
        *,
        twist: Potential[Any] | None = None,
        proposal: Potential[Any] | None = None,
        threshold: float = 0.5,
        every: int = 1,
        retained: Sequence[Sequence[int]] | None = None,
    ) -> Particles:
        """What a run starts from.

        Args:
            problem: the target.
            num: particles for each prompt.
            rng: not used here.
            twist: τ; None for none.
            proposal: whose weights tilt the choice of tokens; None takes ψ, which asks τ for the weights of one token a particle
                only.
            threshold: resample when the effective sample size falls below this share of the particles; 0 never, 1 always.
            every: look at it after so many tokens.
            retained: for each prompt a text that survives (conditional SMC, Andrieu et al. 2010); if it was drawn from the target
                itself, E[1 / mean w] = 1 / Z, so that log Z is overestimated on average.

        Raises:
            InputError: a number is out of range, or a retained text is too long or has weight 0.
        """
        del rng
        problem.check(twist, proposal)
        if not 0 <= threshold <= 1 or every < 1:
            raise InputError(
                f"smc wants a threshold in 0 to 1 and every at least 1, got {threshold} and {every}; 0.5 and 1 are usual"
            )
        potentials = [problem.potential]
        places: dict[str, int | None] = {"twist": None, "proposal": None}
        for role, potential in (("twist", twist), ("proposal", proposal)):
            if potential is not None and potential is not problem.potential:
                if potential not in potentials:
                    potentials.append(potential)
                places[role] = potentials.index(potential)
        kept = None if retained is None else _checked(problem, retained)
        options = Schedule(threshold, every, places["twist"], places["proposal"], kept)
        return Particles(tuple(potentials), particles_together(problem, num), None, (), options)

    def advance(
        self, problem: Problem, state: Particles, population: Population, rng: torch.Generator
    ) -> tuple[Population, StepInfo]:
        """One token for every particle, and resampling where it is called for."""
        schedule: Schedule = state.options
        target = (problem.potential, 0)
        proposal = None if schedule.proposal is None else (state.potentials[schedule.proposal], schedule.proposal)
        choose = masked(target, proposal)
        if schedule.retained is not None:
            kept = [schedule.retained[row] for row in state.batches[0].rows]
            particles, tokens = _retained_now(population, kept)
            choose = forced(choose, target, proposal, particles, tokens)
        population = advance(problem, state.potentials, population, choose, rng, schedule.twist)
        return _resample(problem, population, schedule, rng)


def _resample(
    problem: Problem, population: Population, schedule: Schedule, rng: torch.Generator
) -> tuple[Population, StepInfo]:
    """The population after a look at its weights; after the last token they are left as they are."""
    length = population.tokens.shape[1]
    weights = population.by_prompt(population.log_weights + population.log_twist)
    ess = effective_sample_size(weights)
    num = weights.shape[1]
    alive = population.by_prompt(population.alive).any(-1)
    due = alive & (ess < schedule.threshold * num) & ~weights.isneginf().all(-1)
    if length % schedule.every or length >= problem.max_new_tokens or not bool(due.any()):
        return population, StepInfo(ess, torch.zeros_like(due))
    ancestors = torch.arange(len(population.index)).view(len(weights), num)
    for row in due.nonzero()[:, 0].tolist():
        own = weights[row]
        if schedule.retained is None:
            drawn = systematic(own, num, rng)
        else:  # particle 0 is its own ancestor, the others are drawn independently
            drawn = torch.multinomial((own - own.max()).exp(), num, replacement=True, generator=rng)
            drawn[0] = 0
        ancestors[row] = row * num + drawn
    return _without_the_dead(resampled(population, ancestors.flatten(), due)), StepInfo(ess, due)


def _without_the_dead(population: Population) -> Population:
    """Only the prefixes that some particle has are kept."""
    rows, index = torch.unique(population.index, return_inverse=True)
    if bool((rows < 0).any()):
        rows, index = rows[1:], index - 1
    if not len(rows):
        return population
    return replace(
        population,
        lm=take(population.lm, rows),
        controls=tuple(take(state, rows) for state in population.controls),
        index=index,
    )


def _retained_now(population: Population, retained: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Among the particles alive, where the first of each prompt is, and the token that it takes."""
    at, num = population.tokens.shape[1], len(population.index) // population.prompts
    place = population.alive.long().cumsum(0) - 1
    rows = [row for row, text in enumerate(retained) if at < len(text) and bool(population.alive[row * num])]
    where = torch.tensor([int(place[row * num]) for row in rows], dtype=torch.long)
    return where, torch.tensor([retained[row][at] for row in rows], dtype=torch.long)


def _checked(problem: Problem, retained: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    texts = tuple(tuple(int(token) for token in text) for text in retained)
    whole = all(
        text
        and len(text) <= problem.max_new_tokens
        and (text[-1] in problem.eos_token_ids or len(text) == problem.max_new_tokens)
        and not any(token in problem.eos_token_ids for token in text[:-1])
        for text in texts
    )
    if len(texts) != len(problem.prompts) or not whole:
        raise InputError(
            f"retained wants one whole text for each of the {len(problem.prompts)} prompts: up to its first end of sequence, or of "
            f"{problem.max_new_tokens} tokens; pass texts that a sampler returned for the same budget"
        )
    return texts
