"""An HMM over twelve ids, an automaton and an attribute, large enough to be read and small enough to be quick."""

from __future__ import annotations

import numpy as np
import torch

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.hmm.model import HMM

__all__ = ["ENDS", "SIZE", "attribute", "both_of", "story_hmm"]

SIZE = 12
ENDS = (11,)


def story_hmm(seed: int = 0, hidden: int = 6, *, dtype: str = "float32") -> HMM:
    """An HMM over 12 ids, of which the last ends a text."""
    rng = np.random.default_rng(seed)
    emission = np.zeros((hidden, SIZE))
    emission[:-1, :-1] = rng.dirichlet(np.full(SIZE - 1, 0.3), hidden - 1)
    emission[-1, -1] = 1
    transition = rng.dirichlet(np.full(hidden, 0.5), hidden)
    transition[-1] = np.eye(hidden)[-1]
    initial = np.append(rng.dirichlet(np.ones(hidden - 1)), 0)
    return HMM(initial, transition, emission, ENDS, dtype=dtype)


def both_of(first: int, second: int) -> TokenDFA:
    """Texts with both tokens, in any order."""
    table = np.repeat(np.arange(4)[:, None], SIZE, axis=1)
    table[[0, 2], first] += 1
    table[[0, 1], second] += 2
    return TokenDFA(table, 0, [3], ENDS)


def attribute(seed: int = 1) -> AttributeWeights:
    values = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.1
    values[-1] = 1.0
    return AttributeWeights(values, ENDS)
