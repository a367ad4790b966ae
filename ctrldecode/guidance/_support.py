"""GeDi's rule of which tokens stay possible, on arrays."""

from __future__ import annotations

import torch
from torch import Tensor

from ctrldecode.kernels.levels import fewest

__all__ = ["top_posteriors"]


def top_posteriors(log_posteriors: Tensor, log_guided: Tensor, mass: float, threshold: float) -> Tensor:
    """Tokens of posterior ≥ threshold, and the fewest of highest posterior that hold `mass` of the guided distribution.

    Both sets are the tokens above some posterior, so one contains the other; sorting is needed only where the first is the smaller.
    At least one token that has guided mass is kept, if there is any.

    Args:
        log_posteriors: (B, V) log P(c | x·v).
        log_guided: (B, V) log of the guided distribution, up to a constant a row.
        mass: ρ in (0, 1].
        threshold: τ in [0, 1].

    Returns:
        (B, V) bool.

    Example:
        >>> posteriors = torch.tensor([[0.9, 0.7, 0.6, 0.1]]).log()
        >>> top_posteriors(posteriors, torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log(), 0.5, 0.8)
        tensor([[ True,  True, False, False]])
    """
    keep = log_posteriors.exp() >= threshold
    guided = torch.softmax(log_guided, dim=-1).nan_to_num_(nan=0.0)  # NaN where a row has no mass at all
    short = (guided * keep).sum(-1).double() < mass
    rows = short.nonzero().flatten()
    if len(rows):
        keep[rows] |= fewest(log_posteriors[rows], guided[rows], mass)
    return keep
