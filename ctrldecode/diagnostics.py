"""How far texts are from the target p(x) ψ(x) / Z: exactly for small problems, by bounds and weights for large ones.

It knows potentials and samples, no files and no plots.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ctrldecode.core.potential import take
from ctrldecode.errors import InputError
from ctrldecode.samplers._problem import Problem, problem_of
from ctrldecode.samplers._samples import Samples, effective_sample_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.core.potential import Potential

__all__ = [
    "Bounds",
    "Distances",
    "Distribution",
    "Interval",
    "distances",
    "exact",
    "kl",
    "log_joint",
    "log_z_bounds",
    "summary",
    "token_wise",
]

# Rows of one call of the model while texts are enumerated.
_ROWS = 256
_RESAMPLES = 1000


@dataclass(frozen=True)
class Distribution:
    """A distribution over finitely many texts.

    Attributes:
        texts: tuples of ids, the end of sequence included where there is one.
        log_probs: (n,) float64, natural logs that add up to 1.
        log_z: log of the mass before it was normalised.
    """

    texts: list[tuple[int, ...]]
    log_probs: NDArray[np.float64]
    log_z: float

    def log_prob(self, text: Sequence[int]) -> float:
        """log of the probability of one text; −inf outside the support."""
        place = self._places.get(tuple(text))
        return -math.inf if place is None else float(self.log_probs[place])

    @property
    def _places(self) -> dict[tuple[int, ...], int]:
        known = self.__dict__.get("places")
        if known is None:
            known = {text: place for place, text in enumerate(self.texts)}
            self.__dict__["places"] = known
        return known


class Interval(NamedTuple):
    """An estimate with the 2.5 % and 97.5 % quantiles of its bootstrap distribution.

    Distances of empirical distributions are biased upwards, and resampling adds as much again: of few samples, the interval may lie
    above the estimate.
    """

    value: float
    low: float
    high: float


class Distances(NamedTuple):
    """How far weighted samples q̂ are from a target π.

    Attributes:
        kl: KL(q̂ ‖ π), in nats; +inf if a sample lies outside the target. Of few samples it is too large: a sample of n from π itself
            has about (number of texts − 1) / 2n.
        reverse_kl: KL(π ‖ q̂); +inf unless every text of the target was sampled.
        total_variation: ½ Σ |q̂ − π|, in 0 to 1.
        unseen: π's mass on texts that were not sampled.
    """

    kl: Interval
    reverse_kl: Interval
    total_variation: Interval
    unseen: float


class Bounds(NamedTuple):
    """Bounds on log Z.

    Attributes:
        lower: log of what the texts found have in p(x) ψ(x), or what holds with the confidence asked for, if that is more.
        upper: of a sound trie, or by conditional SMC with the confidence asked for; +inf if there is neither.
        estimate: log of the mean weight.
    """

    lower: float
    upper: float
    estimate: float


def exact(
    lm: Potential[Any],
    potential: Potential[Any],
    prompt: Tensor | Sequence[int],
    *,
    max_new_tokens: int,
    eos_token_ids: Iterable[int] | None = None,
    limit: int = 1_000_000,
) -> Distribution:
    """The target p(x) ψ(x) / Z of one prompt, by enumeration.

    Args:
        lm: p.
        potential: ψ.
        prompt: (P,) ids.
        max_new_tokens: the budget, as of the sampler in question.
        eos_token_ids: ids that end a text; None takes the model's.
        limit: most prefixes and texts to look at.

    Raises:
        InputError: there are more; the problem is too large to enumerate.

    Example:
        >>> import ctrldecode as cd
        >>> hmm = cd.HMM([1, 0], [[0.5, 0.5], [0, 1]], [[0.25, 0.75, 0], [0, 0, 1]], eos_token_ids=[2])
        >>> no_ones = cd.AutomatonPotential(cd.TokenDFA([[0, -1, -1]], 0, [0], 2))
        >>> found = exact(cd.HMMLanguageModel(hmm), no_ones, [0], max_new_tokens=2)
        >>> found.texts, found.log_probs.round(2).tolist(), round(found.log_z, 2)
        ([(2,), (0, 0), (0, 2)], [-0.15, -3.61, -2.22], -0.55)
    """
    problem = problem_of(
        lm,
        potential,
        torch.as_tensor(prompt)[None],
        mask=None,
        max_new_tokens=max_new_tokens,
        eos_token_ids=eos_token_ids,
    )
    return _enumerated(problem, limit, normalise=False)


def token_wise(
    lm: Potential[Any],
    potential: Potential[Any],
    prompt: Tensor | Sequence[int],
    *,
    max_new_tokens: int,
    eos_token_ids: Iterable[int] | None = None,
    limit: int = 1_000_000,
) -> Distribution:
    """What is drawn by sampling token by token under the potential, each step normalised: the masked model. By enumeration.

    It is the q whose KL from `exact` says how much masking distorts (Park et al. 2024, section 2). Arguments as there.
    """
    problem = problem_of(
        lm,
        potential,
        torch.as_tensor(prompt)[None],
        mask=None,
        max_new_tokens=max_new_tokens,
        eos_token_ids=eos_token_ids,
    )
    return _enumerated(problem, limit, normalise=True)


def _enumerated(problem: Problem, limit: int, *, normalise: bool) -> Distribution:
    texts: list[tuple[int, ...]] = []
    logs: list[float] = []
    stack = [((problem.start(problem.lm), problem.start(problem.potential)), [()], torch.zeros(1, dtype=torch.float64))]
    looked = 0
    with torch.no_grad():
        while stack:
            (model, control), prefixes, values = stack.pop()
            scores = problem.lm.log_weights(model).cpu().clone()
            problem.potential.add_log_weights(control, scores)
            scores = (
                scores.double().log_softmax(-1).nan_to_num(-math.inf, neginf=-math.inf)
                if normalise
                else scores.double()
            )
            totals = values[:, None] + scores
            parents, tokens = (~totals.isneginf()).nonzero(as_tuple=True)
            looked += len(parents)
            if looked > limit:
                raise InputError(
                    f"there are more than {limit} texts and prefixes, too many to enumerate; lower max_new_tokens, narrow the potential, or raise "
                    "limit; log_z_bounds works for any size"
                )
            whole = problem.ends(tokens) | torch.tensor(len(prefixes[0]) + 1 >= problem.max_new_tokens)
            grown = [(*prefixes[row], token) for row, token in zip(parents.tolist(), tokens.tolist(), strict=True)]
            texts += [text for text, done in zip(grown, whole.tolist(), strict=True) if done]
            logs += totals[parents, tokens][whole].tolist()
            rest = (~whole).nonzero()[:, 0]
            for some in rest.split(_ROWS) if len(rest) else ():
                states = tuple(
                    part.step(take(state, parents[some]), tokens[some])
                    for part, state in ((problem.lm, model), (problem.potential, control))
                )
                stack.append((states, [grown[i] for i in some.tolist()], totals[parents[some], tokens[some]]))  # type: ignore[arg-type]
    values = np.array(logs, np.float64)
    log_z = float(np.logaddexp.reduce(values)) if len(values) else -math.inf
    return Distribution(texts, values - log_z if len(values) else values, log_z)


def kl(q: Distribution, p: Distribution) -> float:
    """KL(q ‖ p) in nats, of distributions that are known exactly; +inf if p lacks a text of q."""
    found = np.array([p.log_prob(text) for text in q.texts])
    return float((np.exp(q.log_probs) * (q.log_probs - found)).sum())


def distances(
    texts: Sequence[Sequence[int]],
    log_weights: Tensor,
    target: Distribution,
    *,
    rng: np.random.Generator,
    resamples: int = _RESAMPLES,
) -> Distances:
    """How far weighted samples of one prompt are from the exact target, with bootstrap intervals over the samples.

    Args:
        texts: n texts as ids, such as `samples.tokens[0]`.
        log_weights: (n,), such as `samples.log_weights[0]`.
        target: from `exact`.
        rng: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: there is no text of positive weight.
    """
    weights = (log_weights.double() - log_weights.double().max()).exp().nan_to_num(0.0).numpy()
    if not len(weights) or not weights.sum() > 0:
        raise InputError("distances wants at least one text of positive weight; draw more samples")
    support = {text: place for place, text in enumerate(target.texts)}
    outside = len(support)
    places = np.array([support.get(tuple(text), outside) for text in texts])
    log_pi = np.append(target.log_probs, -math.inf)

    def measured(picked: NDArray[np.int64]) -> tuple[float, float, float]:
        mass = np.bincount(places[picked], weights[picked], minlength=outside + 1)
        return _measured(mass / mass.sum(), log_pi)

    whole = measured(np.arange(len(texts)))
    drawn = np.array([measured(rng.integers(len(texts), size=len(texts))) for _ in range(resamples)]).reshape(-1, 3)
    # Of a distance that is +inf in the sample itself, the quantiles are not worth having.
    ends = (
        np.quantile(np.nan_to_num(drawn, posinf=1e308), [0.025, 0.975], axis=0) if resamples else np.tile(whole, (2, 1))
    )
    low, high = ends.tolist()
    intervals = [
        Interval(value, low[i], high[i]) if math.isfinite(value) else Interval(value, value, value)
        for i, value in enumerate(whole)
    ]
    seen = np.unique(places[weights > 0])
    unseen = 1.0 - float(np.exp(log_pi[seen]).sum())
    return Distances(intervals[0], intervals[1], intervals[2], max(0.0, unseen))


def _measured(q: NDArray[np.float64], log_pi: NDArray[np.float64]) -> tuple[float, float, float]:
    """KL(q ‖ π), KL(π ‖ q), total variation."""
    pi = np.exp(log_pi)
    here = q > 0
    forward = float((q[here] * (np.log(q[here]) - log_pi[here])).sum())
    there = pi > 0
    with np.errstate(divide="ignore"):
        reverse = float((pi[there] * (log_pi[there] - np.log(q[there]))).sum())
    return forward, reverse, float(np.abs(q - pi).sum() / 2)


def log_joint(
    lm: Potential[Any],
    potential: Potential[Any],
    prompt: Tensor | Sequence[int],
    texts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_token_ids: Iterable[int] | None = None,
) -> Tensor:
    """log p(x | prompt) + log ψ(x) − log ψ(prompt) of whole texts, (n,) float64; one pass of model and potential over them."""
    problem = problem_of(
        lm,
        potential,
        torch.as_tensor(prompt)[None],
        mask=None,
        max_new_tokens=max_new_tokens,
        eos_token_ids=eos_token_ids,
    )
    if not texts:
        return torch.zeros(0, dtype=torch.float64)
    own = problem.select([0] * len(texts))
    states = [own.start(part) for part in (own.lm, own.potential)]
    total = torch.zeros(len(texts), dtype=torch.float64)
    end = problem.eos_token_ids[0] if problem.eos_token_ids else 0
    with torch.no_grad():
        for at in range(max(map(len, texts))):
            tokens = torch.tensor([text[at] if at < len(text) else end for text in texts])
            going = torch.tensor([at < len(text) for text in texts])
            for place, part in enumerate((own.lm, own.potential)):
                values = part.log_weights(states[place], tokens[:, None])[:, 0].cpu().double()
                total += torch.where(going, values, 0.0)
                states[place] = part.step(states[place], tokens)
    return total


def log_z_bounds(
    samples: Samples,
    prompt: int = 0,
    *,
    log_joints: Tensor | None = None,
    retained: Samples | None = None,
    confidence: float = 0.95,
) -> Bounds:
    """Bounds on log Z for one prompt of a run.

    Below: Σ p(x) ψ(x) over the different texts found cannot exceed Z; and since E[Ẑ] = Z, Markov's inequality gives
    P(Ẑ ≥ Z / δ) ≤ δ for weighted samplers. Above: the bound of a sound trie; and for a run of conditional SMC whose retained text
    is a sample of the target, E[1 / Ẑ] = 1 / Z gives P(Ẑ ≤ δ Z) ≤ δ (Grosse et al. 2015, bidirectional Monte Carlo).

    Args:
        samples: of any sampler but `mcmc`, whose weights say nothing of Z.
        prompt: its number.
        log_joints: (n,) from `log_joint` for `samples.tokens[prompt]`; None leaves that bound out, unless the sampler knows them.
        retained: of `smc(..., retained=...)`.
        confidence: 1 − δ, of each of the two bounds that hold with a probability only.

    Raises:
        InputError: confidence is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    slack = math.log(1 - confidence)
    estimate = float(samples.log_z[prompt])
    known = samples.info.get("log_joint")
    if log_joints is None and known is not None:
        log_joints = torch.tensor(known[prompt], dtype=torch.float64)
    lower = estimate + slack
    if log_joints is not None:
        different = dict(zip(map(tuple, samples.tokens[prompt]), log_joints.tolist(), strict=True))
        lower = (
            max(lower, float(torch.tensor([*different.values()], dtype=torch.float64).logsumexp(-1)))
            if different
            else lower
        )
    upper = math.inf
    trie = samples.info.get("trie")
    if trie is not None and trie.sound:
        upper = float(samples.info["log_z_bound"][prompt])
    if retained is not None:
        upper = min(upper, float(retained.log_z[prompt]) - slack)
    return Bounds(lower, upper, estimate)


def summary(samples: Samples, prompt: int = 0) -> dict[str, float | int | str | None]:
    """Numbers that describe one prompt's samples, as JSON can hold them.

    texts, distinct (different ones of positive weight), duplicates (share that stood before), ess, log_z, acceptance where there is one,
    and why the run was stopped, if it was.
    """
    weights = samples.log_weights[prompt]
    live = [tuple(text) for text, w in zip(samples.tokens[prompt], weights.tolist(), strict=True) if w > -math.inf]
    distinct = len(Counter(live))
    found: dict[str, float | int | str | None] = {
        "texts": len(samples.tokens[prompt]),
        "distinct": distinct,
        "duplicates": 1 - distinct / len(live) if live else 0.0,
        "ess": float(effective_sample_size(weights)) if len(weights) else 0.0,
        "log_z": float(samples.log_z[prompt]),
        "lm_calls": samples.lm_calls,
        "stopped": samples.stopped,
    }
    acceptance = samples.info.get("acceptance")
    if acceptance is not None:
        found["acceptance"] = float(acceptance[prompt] if isinstance(acceptance, list) else acceptance)
    return found
