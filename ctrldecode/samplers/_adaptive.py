"""`asap` and `cars`: samplers that learn, from every text, how much of the model's mass a prefix can keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ctrldecode.errors import DeadEnd, InputError
from ctrldecode.samplers._cache import ScoreCache
from ctrldecode.samplers._problem import log_mean_exp
from ctrldecode.samplers._samples import Progress, Sampler, Samples, effective_sample_size, weighted
from ctrldecode.samplers._trie import GrowingTrie, Seen, Trie
from ctrldecode.samplers._walk import Walked, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.processor import RowReport
    from ctrldecode.samplers._problem import Problem

__all__ = ["CARS", "ASAp", "Learned", "Round"]

_CACHE_BYTES = 256 * 2**20


class Round(NamedTuple):
    """What one round of texts, one for each prompt that wants more, came to.

    Attributes:
        walked: the texts.
        log_bounds: log r of each of their prompts before the round.
    """

    walked: tuple[Walked, ...]
    log_bounds: tuple[float, ...]


class Drawn(NamedTuple):
    """One text that is kept: ids, log-weight, log p(x) ψ(x), bound on log Z after it, model calls of the run until then."""

    ids: list[int]
    log_weight: float
    log_joint: float
    log_bound: float
    lm_calls: int


@dataclass(frozen=True)
class Learned:
    """Where a sampler that learns is.

    Trie, cache and lists are handed on from state to state, so that a step costs what is new: only the newest state may be stepped.

    Attributes:
        potentials: ψ, and what the trie starts from.
        growing: the trie.
        cache: scores by node.
        version: of the trie.
        num: texts wanted for each prompt.
        parallel: texts of one prompt in a round.
        drawn: for each prompt the texts that are kept.
        attempts: for each prompt the bound before each attempt and whether it succeeded.
        lm_calls: next-token distributions asked for.
    """

    potentials: tuple[Potential[Any], ...]
    growing: GrowingTrie
    cache: ScoreCache
    version: int
    num: int
    parallel: int
    drawn: tuple[list[Drawn], ...]
    attempts: tuple[list[tuple[float, bool]], ...]
    lm_calls: int

    @property
    def trie(self) -> Trie:
        """What was learned, as a value of its own."""
        return self.growing.frozen()


class _Adaptive(Sampler[Learned]):
    """What both have in common."""

    exact: bool

    def init(
        self,
        problem: Problem,
        num: int,
        rng: torch.Generator,
        *,
        trie: Trie | None = None,
        start: Potential[Any] | None = None,
        sound: bool = False,
        parallel: int = 1,
        cache_bytes: int = _CACHE_BYTES,
    ) -> Learned:
        """What a run starts from.

        Args:
            problem: the target.
            num: texts for each prompt.
            rng: not used here.
            trie: what was learned before, of the same model, potential, budget and start; None starts from nothing.
            start: a potential that stands where the trie knows nothing, in place of 1, and equals 1 at the end of every text that ψ
                allows: another upper bound, or a `Lookahead`, whose values are estimates only.
            sound: whether `start` is an upper bound; if not, or if ψ is not hard, the values of the trie are none either, and say so
                (`Trie.sound`). Log-weights hold in any case.
            parallel: texts of one prompt that are drawn side by side, from what was known before any of them: fewer, larger calls of the
                model, and each teaches the others nothing. Weights and exactness hold for any number.
            cache_bytes: bound on the scores that are kept for prefixes seen before.

        Raises:
            InputError: the trie was learned for something else, or `parallel` is below 1.
        """
        del rng
        if parallel < 1:
            raise InputError(
                f"parallel must be at least 1, got {parallel}; 1 learns from every text before the next one"
            )
        problem.check(start)
        _check_prompts(problem)
        potentials = (problem.potential,) if start is None else (problem.potential, start)
        key = trie_key(problem, start)
        if trie is None:
            bound = problem.potential.hard and (start is None or sound)
            trie = Trie(problem.lm.size, problem.max_new_tokens, problem.eos_token_ids, key, bound)
        trie.check(
            size=problem.lm.size, max_new_tokens=problem.max_new_tokens, key=key, eos_token_ids=problem.eos_token_ids
        )
        growing = GrowingTrie(trie)
        drawn = tuple(list[Drawn]() for _ in problem.prompts)
        attempts = tuple(list[tuple[float, bool]]() for _ in problem.prompts)
        return Learned(potentials, growing, ScoreCache(cache_bytes), growing.version, num, parallel, drawn, attempts, 0)

    def step(self, problem: Problem, state: Learned, rng: torch.Generator) -> tuple[Learned, Round]:
        """`parallel` texts for every prompt that wants more, and what they teach, up to the root.

        Raises:
            DeadEnd: the model gives no probability to anything that the potential allows.
            InputError: a state was stepped twice.
        """
        if state.version != state.growing.version:
            raise InputError(
                "this state was stepped already, and its trie has moved on; go on from the state that step returned"
            )
        wanting = [row for row, own in enumerate(state.drawn) if len(own) < state.num for _ in range(state.parallel)]
        keys = [problem.prompt_ids(row) for row in wanting]
        bounds = tuple(state.growing.log_bound(key) for key in keys)
        if -math.inf in bounds:
            row = wanting[bounds.index(-math.inf)]
            raise DeadEnd(row, problem.prompt_ids(row), problem.potential.describe())
        walked, calls = walk(problem, state.potentials, state.growing, state.cache, wanting, rng, exact=self.exact)
        for place, (key, text) in enumerate(zip(keys, walked, strict=True)):
            seen = text.seen
            if key in keys[:place]:  # what a text of the round has explored since is no longer unexplored
                seen = seen._replace(log_rest=np.full_like(seen.log_rest, np.nan))
            nodes = state.growing.insert(key, seen)
            for node, scores in zip(nodes[len(nodes) - len(text.new) :], text.new, strict=True):
                state.cache.put(node, scores)
        for row, key, text, bound in zip(wanting, keys, walked, bounds, strict=True):
            # In units of ψ itself: the start is taken out again.
            state.attempts[row].append((bound - text.log_start, not text.rejected))
            if not (self.exact and text.rejected) and len(state.drawn[row]) < state.num:
                weight = 0.0 if self.exact else text.log_weight
                after = state.growing.log_bound(key) - text.log_start
                state.drawn[row].append(Drawn(text.ids, weight, text.log_joint, after, state.lm_calls + calls))
        new = replace(state, version=state.growing.version, lm_calls=state.lm_calls + calls)
        return new, Round(tuple(walked), bounds)

    def done(self, problem: Problem, state: Learned) -> bool:
        """Whether every prompt has its texts."""
        del problem
        return all(len(own) >= state.num for own in state.drawn)

    def progress(self, problem: Problem, state: Learned) -> Progress:
        """In texts."""
        return Progress(sum(map(len, state.drawn)), state.num * len(problem.prompts), state.lm_calls)

    def samples(self, problem: Problem, state: Learned) -> Samples:
        """What was drawn; `info` has the trie, and for each text log p(x) ψ(x), the bound on log Z and the calls made after it."""
        tokens = [[one.ids for one in own] for own in state.drawn]
        weights = [torch.tensor([one.log_weight for one in own], dtype=torch.float64) for own in state.drawn]
        info = {
            "trie": state.trie,
            "log_joint": [[one.log_joint for one in own] for own in state.drawn],
            "log_bound": [[one.log_bound for one in own] for own in state.drawn],
            "calls": [[one.lm_calls for one in own] for own in state.drawn],
            "attempts": [len(own) for own in state.attempts],
            "log_z_bound": [self._bound(problem, state, row) for row in range(len(problem.prompts))],
        }
        return weighted(tokens, weights, state.lm_calls, info)

    def _bound(self, problem: Problem, state: Learned, row: int) -> float:
        """log r of a prompt in units of ψ; with a start, of which only ratios are known, as the last text tells it."""
        if len(state.potentials) == 1:
            return state.growing.log_bound(problem.prompt_ids(row))
        return state.drawn[row][-1].log_bound if state.drawn[row] else math.inf


class ASAp(_Adaptive):
    """Adaptive sampling with approximate expected futures (Park et al. 2024, Grammar-Aligned Decoding, algorithm 1).

    Tokens are drawn by p(v | x) c(x·v) / c(x), where c is an upper bound of the probability that the model, left alone behind x,
    would satisfy the constraint: 1 where nothing is known, and exactly Σ_v p(v | x) c(x·v) where x was visited. It only falls, and
    samples tend to the target as it nears the truth. Every text has its weight, so that early ones are not lost: log w = Σ_t log
    [Σ_v p(v | x) c(x·v) / c(x·v_t)]. The budget is part of the constraint. Scores of prefixes seen before come from a cache.
    """

    name = "asap"
    exact = False

    @staticmethod
    def learn(trie: Trie, reports: Sequence[RowReport]) -> Trie:
        """What a trie knows after texts that `generate` drew under `ControlProcessor(Future(trie) * potential)`.

        Args:
            trie: the one that `Future` was made with; it stays as it is.
            reports: of `ControlProcessor.report(sequences)`, with the `eos_token_ids` of the model given to the processor.

        Returns:
            A new trie.

        Raises:
            InputError: a report does not have the log-probability of every token, as after assisted decoding; or one has a token of
                weight 0.
        """
        growing = GrowingTrie(trie)
        for report in reports:
            growing.insert(report.prompt, _seen_of(report, trie, growing))
        return growing.frozen()


class CARS(_Adaptive):
    """Constrained adaptive rejection sampling (Parys et al. 2025): exact samples of the target, from the first accepted one on.

    The model is sampled without a mask, except that what the trie knows to be impossible is taken out of it, exactly: by
    p(v | x) c(x·v) / c(x) at prefixes that were visited, and by p itself beyond. A text is given up at the first token that is
    forbidden, and teaches the trie all that the masks on its way forbid, so the next one is accepted with a larger probability,
    Z / c(root). All log-weights are 0. The estimate of log Z is the log of the mean, over attempts, of c(root) where the
    attempt succeeded and 0 where not, without the last one, which is a success because the run stops at it. Of a single text it is
    too high: it takes all.

    The potential must be an upper bound of what it becomes, as every hard one is; otherwise it says so.
    """

    name = "cars"
    exact = True

    def samples(self, problem: Problem, state: Learned) -> Samples:
        """What was accepted; `info["acceptance"]` is the share of attempts that were, for each prompt."""
        found = super().samples(problem, state)
        tried = [
            torch.tensor([c if hit else -math.inf for c, hit in own], dtype=torch.float64) for own in state.attempts
        ]
        log_z = torch.stack([log_mean_exp(own) for own in tried])
        ess = torch.stack([effective_sample_size(own) for own in found.log_weights])
        share = [sum(hit for _, hit in own) / max(1, len(own)) for own in state.attempts]
        return replace(found, log_z=log_z, ess=ess, info=found.info | {"acceptance": share})


def _check_prompts(problem: Problem) -> None:
    """A trie tells prompts apart by their ids, so one prompt cannot have two constraints."""
    prompts = [problem.prompt_ids(row) for row in range(len(problem.prompts))]
    if problem.potential.rows is not None and len(set(prompts)) < len(prompts):
        raise InputError(
            "two prompts with the same ids have constraints of their own, and what is learned is kept by prompt; sample them in two calls"
        )


def trie_key(problem: Problem, start: Potential[Any] | None = None) -> str:
    """What a trie belongs to, beside prompt and budget; "" if model or potential cannot tell."""
    parts = [problem.lm.fingerprint, problem.potential.fingerprint, *([] if start is None else [start.fingerprint])]
    return "-".join(part[:16] for part in parts) if all(parts) else ""


def _seen_of(report: RowReport, trie: Trie, growing: GrowingTrie) -> Seen:
    """What one report shows: it was made under `trie`; `growing` has learned from the reports before it.

    A normaliser N is Σ_v p̃(v) r(x·v) / r(x) under `trie`, so r(x) N less what is explored is what is not, in numbers of the
    size of r(x).
    """
    inner = report.steps - 1
    log_p = np.array(report.log_probs[:inner], np.float32)
    if report.dead_end or not np.isfinite(log_p).all():
        raise InputError(
            "a report lacks the log-probability of a token, or met a dead end; learn from sequences that plain sampling returned: "
            "trie = asap.learn(trie, processor.report(sequences))"
        )
    mass, rest = np.array(report.log_normalisers), np.empty(inner + 1)
    old, new = trie.roots.get(report.prompt, -1), growing.roots.get(report.prompt, -1)
    for at in range(inner + 1):
        before = float(trie.log_ratio[old]) if old >= 0 else 0.0
        if old >= 0:
            mass[at] = trie.log_mass[old]
        explored = dict(zip(*(values.tolist() for values in growing.edges(new)), strict=True))
        if at < inner:
            explored[report.tokens[at]] = float(log_p[at])
        known = [edge + trie.ratio_below(old, token) for token, edge in explored.items()]
        total = before + report.log_normalisers[at]
        share = sum(math.exp(value - total) for value in known)
        rest[at] = total + math.log1p(-share) if share < 1 else -math.inf
        if at < inner:
            old, new = trie.node_below(old, report.tokens[at]), growing.child(new, report.tokens[at])
    return Seen(np.array(report.tokens[:inner], np.int64), log_p, mass, rest)
