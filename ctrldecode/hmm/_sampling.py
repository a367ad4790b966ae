"""Draws token sequences from an HMM: first the hidden states, then what each of them emits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ctrldecode.errors import InputError
from ctrldecode.hmm._emissions import blocks

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ctrldecode.hmm.model import HMM

__all__ = ["sample"]

_MOST = 2**48  # tokens: a petabyte
_TABLE = 1 << 25  # entries of the cumulative emissions that are held at a time: 256 MiB in float64


def sample(hmm: HMM, num: int, length: int, rng: np.random.Generator) -> Tensor:
    """(num, length) ids; behind its first end of sequence a sequence repeats it.

    Raises:
        InputError: a negative number or length, or more than there can be numbers in an array.
    """
    if num < 0 or length < 0:
        raise InputError(f"num and length must be at least 0, got {num} and {length}")
    if num * length > _MOST:
        raise InputError(f"{num} texts of {length} tokens are more than fit into memory; sample some at a time")
    chance = torch.from_numpy(rng.random((2, num, length)))  # on the CPU, so that every device gives the same
    states = _states(hmm, chance[0])
    tokens = _tokens(hmm, states.flatten(), chance[1].flatten()).view(num, length)
    ends = torch.isin(tokens, torch.tensor(hmm.eos_token_ids))
    behind = ends.cumsum(1) - ends.long() > 0
    first = tokens.gather(1, ends.int().argmax(1, keepdim=True)) if length else tokens
    return torch.where(behind, first, tokens).to(hmm.device)


def _states(hmm: HMM, chance: Tensor) -> Tensor:
    """Hidden states (B, T) from chance (B, T)."""
    transition = hmm.transition.cpu()
    rows = hmm.initial.cpu().expand(len(chance), -1)
    found = torch.empty(chance.shape, dtype=torch.long)
    for t in range(chance.shape[1]):
        found[:, t] = _drawn(rows.double().cumsum(1), chance[:, t, None])[:, 0]
        rows = transition[found[:, t]]
    return found


def _tokens(hmm: HMM, states: Tensor, chance: Tensor) -> Tensor:
    """Tokens (N,) that states (N,) emit. The columns of the emission are read for a group of states at a time."""
    tokens = torch.empty_like(states)
    for group in states.unique().split(max(1, _TABLE // hmm.size)):
        on_device = group.to(hmm.device)
        columns = torch.cat([rows[:, on_device] for _, rows in blocks(hmm.emission)])
        cumulative = columns.T.cpu().double().cumsum(1)  # (S, V)
        where = torch.searchsorted(group, states).clamp_max(len(group) - 1)
        mine = (group[where] == states).nonzero()[:, 0]
        for part in mine.split(max(1, _TABLE // hmm.size)):
            tokens[part] = _drawn(cumulative[where[part]], chance[part, None])[:, 0]
    return tokens


def _drawn(cumulative: Tensor, chance: Tensor) -> Tensor:
    """Invert distribution functions (N, K) at chance (N, 1): the first index whose sum exceeds chance times the total.

    What exceeds is strictly more than the sum before, so an index of probability zero is never drawn.
    """
    total = cumulative[:, -1:]
    index = torch.searchsorted(cumulative, chance * total, right=True)
    return index.clamp_max(cumulative.shape[1] - 1)
