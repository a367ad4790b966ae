"""Distributions over all texts of a small problem, by enumeration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctrldecode.core.potential import take
from ctrldecode.errors import InputError
from ctrldecode.samplers._problem import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.core.potential import Potential

__all__ = ["Distribution", "exact", "kl", "token_wise"]

# Rows of one call of the model while texts are enumerated.
_ROWS = 256


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

    @cached_property
    def _places(self) -> dict[tuple[int, ...], int]:
        return {text: place for place, text in enumerate(self.texts)}


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
        prompt,
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
        prompt,
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
