"""Small problems whose target is known: a table as the language model, a random automaton as the constraint."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from ctrldecode.automata import TokenDFA
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.core.potential import Potential

SIZE, EOS, LENGTH = 5, 4, 5


class TableState(NamedTuple):
    last: torch.Tensor
    finished: torch.Tensor


class TableLM(LanguageModel):
    """p(v | last token), from a random table; counts the rows that it was asked for."""

    def __init__(self, seed: int = 0, size: int = SIZE, eos: int = EOS, sharpness: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.size, self.eos_token_ids = size, (eos,)
        self.table = torch.log_softmax(sharpness * torch.randn(size, size, generator=rng), -1)
        self.asked = 0

    def init(self, prompts, mask=None, budget=None):
        return TableState(prompts[:, -1], torch.zeros(len(prompts), dtype=torch.bool))

    def log_weights(self, state, tokens=None):
        self.asked += len(state.last)
        weights = self.table[state.last].masked_fill(state.finished[:, None], 0.0)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens):
        return TableState(tokens, state.finished | (tokens == self.eos_token_ids[0]))


class SoftState(NamedTuple):
    last: torch.Tensor
    finished: torch.Tensor


class Soft(Potential):
    """A potential of positive weights that depend on the last token and the next one."""

    def __init__(self, seed: int = 0, size: int = SIZE, eos: int = EOS) -> None:
        self.size, self.eos = size, eos
        self.table = 0.7 * torch.randn(size, size, generator=torch.Generator().manual_seed(100 + seed))

    def init(self, prompts, mask=None, budget=None):
        return SoftState(prompts[:, -1], torch.zeros(len(prompts), dtype=torch.bool))

    def log_weights(self, state, tokens=None):
        weights = self.table[state.last].masked_fill(state.finished[:, None], 0.0)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens):
        return SoftState(tokens, state.finished | (tokens == self.eos))


def automaton(seed: int, states: int = 4, size: int = SIZE, eos: int = EOS) -> AutomatonPotential:
    """A random automaton that accepts something and not everything."""
    rng = np.random.default_rng(seed)
    while True:
        table = rng.integers(-1, states, (states, size))
        dfa = TokenDFA(table, 0, sorted({int(rng.integers(states)), states - 1}), eos)
        if not dfa.is_empty and dfa.accept_distance[0] <= 2:
            return AutomatonPotential(dfa)


class Exact(NamedTuple):
    texts: list[tuple[int, ...]]
    log_probs: np.ndarray  # of the target, normalised
    log_z: float


def enumerate_all(lm, potential, prompt=(0,), length: int = LENGTH) -> Exact:
    """Every text by recursion, one row at a time: nothing is shared with the code under test."""
    texts, logs = [], []
    prompts = torch.tensor([prompt])
    budget = torch.tensor([length])

    def grow(text, total, lm_state, state):
        p = lm.log_weights(lm_state)[0].double()
        w = potential.log_weights(state)[0].double()
        for token in range(lm.size):
            value = total + float(p[token]) + float(w[token])
            if value == -math.inf:
                continue
            if token in lm.eos_token_ids or len(text) + 1 == length:
                texts.append((*text, token))
                logs.append(value)
            else:
                at = torch.tensor([token])
                grow((*text, token), value, lm.step(lm_state, at), potential.step(state, at))

    grow((), 0.0, lm.init(prompts), potential.init(prompts, None, budget))
    values = np.array(logs)
    log_z = float(np.logaddexp.reduce(values))
    return Exact(texts, values - log_z, log_z)
