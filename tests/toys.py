"""Small models and potentials for tests: fast, random but seeded, and with answers that can be enumerated."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ctrldecode.core.potential import Potential

EOS = 2
PAD = 0
SIZE = 50


@functools.cache
def tiny_llama(seed: int = 0, size: int = SIZE) -> LlamaForCausalLM:
    """A random Llama of two layers. Its weights are large enough to make its distributions uneven, so that nothing ties."""
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


class TableState(NamedTuple):
    where: torch.Tensor  # (B,) which row of the table
    left: torch.Tensor  # (B,) new tokens left, or a large number
    finished: torch.Tensor  # (B,) bool
    history: list[tuple[int, ...]]  # new tokens, so that states hold Python objects too


class Table(Potential[TableState]):
    """log-weights are a row of a random table, chosen by a walk over the tokens; some are −inf, but never a whole row.

    With a budget, the weight of the end of sequence grows as the budget shrinks, so that budgets matter.
    """

    def __init__(self, size: int = SIZE, *, states: int = 11, seed: int = 0, hard: float = 0.3, eos: int = EOS) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.eos = eos
        self.states = states
        self.table = torch.randn(states, size, generator=generator)
        self.table[torch.rand(states, size, generator=generator) < hard] = -math.inf
        self.table[:, eos] = -0.5
        self.table[torch.arange(states), (torch.arange(states) * 3) % size] = 0.7

    def init(self, prompts, mask=None, budget=None) -> TableState:
        rows = len(prompts)
        where = torch.zeros(rows, dtype=torch.long)
        for column in range(prompts.shape[1]):
            real = torch.ones(rows, dtype=torch.bool) if mask is None else mask[:, column]
            where = torch.where(real, self._move(where, prompts[:, column]), where)
        left = torch.full((rows,), 10**6) if budget is None else budget.clone()
        return TableState(where, left, torch.zeros(rows, dtype=torch.bool), [()] * rows)

    def log_weights(self, state, tokens=None) -> torch.Tensor:
        weights = self.table[state.where].clone()
        weights[:, self.eos] += 1.0 / state.left
        weights.masked_fill_(state.finished[:, None], 0.0)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens) -> TableState:
        return TableState(
            torch.where(state.finished, state.where, self._move(state.where, tokens)),
            (state.left - 1).clamp_min(1),
            state.finished | (tokens == self.eos),
            [(*past, token) for past, token in zip(state.history, tokens.tolist(), strict=True)],
        )

    def _move(self, where: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return (where * 7 + tokens * 3 + 1) % self.states


class CounterState(NamedTuple):
    where: torch.Tensor  # (B,) tokens of class 1 so far, mod `modulus`; −1 once a forbidden token was stepped
    left: torch.Tensor  # (B,) new tokens left
    finished: torch.Tensor  # (B,)


class Automaton(Potential[CounterState]):
    """A hard constraint: the number of new tokens that are 1 mod 3 is a multiple of `modulus` at the end; 2 mod 3 never comes.

    It looks ahead: what cannot end within the budget is forbidden. The end of sequence counts as no token of any class.
    """

    def __init__(self, size: int = SIZE, *, modulus: int = 3, eos: int = EOS) -> None:
        self.size = size
        self.modulus = modulus
        self.eos = eos

    def init(self, prompts, mask=None, budget=None) -> CounterState:
        rows = len(prompts)
        left = torch.full((rows,), 10**6) if budget is None else budget.clone()
        return CounterState(torch.zeros(rows, dtype=torch.long), left, torch.zeros(rows, dtype=torch.bool))

    def log_weights(self, state, tokens=None) -> torch.Tensor:
        kind = torch.arange(self.size) % 3
        after = (state.where[:, None] + (kind == 1)) % self.modulus
        to_go = (
            self.modulus - after
        ) % self.modulus + 1  # tokens to the end from there, the end of sequence among them
        allowed = (kind != 2) & (to_go <= state.left[:, None] - 1)
        allowed[:, self.eos] = (state.where == 0) & (state.left > 0)
        allowed &= (state.where >= 0)[:, None]
        weights = torch.where(allowed | state.finished[:, None], 0.0, -math.inf)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens) -> CounterState:
        forbidden = self.log_weights(state, tokens[:, None])[:, 0].isneginf()
        where = (state.where + (tokens % 3 == 1)) % self.modulus
        where = torch.where(forbidden | (state.where < 0), -1, where)
        finished = state.finished | (tokens == self.eos) & ~forbidden
        return CounterState(torch.where(finished, 0, where), state.left - 1, finished)

    def add_log_weights(self, state, scores) -> None:
        scores.masked_fill_(self.log_weights(state).isneginf().to(scores.device), -math.inf)

    def accepts(self, tokens: list[int]) -> bool:
        """Whether new tokens, padding after the end of sequence included, satisfy the constraint."""
        if self.eos not in tokens:
            return False
        body = tokens[: tokens.index(self.eos)]
        return all(t % 3 != 2 for t in body) and sum(t % 3 == 1 for t in body) % self.modulus == 0


class Counting(Potential):
    """Another potential, with counts of how often it is used."""

    def __init__(self, inner: Potential) -> None:
        self.inner = inner
        self.size = inner.size
        self.rows = inner.rows
        self.inits = self.steps = self.stepped_rows = 0

    def init(self, prompts, mask=None, budget=None):
        self.inits += 1
        return self.inner.init(prompts, mask, budget)

    def log_weights(self, state, tokens=None):
        return self.inner.log_weights(state, tokens)

    def step(self, state, tokens):
        self.steps += 1
        self.stepped_rows += len(tokens)
        return self.inner.step(state, tokens)
