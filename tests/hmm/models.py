"""Tiny HMMs, and their oracle: sums and maxima over every hidden path, by the definition."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.hmm import HMM


class Parameters(NamedTuple):
    """Plain float64 arrays of an HMM whose end of sequence absorbs."""

    initial: np.ndarray  # (H,)
    transition: np.ndarray  # (H, H)
    emission: np.ndarray  # (H, V)
    eos: tuple[int, ...]

    def hmm(self, **options) -> HMM:
        return HMM(*self, **options)


def stored(hmm: HMM) -> Parameters:
    """What an HMM holds, as plain arrays."""
    every = np.stack([row.numpy() for row in _rows(hmm)], axis=1)
    return Parameters(
        hmm.initial.double().numpy(), hmm.transition.double().numpy(), every.astype(np.float64), hmm.eos_token_ids
    )


def _rows(hmm: HMM):
    from ctrldecode.kernels import hmm as kernels

    return kernels.dense(hmm.emission)


def paths(parameters: Parameters, tokens) -> dict[tuple[int, ...], float]:
    """P(states, tokens) of every path of hidden states; a token of −1 is not known and has probability 1."""
    found = {}
    for path in itertools.product(range(len(parameters.initial)), repeat=len(tokens)):
        chance = parameters.initial[path[0]] if path else 1.0
        for step in itertools.pairwise(path):
            chance *= parameters.transition[step]
        for state, token in zip(path, tokens, strict=True):
            chance *= 1.0 if token < 0 else parameters.emission[state, token]
        found[path] = chance
    return found


def random_parameters(
    rng: np.random.Generator, states: int, size: int, *, ends: int = 1, eos=(0,), sparse=False
) -> Parameters:
    """`states` states that emit text and `ends` that emit the ids in `eos`."""
    others = [token for token in range(size) if token not in eos]
    emission = np.zeros((states + ends, size))
    emission[:states, others] = rng.dirichlet(np.full(len(others), 0.7), states)
    emission[states:, list(eos)] = rng.dirichlet(np.full(len(eos), 0.7), ends)
    transition = np.zeros((states + ends, states + ends))
    transition[:states] = rng.dirichlet(np.full(states + ends, 0.7), states)
    transition[states:, states:] = rng.dirichlet(np.full(ends, 0.7), ends)
    initial = np.append(rng.dirichlet(np.full(states, 0.7)), np.zeros(ends))
    if sparse:  # zeros in the middle of the model, so that some sequences are impossible
        keep = rng.random(emission[:states].shape) < 0.6
        keep[:, others[0]] = True
        keep[:, list(eos)] = False
        emission[:states] = emission[:states] * keep + 1e-3 * (keep & (emission[:states] == 0))
        emission[:states] /= emission[:states].sum(1, keepdims=True)
    return Parameters(initial, transition, emission, tuple(eos))


@st.composite
def cases(draw):
    """Parameters with H ≤ 4 and V ≤ 5, and token sequences of length ≤ 5, ends and unknown tokens among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(3, 5))
    eos = draw(st.sampled_from([(0,), (size - 1,), (0, 2)]))
    parameters = random_parameters(
        rng, draw(st.integers(1, 3)), size, ends=draw(st.integers(0, 1)), eos=eos, sparse=draw(st.booleans())
    )
    sequences = draw(st.lists(st.lists(st.integers(-1, size - 1), max_size=5), min_size=1, max_size=4))
    return parameters, sequences


def until_end(tokens, eos) -> list[int]:
    """The tokens up to the first end of sequence, that one included."""
    for position, token in enumerate(tokens):
        if token in eos:
            return list(tokens[: position + 1])
    return list(tokens)


def vocabulary(size: int, eos=(0,)) -> Vocabulary:
    return Vocabulary([f"<{token}>".encode() for token in range(size)], eos_token_ids=eos)
