"""`mcmc`: Metropolis–Hastings over whole texts, whose moves write the end of a text anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.errors import InputError
from ctrldecode.samplers._particles import ENTRIES
from ctrldecode.samplers._population import advance, begin_behind
from ctrldecode.samplers._problem import log_mean_exp
from ctrldecode.samplers._proposals import masked
from ctrldecode.samplers._samples import Progress, Sampler, Samples, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["MCMC", "Chains", "Moves"]


class Text(NamedTuple):
    """A text with, for each token, the log of the target's factor over the proposal's probability."""

    ids: tuple[int, ...]
    gains: tuple[float, ...]


class Moves(NamedTuple):
    """What one move of every chain came to.

    Attributes:
        accepted: for each chain, whether it took the new text.
    """

    accepted: tuple[bool, ...]


@dataclass(frozen=True)
class Chains:
    """Where the chains are; those of one prompt stand side by side.

    Attributes:
        potentials: ψ, and that of the proposal.
        num: chains for each prompt.
        moves: how many moves each of them makes.
        texts: where each chain is.
        log_z: (B,) estimates from the texts that the chains started with.
        done: moves made, −1 before the first texts.
        accepted: moves accepted, over all chains.
        lm_calls: next-token distributions asked for.
    """

    potentials: tuple[Potential[Any], ...]
    num: int
    moves: int
    texts: tuple[Text, ...] = ()
    log_z: torch.Tensor | None = None
    done: int = -1
    accepted: int = 0
    lm_calls: int = 0


class MCMC(Sampler[Chains]):
    """Markov chains whose stationary distribution is the target (Gonzalez et al. 2025, Constrained Sampling for Language Models).

    Each chain starts from a text drawn as in `importance`, and each of its moves draws a place t evenly among the n tokens, writes the
    text anew from there under the proposal, and keeps the new text x' of n' tokens with probability min(1, n/n' · Π_{s ≥ t} g'_s /
    g_s), g_s being the target's factor over the proposal's probability at token s: the rule of Metropolis and Hastings. All
    log-weights are 0; texts are samples of the target once the chains have forgotten where they began. `info["acceptance"]` is the
    share of moves accepted.
    """

    name = "mcmc"

    def init(
        self,
        problem: Problem,
        num: int,
        rng: torch.Generator,
        *,
        moves: int = 20,
        proposal: Potential[Any] | None = None,
    ) -> Chains:
        """What a run starts from.

        Args:
            problem: the target.
            num: chains for each prompt; each gives one text.
            rng: not used here.
            moves: how many each chain makes.
            proposal: whose weights tilt the choice of tokens; it must not forbid what ψ allows. None takes ψ.

        Raises:
            InputError: a negative number of moves.
        """
        del rng
        problem.check(proposal)
        if moves < 0:
            raise InputError(f"mcmc wants a number of moves, 0 or more; got {moves}")
        return Chains((problem.potential,) if proposal is None else (problem.potential, proposal), num, moves)

    def step(self, problem: Problem, state: Chains, rng: torch.Generator) -> tuple[Chains, Moves]:
        """The first texts; after that, one move of every chain."""
        rows = [row for row in range(len(problem.prompts)) for _ in range(state.num)]
        if state.done < 0:
            texts, calls = _written(problem, state.potentials, rows, [()] * len(rows), rng)
            weights = torch.tensor([_gain(text.gains) for text in texts], dtype=torch.float64)
            log_z = log_mean_exp(weights.view(len(problem.prompts), state.num))
            return replace(state, texts=tuple(texts), log_z=log_z, done=0, lm_calls=calls), Moves(())
        draws = torch.rand(len(rows), 2, generator=rng, dtype=torch.float64).tolist()
        cuts = [int(draw * len(text.ids)) for (draw, _), text in zip(draws, state.texts, strict=True)]
        prefixes = [text.ids[:cut] for text, cut in zip(state.texts, cuts, strict=True)]
        ends, calls = _written(problem, state.potentials, rows, prefixes, rng)
        texts, accepted = list(state.texts), [False] * len(rows)
        for place, (old, end, cut, (_, draw)) in enumerate(zip(state.texts, ends, cuts, draws, strict=True)):
            new = Text(old.ids[:cut] + end.ids, old.gains[:cut] + end.gains)
            log_ratio = _gain(end.gains) - _gain(old.gains[cut:]) + math.log(len(old.ids) / len(new.ids))
            if not math.isnan(log_ratio) and (draw == 0 or math.log(draw) < log_ratio):
                texts[place], accepted[place] = new, True
        after = replace(
            state,
            texts=tuple(texts),
            done=state.done + 1,
            accepted=state.accepted + sum(accepted),
            lm_calls=state.lm_calls + calls,
        )
        return after, Moves(tuple(accepted))

    def done(self, problem: Problem, state: Chains) -> bool:
        """Whether all moves were made."""
        del problem
        return state.done >= state.moves

    def progress(self, problem: Problem, state: Chains) -> Progress:
        """In moves."""
        del problem
        return Progress(max(0, state.done), state.moves, state.lm_calls)

    def samples(self, problem: Problem, state: Chains) -> Samples:
        """Where the chains are; a chain that met a dead end and never left it has weight 0."""
        prompts, num = len(problem.prompts), state.num if state.texts else 0
        own = [state.texts[row * num : (row + 1) * num] for row in range(prompts)]
        weights = [
            torch.tensor([-math.inf if _gain(text.gains) == -math.inf else 0.0 for text in texts], dtype=torch.float64)
            for texts in own
        ]
        share = state.accepted / max(1, state.done * len(state.texts))
        found = weighted(
            [[list(text.ids) for text in texts] for texts in own], weights, state.lm_calls, {"acceptance": share}
        )
        return found if state.log_z is None else replace(found, log_z=state.log_z)


def _gain(gains: Sequence[float]) -> float:
    return math.fsum(gains)


def _written(
    problem: Problem,
    potentials: tuple[Potential[Any], ...],
    rows: Sequence[int],
    prefixes: Sequence[Sequence[int]],
    rng: torch.Generator,
) -> tuple[list[Text], int]:
    """An end for every prefix, in batches that memory can hold, and what it took."""
    placed = [(potential, place) for place, potential in enumerate(potentials)]
    choose = masked(*placed)
    group = max(1, ENTRIES // problem.lm.size)
    texts: list[Text] = []
    calls = 0
    for first in range(0, len(rows), group):
        some = slice(first, first + group)
        population = begin_behind(problem, potentials, rows[some], prefixes[some])
        steps = [population.log_weights]
        while bool(population.alive.any()):
            population = advance(problem, potentials, population, choose, rng)
            steps.append(population.log_weights)
        gains = torch.stack(steps, dim=1)
        # −inf − −inf behind a dead end is NaN, and cut off with the text.
        table = (gains[:, 1:] - gains[:, :-1]).tolist()
        for ids, own in zip(population.texts(), table, strict=True):
            texts.append(Text(tuple(ids), tuple(own[: len(ids)])))
        calls += population.lm_calls
    return texts, calls
