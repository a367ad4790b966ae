"""`absorbing`: any HMM as one whose end of sequence absorbs, with every text as probable as before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.errors import InputError
from ctrldecode.hmm import HMM, absorbing
from tests.hmm.models import Parameters, paths, until_end


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(3, 4), st.sampled_from([(0,), (0, 2)]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_texts_keep_their_probability(seed, states, size, eos, pure):
    rng = np.random.default_rng(seed)
    initial, transition = rng.dirichlet(np.ones(states)), rng.dirichlet(np.ones(states), states)
    emission = rng.dirichlet(np.full(size, 0.5), states)
    if pure:
        emission[0] = 0
        emission[0, eos[-1]] = 1
    given_one = Parameters(initial, transition, emission, eos)
    start, moves, emits = absorbing(initial, transition, emission, eos)
    hmm = HMM(start, moves, emits, eos)
    assert hmm.states <= states + len(eos)
    texts = sorted({tuple(until_end(tokens, eos)) for tokens in itertools.product(range(size), repeat=4)})
    wanted = [sum(paths(given_one, tokens).values()) for tokens in texts]
    np.testing.assert_allclose(hmm.log_prob(texts).exp(), wanted, rtol=1e-5, atol=1e-12)


def test_what_absorbs_already_stays():
    initial, transition, emission = [0.5, 0.5], [[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
    found = absorbing(initial, transition, emission, 0)
    assert [part.tolist() for part in found] == [initial, transition, emission]


def test_states_that_are_ends_but_for_rounding_stay_ends():
    emission = torch.tensor([[0.0, 1.0], [1.0, 2e-7]])
    start, moves, emits = absorbing([1.0, 0.0], [[0.5, 0.5], [0.5, 0.5]], emission, 0)
    assert start.tolist() == [1, 0]
    assert moves.tolist() == [[0.5, 0.5], [0, 1]]
    assert emits.tolist() == [[0, 1], [1, 0]]
    assert emits.dtype == torch.float32


def test_shapes():
    with pytest.raises(InputError, match=r"absorbing needs initial \(H,\)"):
        absorbing([1.0], [[1.0]], [1.0], 0)
    with pytest.raises(InputError, match="eos_token_ids must be"):
        absorbing([1.0], [[1.0]], [[1.0]], 3)


@pytest.mark.parametrize(
    ("initial", "transition", "emission", "message"),
    [
        ([1.0], [[1.0]], [[0.25, 0.25]], "emission of state 0 sums to 0.5, wanted 1 within 0.001"),
        ([1.0], [[1.0]], [[-1.0, -0.5]], "emission of state 0 holds -1"),
        ([1.0], [[1.0]], [[float("nan"), 1.0]], "emission of state 0 holds nan"),
        ([1.0], [[1.0]], [[float("inf"), 0.0]], "emission of state 0 holds inf"),
        ([0.5, 0.4], np.eye(2), np.eye(2), "initial of state 0 sums to 0.9"),
        ([0.5, 0.5], [[1.0, 0.0], [0.0, 0.0]], np.eye(2), "transition of state 1 sums to 0"),
    ],
)
def test_what_is_no_distribution_is_refused(initial, transition, emission, message):
    with pytest.raises(InputError, match=message):
        absorbing(initial, transition, emission, 0)


def test_rounding_is_no_mistake():
    start, moves, emits = absorbing([1.0], [[1.0002]], [[0.5, 0.4996]], 0)
    assert HMM(start, moves, emits, 0).log_prob([[1, 0]]).exp().tolist() == pytest.approx([0.25], abs=1e-3)
