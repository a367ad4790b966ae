"""Potentials over a vocabulary of five tokens, for tests of records."""

from __future__ import annotations

import math

import torch

from ctrldecode import (
    HMM,
    Grammar,
    Lookahead,
    TokenDFA,
    Vocabulary,
)
from ctrldecode.core.potential import Potential
from tests.guidance.models import EOS, SIZE
from tests.toys import Table

TEXT = Vocabulary([b"a", b"b", b"c", b" ", None], EOS)
PROMPT = torch.tensor([[0, 1]])

# At most two tokens 0, and any of the others; an even number of tokens 1.
PAIRS = TokenDFA(
    [[2, 1, 0, 0, -1], [3, 0, 1, 1, -1], [4, 3, 2, 2, -1], [5, 2, 3, 3, -1], [-1, 5, 4, 4, -1], [-1, 4, 5, 5, -1]],
    start=0,
    accepting=[0, 2, 4],
    eos_token_ids=[EOS],
)


def soft(seed=3):
    return Table(SIZE, seed=seed, eos=EOS)


EMISSIONS = [[0.1, 0.2, 0.3, 0.4, 0], [0.4, 0.3, 0.2, 0.1, 0], [0, 0, 0, 0, 1]]


class Evens(Potential[torch.Tensor]):
    """Hard: texts of an even number of tokens; the state is that number."""

    size, hard = SIZE, True

    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts), dtype=torch.long)

    def log_weights(self, state, tokens=None):
        listed = torch.arange(SIZE).expand(len(state), SIZE) if tokens is None else tokens
        return torch.zeros(listed.shape).masked_fill((listed == EOS) & (state % 2 == 1)[:, None], -math.inf)

    def step(self, state, tokens):
        return state + 1


def lookahead(**more):
    hmm = HMM([0.6, 0.4, 0], [[0.5, 0.4, 0.1], [0.3, 0.6, 0.1], [0, 0, 1]], EMISSIONS, eos_token_ids=[EOS])
    return Lookahead(hmm, PAIRS, max_new_tokens=5, **more)


def grammar(rules):
    return Grammar(rules).compile(TEXT)
