"""What samples say where nothing can be enumerated: bounds on log Z, joint log-probabilities, counts."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.errors import InputError
from ctrldecode.samplers._problem import problem_of
from ctrldecode.samplers._samples import Samples, effective_sample_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from ctrldecode.core.potential import Potential

__all__ = ["Bounds", "log_joint", "log_z_bounds", "summary"]


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
        prompt,
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
    # cars stops at a success, and mcmc's texts say nothing of Z: Markov's inequality is of neither.
    lower = -math.inf if samples.info.get("acceptance") is not None or math.isnan(estimate) else estimate + slack
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
