"""A class-conditional language model in a table, and the posterior of a class by the definition, without any of our states."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ctrldecode.core.language_model import LanguageModel

SIZE, EOS = 5, 4
CODES = {"a": [0], "b": [1], "c": [2, 3]}


class TableState(NamedTuple):
    where: torch.Tensor
    finished: torch.Tensor
    history: list[tuple[int, ...]]


class TableModel(LanguageModel):
    """p(v | x) is a row of a random table, chosen by a walk over all tokens, so that what was said first is never forgotten."""

    def __init__(self, size=SIZE, eos=EOS, *, states=31, seed=0, zeros=0.0, bos=None):
        rng = torch.Generator().manual_seed(seed)
        self.size, self.eos_token_ids, self.states = size, (eos,), states
        table = torch.randn(states, size, generator=rng)
        table[torch.rand(states, size, generator=rng) < zeros] = -math.inf
        table[:, eos] = -1.0
        self.table = torch.log_softmax(table, -1)
        self.steps = 0
        self.fingerprint = f"table {size} {seed} {zeros}"
        self.config = {} if bos is None else {"bos_token_id": bos}

    def init(self, prompts, mask=None, budget=None):
        where = torch.zeros(len(prompts), dtype=torch.long)
        for column in range(prompts.shape[1]):
            real = torch.ones(len(prompts), dtype=torch.bool) if mask is None else mask[:, column]
            where = torch.where(real, self.move(where, prompts[:, column]), where)
        return TableState(where, torch.zeros(len(prompts), dtype=torch.bool), [()] * len(prompts))

    def log_weights(self, state, tokens=None):
        weights = self.table[state.where].masked_fill(state.finished[:, None], 0.0)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens):
        self.steps += 1
        finished = state.finished | (tokens == self.eos_token_ids[0])
        where = torch.where(state.finished, state.where, self.move(state.where, tokens))
        past = [(*row, token) for row, token in zip(state.history, tokens.tolist(), strict=True)]
        return TableState(where, finished, past)

    def move(self, where, token):
        return (where * 7 + token * 3 + 1) % self.states

    def log_probs(self, before):
        """log p(· | before), a list of numbers."""
        where = 0
        for token in before:
            where = int(self.move(where, token))
        return self.table[where].double().tolist()


def log_posteriors(lm, codes, prompt, text, *, scale=1.0, bias=(0, 0, 0), normalise=True, count_prompt=False):
    """log P(c | text) of every class, from the definition."""
    scores = []
    for code, offset in zip(codes, bias, strict=False):
        row, total, count = [*code], 0.0, 0
        for place, token in enumerate([*prompt, *text]):
            if count_prompt or place >= len(prompt):
                total += lm.log_probs(row)[token]
                count += 1
            row.append(token)
        scores.append(offset + scale * total / (max(count, 1) if normalise else 1))
    most = max(scores)
    if most == -math.inf:
        return [-math.inf] * len(scores)
    log_total = most + math.log(sum(math.exp(score - most) for score in scores))
    return [score - log_total for score in scores]
