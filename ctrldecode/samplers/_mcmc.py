"""`mcmc`: Metropolis–Hastings over whole texts, whose moves write the end of a text anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.errors import InputError
from ctrldecode.samplers._particles import ENTRIES
from ctrldecode.samplers._population import Population, advance, begin_behind
from ctrldecode.samplers._problem import log_mean_exp
from ctrldecode.samplers._proposals import masked
from ctrldecode.samplers._samples import Progress, Sampler, Samples, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["MCMC", "Chains", "Moves", "Writing"]


class Text(NamedTuple):
    """A text with, for each token, the log of the target's factor over the proposal's probability."""

    ids: tuple[int, ...]
    gains: tuple[float, ...]


class Moves(NamedTuple):
    """What a step came to.

    Attributes:
        accepted: for each chain whose move the step ended, whether it took the new text; empty while texts are being written.
    """

    accepted: tuple[bool, ...]


class Writing(NamedTuple):
    """Ends that are being written for some chains, one after another from `first`.

    Attributes:
        first: number of the first of them.
        population: their new tokens.
        log_weights: (N,) before the first token and after each.
        cuts: how many tokens of its text each chain keeps.
        coins: uniform numbers that decide on acceptance.
    """

    first: int
    population: Population
    log_weights: tuple[torch.Tensor, ...]
    cuts: tuple[int, ...]
    coins: tuple[float, ...]


@dataclass(frozen=True)
class Chains:
    """Where the chains are; those of one prompt stand side by side.

    Attributes:
        potentials: ψ, and that of the proposal.
        num: chains for each prompt.
        moves: how many moves each of them makes.
        texts: where each chain is.
        writing: what the next step goes on with; None for the next chains in turn.
        turn: number of the chain that is next.
        log_z: (B,) estimates from the texts that the chains started with; None before they are whole.
        done: moves made, −1 before the first texts.
        proposed: moves proposed, over all chains.
        accepted: and accepted.
        lm_calls: next-token distributions asked for, without those of `writing`.
    """

    potentials: tuple[Potential[Any], ...]
    num: int
    moves: int
    texts: tuple[Text, ...] = ()
    writing: Writing | None = None
    turn: int = 0
    log_z: torch.Tensor | None = None
    done: int = -1
    proposed: int = 0
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
        """One token for as many chains as memory can hold; at the end of their texts, the decision on each."""
        writing = _begun(problem, state, rng) if state.writing is None else state.writing
        choose = masked(*((potential, place) for place, potential in enumerate(state.potentials)))
        population = advance(problem, state.potentials, writing.population, choose, rng)
        writing = writing._replace(population=population, log_weights=(*writing.log_weights, population.log_weights))
        if bool(population.alive.any()):
            return replace(state, writing=writing), Moves(())
        state = replace(state, writing=None, lm_calls=state.lm_calls + population.lm_calls)
        if state.done < 0:
            return _turned(problem, replace(state, texts=state.texts + _ends(writing)), writing), Moves(())
        texts, accepted = _decided(state.texts, writing)
        counts = {"proposed": state.proposed + len(accepted), "accepted": state.accepted + sum(accepted)}
        return _turned(problem, replace(state, texts=texts, **counts), writing), Moves(accepted)

    def done(self, problem: Problem, state: Chains) -> bool:
        """Whether all moves were made."""
        del problem
        return state.done >= state.moves

    def progress(self, problem: Problem, state: Chains) -> Progress:
        """In moves."""
        del problem
        under_way = 0 if state.writing is None else state.writing.population.lm_calls
        return Progress(max(0, state.done), state.moves, state.lm_calls + under_way)

    def samples(self, problem: Problem, state: Chains) -> Samples:
        """Where the chains are; a chain that met a dead end and never left it has weight 0."""
        own = [state.texts[row * state.num : (row + 1) * state.num] for row in range(len(problem.prompts))]
        weights = [
            torch.tensor([-math.inf if _gain(text.gains) == -math.inf else 0.0 for text in texts], dtype=torch.float64)
            for texts in own
        ]
        tokens = [[list(text.ids) for text in texts] for texts in own]
        calls = self.progress(problem, state).lm_calls
        found = weighted(tokens, weights, calls, {"acceptance": state.accepted / max(1, state.proposed)})
        return replace(found, log_z=torch.full_like(found.log_z, torch.nan) if state.log_z is None else state.log_z)


def _gain(gains: Sequence[float]) -> float:
    return math.fsum(gains)


def _begun(problem: Problem, state: Chains, rng: torch.Generator) -> Writing:
    """The next chains, cut where their texts are to be written anew; from the prompts before there are texts."""
    last = min(state.turn + max(1, ENTRIES // problem.lm.size), len(problem.prompts) * state.num)
    chains = range(state.turn, last)
    rows = [chain // state.num for chain in chains]
    cuts, coins = [0] * len(rows), [1.0] * len(rows)
    if state.done >= 0:
        draws = torch.rand(len(rows), 2, generator=rng, dtype=torch.float64).tolist()
        cuts = [int(draw * len(state.texts[chain].ids)) for chain, (draw, _) in zip(chains, draws, strict=True)]
        coins = [coin for _, coin in draws]
    kept = [state.texts[chain].ids[:cut] if cut else () for chain, cut in zip(chains, cuts, strict=True)]
    population = begin_behind(problem, state.potentials, rows, kept)
    return Writing(state.turn, population, (population.log_weights,), tuple(cuts), tuple(coins))


def _ends(writing: Writing) -> tuple[Text, ...]:
    """What was written, with the gain of each token."""
    log_weights = torch.stack(writing.log_weights, dim=1)
    # −inf − −inf behind a dead end is NaN, and cut off with the text.
    gains = (log_weights[:, 1:] - log_weights[:, :-1]).tolist()
    return tuple(
        Text(tuple(ids), tuple(own[: len(ids)])) for ids, own in zip(writing.population.texts(), gains, strict=True)
    )


def _decided(texts: tuple[Text, ...], writing: Writing) -> tuple[tuple[Text, ...], tuple[bool, ...]]:
    """The texts after the moves of the chains that wrote, and which of these took the new one."""
    after, accepted = list(texts), list[bool]()
    for chain, (end, cut, coin) in enumerate(
        zip(_ends(writing), writing.cuts, writing.coins, strict=True), writing.first
    ):
        old = texts[chain]
        new = Text(old.ids[:cut] + end.ids, old.gains[:cut] + end.gains)
        log_ratio = _gain(end.gains) - _gain(old.gains[cut:]) + math.log(len(old.ids) / len(new.ids))
        accepted.append(not math.isnan(log_ratio) and (coin == 0 or math.log(coin) < log_ratio))
        if accepted[-1]:
            after[chain] = new
    return tuple(after), tuple(accepted)


def _turned(problem: Problem, state: Chains, writing: Writing) -> Chains:
    """The state with the next chains in turn; past the last one a move is done, or the first texts are whole."""
    turn = writing.first + len(writing.cuts)
    if turn < len(problem.prompts) * state.num:
        return replace(state, turn=turn)
    log_z = state.log_z
    if log_z is None:
        weights = torch.tensor([_gain(text.gains) for text in state.texts], dtype=torch.float64)
        log_z = log_mean_exp(weights.view(len(problem.prompts), state.num))
    return replace(state, turn=0, done=state.done + 1, log_z=log_z)
