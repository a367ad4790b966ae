"""`branching`: sequential Monte Carlo whose particles try all their next tokens at once, and never hold a text twice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ctrldecode.core.potential import take
from ctrldecode.samplers._samples import Progress, Sampler, Samples, weighted

if TYPE_CHECKING:
    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._problem import Problem

__all__ = ["Branching", "Thicket", "Thinned", "thin"]


class Text(NamedTuple):
    """A text: ids, log of its weight under the target, log of the twist's value."""

    ids: tuple[int, ...]
    log_weight: float
    log_twist: float


class Thinned(NamedTuple):
    """What one step came to.

    Attributes:
        children: texts of positive weight that there were.
        log_threshold: log of the weight below which a child was kept at random; −inf if all were kept.
    """

    children: int
    log_threshold: float


@dataclass(frozen=True)
class Thicket:
    """Where the sampler is; prompts are done one after the other.

    Attributes:
        potentials: ψ, and the twist.
        num: most texts that are kept.
        prompt: number of the current prompt.
        states: of model and potentials at the growing texts; None before the first token.
        growing: texts that go on.
        ended: texts that do not.
        finished: for each prompt that is done, its texts.
        lm_calls: next-token distributions asked for.
    """

    potentials: tuple[Potential[Any], ...]
    num: int
    prompt: int = 0
    states: tuple[Any, ...] | None = None
    growing: tuple[Text, ...] = ()
    ended: tuple[Text, ...] = ()
    finished: tuple[tuple[Text, ...], ...] = ()
    lm_calls: int = 0


class Branching(Sampler[Thicket]):
    """Twisted sequential Monte Carlo over all continuations, thinned by the resampling of Fearnhead and Clifford (2003).

    Each text that is kept is continued by every token, each child with its exact weight p(x) ψ(x) τ(x), and of all children at most
    `num` are kept: those above a threshold κ with their weights, the others with probability weight/κ at the weight κ. Weights
    are kept in expectation, so E[Ẑ] = Z, and no two texts are the same. Of the unbiased ways to thin, it has the least variance
    in the weights. Against `smc` it asks the twist about the whole vocabulary, and wastes no particle on copies; it is what
    beam search would be as a sampler.
    """

    name = "branching"

    def init(self, problem: Problem, num: int, rng: torch.Generator, *, twist: Potential[Any] | None = None) -> Thicket:
        """What a run starts from.

        Args:
            problem: the target.
            num: most texts for each prompt; fewer are returned where there are no more.
            rng: not used here.
            twist: τ, positive where ψ is; None for none.
        """
        del rng
        problem.check(twist)
        return Thicket((problem.potential,) if twist is None else (problem.potential, twist), num)

    def step(self, problem: Problem, state: Thicket, rng: torch.Generator) -> tuple[Thicket, Thinned]:
        """One more token for every text of the current prompt."""
        own = problem.select([state.prompt])
        states, growing = state.states, state.growing
        if states is None:
            states, growing = tuple(own.start(model) for model in (own.lm, *state.potentials)), (Text((), 0.0, 0.0),)
        log_weights, log_twist = _children(own, state.potentials, states, growing)
        values = log_weights if log_twist is None else log_weights + log_twist
        live = (~log_weights.flatten().isneginf()).nonzero()[:, 0]
        before = torch.tensor([text.log_weight + text.log_twist for text in state.ended], dtype=torch.float64)
        kept, new, log_threshold = thin(torch.cat([before, values.flatten()[live]]), state.num, rng)
        ended, parents, texts = list[Text](), list[int](), list[Text]()
        last = len(growing[0].ids) + 1 == problem.max_new_tokens
        for place, value in zip(kept.tolist(), new.tolist(), strict=True):
            if place < len(before):
                old = state.ended[place]
                ended.append(old._replace(log_weight=value - old.log_twist))
                continue
            row, token = divmod(int(live[place - len(before)]), problem.lm.size)
            twist = 0.0 if log_twist is None else float(log_twist[row, token])
            text = Text((*growing[row].ids, token), value - twist, twist)
            if last or token in problem.eos_token_ids:
                ended.append(text)
            else:
                parents.append(row)
                texts.append(text)
        after = replace(state, growing=tuple(texts), ended=tuple(ended), lm_calls=state.lm_calls + len(growing))
        info = Thinned(len(live) + len(before), log_threshold)
        if not texts:
            finished = (*state.finished, after.ended)
            return replace(after, prompt=state.prompt + 1, states=None, growing=(), ended=(), finished=finished), info
        tokens = torch.tensor([text.ids[-1] for text in texts])
        models = (own.lm, *state.potentials)
        stepped = tuple(model.step(take(part, parents), tokens) for model, part in zip(models, states, strict=True))
        return replace(after, states=stepped), info

    def done(self, problem: Problem, state: Thicket) -> bool:
        """Whether all prompts are."""
        return state.prompt >= len(problem.prompts)

    def progress(self, problem: Problem, state: Thicket) -> Progress:
        """In tokens, as if every prompt would use the whole budget."""
        here = len(state.growing[0].ids) if state.growing else 0
        every = problem.max_new_tokens
        return Progress(state.prompt * every + here, len(problem.prompts) * every, state.lm_calls)

    def samples(self, problem: Problem, state: Thicket) -> Samples:
        """The texts, with weights whose mean estimates Z, as those of all samplers do."""
        found = [*state.finished]
        if state.prompt < len(problem.prompts):
            found.append((*state.ended, *state.growing))
        found += [()] * (len(problem.prompts) - len(found))
        tokens = [[list(text.ids) for text in own] for own in found]
        weights = [
            torch.tensor([text.log_weight for text in own], dtype=torch.float64) + math.log(max(1, len(own)))
            for own in found
        ]
        samples = weighted(tokens, weights, state.lm_calls, {})
        samples.log_z[state.prompt :] = torch.nan
        return samples


