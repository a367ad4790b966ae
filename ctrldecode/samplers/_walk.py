"""Draws one text for each of several prompts from the model times the potential times what a trie knows, in lockstep.

It reads the trie and changes only the cache of scores; `Walked.seen` is what the trie learns from afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ctrldecode.core.potential import cat, take
from ctrldecode.errors import PotentialError
from ctrldecode.samplers._trie import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._cache import ScoreCache
    from ctrldecode.samplers._problem import Problem
    from ctrldecode.samplers._trie import GrowingTrie

__all__ = ["Walked", "walk"]

# float32 log-probabilities of 50,000 tokens add up to 1 within a few 1e-6.
_ROUNDING = 1e-4


@dataclass
class Walked:
    """One text, on its way or done.

    Attributes:
        prompt: number of its prompt.
        node: of the trie at the text so far; −1 where it knows nothing.
        ids: tokens, the end of sequence included.
        log_p: log p̃ of each token.
        log_mass: log M at each prefix.
        log_rest: see `Seen`.
        log_weight: importance weight.
        log_start: log of the start potential at the text over that at its prompt; 0 without one.
        log_joint: log p(x) ψ(x) / ψ(prompt) of the whole.
        rejected: whether it was given up (`cars`), or met a dead end.
        new: scores at prefixes that the trie does not know yet, in order.
        done: whether nothing more comes.
    """

    prompt: int
    node: int
    ids: list[int] = field(default_factory=list[int])
    log_p: list[float] = field(default_factory=list[float])
    log_mass: list[float] = field(default_factory=list[float])
    log_rest: list[float] = field(default_factory=list[float])
    log_weight: float = 0.0
    log_start: float = 0.0
    log_joint: float = 0.0
    rejected: bool = False
    new: list[Tensor] = field(default_factory=list["Tensor"])
    done: bool = False

    @property
    def seen(self) -> Seen:
        """What the trie learns: the prefixes that were seen, without the leaf."""
        inner = len(self.log_mass) - 1
        return Seen(
            np.array(self.ids[:inner], np.int64),
            np.array(self.log_p[:inner], np.float32),
            np.array(self.log_mass),
            np.array(self.log_rest),
        )


class _Live(NamedTuple):
    """States of the rows whose scores the model gave at the last token."""

    rows: list[int]
    states: tuple[Any, ...]


def walk(
    problem: Problem,
    potentials: Sequence[Potential[Any]],
    trie: GrowingTrie,
    cache: ScoreCache,
    prompts: Sequence[int],
    rng: torch.Generator,
    *,
    exact: bool,
) -> tuple[list[Walked], int]:
    """One text for each of some prompts.

    Args:
        problem: model, prompts and budget.
        potentials: ψ, and possibly another one to start from, whose weights tilt the choice and are undone in the log-weight.
        trie: what is known.
        cache: of log p + log-weights by node.
        prompts: numbers of the prompts.
        rng: one uniform number a token and row; with `exact` two.
        exact: give a text up with probability 1 − M at every prefix that is new: what is left is a sample of the target.

    Returns:
        The texts, and how many rows of scores the model was asked for.

    Raises:
        PotentialError: `exact`, and the mass at some prefix exceeds 1, so that ψ is no upper bound of what it becomes.
    """
    rows = [Walked(prompt, trie.roots.get(problem.prompt_ids(prompt), -1)) for prompt in prompts]
    live, calls = _Live([], ()), 0
    for _ in range(problem.max_new_tokens):
        going = [place for place, row in enumerate(rows) if not row.done]
        if not going:
            break
        known = {place: own for place in going if (own := cache.get(rows[place].node)) is not None}
        asked = [place for place in going if place not in known]
        if not asked:
            live = _Live([], ())  # states of the last token but one are of no use
        else:
            live = _states(problem, potentials, rows, asked, live)
            scores = problem.lm.log_weights(live.states[0]).cpu()
            for potential, state in zip(potentials, live.states[1:], strict=True):
                potential.add_log_weights(state, scores)
            calls += len(asked)
            known |= dict(zip(asked, scores, strict=True))
        draws = torch.rand(len(going), 2 if exact else 1, generator=rng, dtype=torch.float64).tolist()
        for place, (draw, *coin) in zip(going, draws, strict=True):
            _advance(problem, trie, cache, rows[place], known[place], draw, coin[0] if exact else None)
    for place, row in enumerate(rows):
        if len(potentials) > 1 and not row.rejected:
            row.log_start = _start_value(problem, potentials[1], prompts[place], row.ids)
            row.log_weight -= row.log_start
            row.log_joint -= row.log_start
    return rows, calls


def _states(
    problem: Problem, potentials: Sequence[Potential[Any]], rows: Sequence[Walked], asked: list[int], live: _Live
) -> _Live:
    """States of model and potentials at the prefixes of the rows asked for: one step on, or from the prompt again."""
    where = {place: at for at, place in enumerate(live.rows)}
    have = [place for place in asked if place in where]
    lack = [place for place in asked if place not in where]
    parts: list[tuple[Any, ...]] = []
    models = (problem.lm, *potentials)
    if have:
        index, last = [where[place] for place in have], torch.tensor([rows[place].ids[-1] for place in have])
        parts.append(
            tuple(model.step(take(state, index), last) for model, state in zip(models, live.states, strict=True))
        )
    if lack:
        prompts, texts = [rows[place].prompt for place in lack], [rows[place].ids for place in lack]
        parts.append(tuple(problem.resume(model, prompts, texts) for model in models))
    joined = parts[0] if len(parts) == 1 else tuple(cat(pair) for pair in zip(*parts, strict=True))
    order = have + lack
    places = [order.index(place) for place in asked]
    return _Live(asked, tuple(take(state, places) for state in joined) if places != sorted(places) else joined)


def _advance(
    problem: Problem, trie: GrowingTrie, cache: ScoreCache, row: Walked, scores: Tensor, draw: float, coin: float | None
) -> None:
    """Choose one token by p̃(v) r(x·v), and note what was seen."""
    values = scores.numpy().astype(np.float64)
    log_mass, weights = _summed(values)
    fresh = row.node < 0
    if fresh:
        row.new.append(scores.clone())
    else:
        cache.put(row.node, scores if scores.untyped_storage().nbytes() == scores.nbytes else scores.clone())
    row.log_mass.append(log_mass)
    tokens, ratios = (np.empty(0, np.int64), np.empty(0)) if fresh else trie.children(row.node)
    log_total = log_mass
    if len(tokens):
        tilted = values.copy()
        tilted[tokens] += ratios
        log_total, weights = _summed(tilted)
    if coin is not None and fresh and log_mass > _ROUNDING:
        raise PotentialError(
            f"row {row.prompt}: the potential's value is expected to rise by a factor of {math.exp(log_mass):.3g} at ids {row.ids[-8:]}, so it is "
            "no upper bound and rejection would not be exact; use importance, smc or asap"
        )
    if log_total == -math.inf or (coin is not None and fresh and _log(coin) > log_mass):
        row.log_rest.append(_without(values, tokens))
        row.rejected = row.done = True
        row.log_weight = row.log_joint = -math.inf
        return
    token = _pick(weights, draw)
    explored = np.flatnonzero(tokens == token)
    row.log_rest.append(_without(values, np.append(tokens, token)))
    row.log_weight += log_total - (float(ratios[explored[0]]) if len(explored) else 0.0)
    row.log_joint += float(values[token])
    row.ids.append(token)
    row.log_p.append(float(values[token]))
    row.done = token in problem.eos_token_ids or len(row.ids) == problem.max_new_tokens
    if not row.done:
        row.node = trie.child(row.node, token)


def _summed(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """log Σ exp, and exponentials over the largest: no value is too small for that."""
    top = float(values.max())
    if top == -math.inf:
        return top, np.zeros_like(values)
    weights = np.exp(values - top)
    return math.log(float(weights.sum())) + top, weights


def _without(values: NDArray[np.float64], tokens: NDArray[np.int64]) -> float:
    """log Σ exp of all but some tokens."""
    left = values.copy()
    left[tokens] = -math.inf
    return _summed(left)[0]


def _pick(weights: NDArray[np.float64], draw: float) -> int:
    """An index by weights that need no normalisation; never one of weight 0."""
    edges = np.cumsum(weights)
    place = int(np.searchsorted(edges, draw * edges[-1], side="right"))
    return place if place < len(weights) and weights[place] > 0 else int(np.flatnonzero(weights)[-1])


def _start_value(problem: Problem, start: Potential[Any], prompt: int, ids: Sequence[int]) -> float:
    """log of the start potential at a whole text over that at its prompt."""
    state = problem.select([prompt]).start(start)
    total = 0.0
    for token in ids:
        at = torch.tensor([token])
        total += float(start.log_weights(state, at[None]))
        state = start.step(state, at)
    return total


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
