"""The oracle of the lookahead: every string of a tiny vocabulary, in float64, by the definition of the expectation alone."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

EOS = 0


class Case(NamedTuple):
    """A tiny HMM, an automaton and weights, all as plain arrays; token 0 ends a text."""

    initial: np.ndarray  # (H,)
    transition: np.ndarray  # (H, H)
    emission: np.ndarray  # (H, V)
    delta: np.ndarray  # (Q, V), −1 for dead
    accepting: np.ndarray  # (Q,) bool
    weights: np.ndarray  # (V,), 1 at the end of sequence
    budget: int
    limit: str

    def log_product(self, tokens) -> float:
        return float(np.log(self.weights[list(tokens)]).sum())

    def probability(self, tokens) -> float:
        """P_HMM that a text begins so."""
        belief = self.initial
        total = 1.0
        for token in tokens:
            joint = belief * self.emission[:, token]
            total *= joint.sum()
            if total == 0:
                return 0.0
            belief = joint / joint.sum() @ self.transition
        return float(total)

    def accepts(self, body) -> bool:
        state = 0
        for token in body:
            state = self.delta[state, token]
            if state < 0:
                return False
        return bool(self.accepting[state])

    def worth(self, tokens) -> float:
        """Φ of a text that ended, or was cut off at the budget."""
        ended = bool(tokens) and tokens[-1] == EOS
        if not ended and self.limit == "eos":
            return 0.0
        body = tokens[:-1] if ended else tokens
        return float(np.prod(self.weights[list(body)])) if self.accepts(body) else 0.0

    def texts(self):
        """Every text: those that end within the budget, and those cut off there."""
        others = [token for token in range(self.emission.shape[1]) if token != EOS]
        for length in range(self.budget + 1):
            for body in itertools.product(others, repeat=length):
                if length < self.budget:
                    yield (*body, EOS)
                else:
                    yield body

    def psi(self) -> dict[tuple[int, ...], float]:
        """ψ of every prefix that the HMM may write, by summing p(x)·Φ(x) over the texts that begin so."""
        sums: dict[tuple[int, ...], float] = {}
        for text in self.texts():
            mass = self.probability(text) * self.worth(text)
            for end in range(len(text) + 1):
                sums[text[:end]] = sums.get(text[:end], 0.0) + mass
        found = {prefix: (total, self.probability(prefix)) for prefix, total in sums.items()}
        return {prefix: total / mass for prefix, (total, mass) in found.items() if mass > 0}


@st.composite
def cases(draw, *, max_budget: int = 4, sparse: bool = True) -> Case:
    """Random cases: H ≤ 3, V ≤ 5, Q ≤ 4."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden, size, states = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 4))
    body = rng.dirichlet(np.full(size - 1, 0.7), hidden)
    if sparse and draw(st.booleans()):
        body[rng.random(body.shape) < 0.3] = 0
        body[body.sum(-1) == 0] = 1
        body /= body.sum(-1, keepdims=True)
    ends = int(draw(st.booleans()))  # whether there is a state that ends texts
    emission = np.zeros((hidden + ends, size))
    emission[:hidden, 1:] = body
    transition = np.zeros((hidden + ends, hidden + ends))
    transition[:hidden] = rng.dirichlet(np.full(hidden + ends, 0.7), hidden)
    initial = np.append(rng.dirichlet(np.ones(hidden)), np.zeros(ends))
    if ends:
        emission[hidden, EOS] = transition[hidden, hidden] = 1
    delta = rng.integers(-1 if draw(st.booleans()) else 0, states, (states, size))
    delta[:, EOS] = -1
    weights = np.ones(size) if draw(st.booleans()) else rng.uniform(0.05, 1, size)
    weights[EOS] = 1
    limit = draw(st.sampled_from(["eos", "open"]))
    return Case(
        initial, transition, emission, delta, rng.random(states) < 0.5, weights, draw(st.integers(1, max_budget)), limit
    )