def _children(
    problem: Problem, potentials: tuple[Potential[Any], ...], states: tuple[Any, ...], texts: tuple[Text, ...]
) -> tuple[Tensor, Tensor | None]:
    """For every text and token (U, V) float64: log of the weight under the target, and of the twist's value."""
    scores = problem.lm.log_weights(states[0]).cpu().clone()
    potentials[0].add_log_weights(states[1], scores)
    log_weights = scores.double() + torch.tensor([text.log_weight for text in texts], dtype=torch.float64)[:, None]
    if len(potentials) == 1:
        return log_weights, None
    log_twist = potentials[1].log_weights(states[2]).cpu().double()
    # Where the twist forbids what the target allows, the child is lost; where it is the target that forbids, nothing is.
    log_twist += torch.tensor([text.log_twist for text in texts], dtype=torch.float64)[:, None]
    log_weights = log_weights.masked_fill(log_twist.isneginf(), -math.inf)
    return log_weights, log_twist


def thin(log_values: Tensor, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """At most `num` of some weighted things, unbiased and with the least variance (Fearnhead and Clifford 2003, section 3).

    The threshold κ solves Σ min(1, w/κ) = num. What is above it is kept; of the rest a systematic sample is, at the weight κ.

    Args:
        log_values: (M,) float64, logs of the weights w > 0.
        num: how many may be kept.
        rng: one uniform number.

    Returns:
        Indices (n,) of what is kept, logs of the new weights (n,), and log κ, −inf where all are kept.

    Example:
        >>> kept, log_values, _ = thin(torch.tensor([8.0, 1.0, 1.0, 1.0]).double().log(), 2, torch.Generator().manual_seed(0))
        >>> kept.tolist()[0], log_values.exp().round(decimals=6).tolist()
        (0, [8.0, 3.0])
    """
    if len(log_values) <= num:
        return torch.arange(len(log_values)), log_values, -math.inf
    ordered, order = log_values.sort(descending=True)
    rest = ordered.flip(0).logcumsumexp(0).flip(0)[:num]  # log of what is left if the first k are kept
    thresholds = rest - (num - torch.arange(num)).log()
    count = int((ordered[:num] <= thresholds).int().argmax())
    log_threshold = float(thresholds[count])
    edges = (ordered[count:] - ordered[count]).exp().cumsum(0)
    points = torch.arange(num - count, dtype=torch.float64) + torch.rand((), generator=rng, dtype=torch.float64)
    drawn = torch.searchsorted(edges, points * edges[-1] / (num - count), right=True).clamp_max(len(edges) - 1)
    kept = torch.cat([order[:count], order[count:][drawn]])
    new = torch.cat([ordered[:count], torch.full((num - count,), log_threshold, dtype=torch.float64)])
    return kept, new, log_threshold
