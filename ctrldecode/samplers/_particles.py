"""What the token-wise samplers share: particles run in batches that memory can hold, and are put together at the end."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.samplers._population import Population, begin
from ctrldecode.samplers._samples import Progress, Sampler, Samples, effective_sample_size, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["ENTRIES", "Batch", "ParticleSampler", "Particles", "StepInfo"]

# Entries of the scores of one batch, particles times vocabulary: 64 MB in float32, of which some four copies are needed.
ENTRIES = 2**24


class StepInfo(NamedTuple):
    """What happened in one step.

    Attributes:
        ess: (B,) effective sample size of each prompt's particles.
        resampled: (B,) bool, whether they were resampled then.
    """

    ess: torch.Tensor
    resampled: torch.Tensor


class Batch(NamedTuple):
    """Particles that run together: `num` for each prompt of `rows`."""

    rows: tuple[int, ...]
    num: int


@dataclass(frozen=True)
class Particles:
    """Where a token-wise sampler is.

    Attributes:
        potentials: those in use; the first is the target's.
        batches: still to be run, the current one first.
        population: of the current batch; None before its first token.
        finished: batches that are done, with their populations.
        options: of the sampler.
    """

    potentials: tuple[Potential[Any], ...]
    batches: tuple[Batch, ...]
    population: Population | None
    finished: tuple[tuple[Batch, Population], ...]
    options: Any = None


def particles_together(problem: Problem, num: int) -> tuple[Batch, ...]:
    """All particles of a prompt in one batch, with as many prompts as fit."""
    group = max(1, ENTRIES // problem.lm.size // num)
    prompts = range(len(problem.prompts))
    return tuple(Batch(tuple(prompts[i : i + group]), num) for i in range(0, len(prompts), group))


def prompts_together(problem: Problem, num: int) -> tuple[Batch, ...]:
    """All prompts in each batch, with as many particles as fit."""
    prompts = tuple(range(len(problem.prompts)))
    group = max(1, ENTRIES // problem.lm.size // len(prompts))
    return tuple(Batch(prompts, min(group, num - i)) for i in range(0, num, group))


class ParticleSampler(Sampler[Particles]):
    """A sampler whose step is one more token for all particles of a batch."""

    def step(self, problem: Problem, state: Particles, rng: torch.Generator) -> tuple[Particles, StepInfo]:
        """One token for every particle that is alive; then the next batch, if none is."""
        batch = state.batches[0]
        own = problem if len(batch.rows) == len(problem.prompts) else problem.select(batch.rows)
        population = begin(own, state.potentials, batch.num) if state.population is None else state.population
        population, info = self.advance(own, state, population, rng)
        if bool(population.alive.any()):
            return replace(state, population=population), info
        whole = replace(population, lm=None, controls=())  # states of texts that have ended need not be kept
        finished = (*state.finished, (batch, whole))
        return replace(state, batches=state.batches[1:], population=None, finished=finished), info

    @abstractmethod
    def advance(
        self, problem: Problem, state: Particles, population: Population, rng: torch.Generator
    ) -> tuple[Population, StepInfo]:
        """One token for every particle of the population."""

    def done(self, problem: Problem, state: Particles) -> bool:
        """Whether all batches are."""
        del problem
        return not state.batches

    def progress(self, problem: Problem, state: Particles) -> Progress:
        """In tokens, as if every batch would use the whole budget."""
        every = problem.max_new_tokens
        here = 0 if state.population is None else state.population.tokens.shape[1]
        done = len(state.finished) * every + here
        calls = sum(population.lm_calls for _, population in _populations(state))
        return Progress(done, (len(state.finished) + len(state.batches)) * every, calls)

    def samples(self, problem: Problem, state: Particles) -> Samples:
        """All particles whose texts are whole, those of a prompt in the order of the batches; if it has none, those under way."""
        tokens: list[list[list[int]]] = [[] for _ in problem.prompts]
        weights: list[list[torch.Tensor]] = [[] for _ in problem.prompts]
        found = _populations(state)
        whole = {row for batch, _ in state.finished for row in batch.rows}
        for place, (batch, population) in enumerate(found):
            if place >= len(state.finished) and whole.issuperset(batch.rows):
                continue
            texts, own = population.texts(), population.by_prompt(population.log_weights)
            for at, row in enumerate(batch.rows):
                tokens[row] += texts[at * batch.num : (at + 1) * batch.num]
                weights[row].append(own[at])
        calls, checks = (sum(getattr(own, name) for _, own in found) for name in ("lm_calls", "checks"))
        joined = [torch.cat(own) if own else torch.zeros(0, dtype=torch.float64) for own in weights]
        samples = weighted(tokens, joined, calls, {"checks": checks} if checks else {})
        samples.log_z[[row not in whole for row in range(len(tokens))]] = torch.nan
        return samples


def _populations(state: Particles) -> Sequence[tuple[Batch, Population]]:
    """Those that are finished, and the current one."""
    current = () if state.population is None else ((state.batches[0], state.population),)
    return (*state.finished, *current)


def step_info(population: Population) -> StepInfo:
    """Of a population that was not resampled."""
    ess = effective_sample_size(population.by_prompt(population.log_weights))
    return StepInfo(ess, torch.zeros(population.prompts, dtype=torch.bool))
