"""`importance` and `rejection`: independent texts with weights. They differ in how a token is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrldecode.samplers._particles import Particles, ParticleSampler, StepInfo, prompts_together, step_info
from ctrldecode.samplers._population import Population, advance
from ctrldecode.samplers._proposals import masked, rejecting

if TYPE_CHECKING:
    import torch

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["Importance", "Rejection"]


class Importance(ParticleSampler):
    """Importance sampling: tokens from the model under the potential, normalised at each token, and weights that undo it.

    v_t ~ q(v | x) ∝ p(v | x) ψ'(x·v) / ψ'(x), log w = Σ_t [log p(v_t | x) + log ψ(x·v_t) / ψ(x) − log q(v_t | x)]. With ψ' = ψ, the
    default, it is the sum of the logs of the normalisers. E[w] = Z and E[w f(x)] = Z E_π[f], for any number of samples. One call of
    the model a token. It is what grammar-constrained decoding (Geng et al. 2023) becomes when its bias is accounted for.
    """

    name = "importance"

    def init(
        self, problem: Problem, num: int, rng: torch.Generator, *, proposal: Potential[Any] | None = None
    ) -> Particles:
        """What a run starts from.

        Args:
            problem: the target.
            num: texts for each prompt.
            rng: not used here.
            proposal: ψ', over the same vocabulary; it must not forbid what ψ allows, or such texts are never seen. None takes ψ.
        """
        del rng
        problem.check(proposal)
        potentials = (problem.potential,) if proposal is None else (problem.potential, proposal)
        return Particles(potentials, prompts_together(problem, num), None, ())

    def advance(
        self, problem: Problem, state: Particles, population: Population, rng: torch.Generator
    ) -> tuple[Population, StepInfo]:
        """One token for every particle."""
        placed = [(potential, place) for place, potential in enumerate(state.potentials)]
        population = advance(problem, state.potentials, population, masked(*placed), rng)
        return population, step_info(population)


class Rejection(ParticleSampler):
    """Adaptive weighted rejection: tokens from the model itself, refused until one is allowed, and weights that undo the bias.

    No mask is computed: the potential is asked for single tokens, most often for one or two. The weight of a token is an unbiased
    estimate of the allowed mass, so E[w] = Z as for `importance`, at a larger variance. After Lipkin et al. (2025), algorithm
    AWRS; the estimator is derived in `_proposals.rejecting`. A potential that is not 0 or 1 counts as a test for 0 and a
    weight.
    """

    name = "rejection"

    def init(self, problem: Problem, num: int, rng: torch.Generator) -> Particles:
        """What a run starts from; there are no options."""
        del rng
        return Particles((problem.potential,), prompts_together(problem, num), None, ())

    def advance(
        self, problem: Problem, state: Particles, population: Population, rng: torch.Generator
    ) -> tuple[Population, StepInfo]:
        """One token for every particle."""
        population = advance(problem, state.potentials, population, rejecting((problem.potential, 0)), rng)
        return population, step_info(population)
