"""`branching`: thinning that is unbiased, and weights against enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.core.potential import Potential
from ctrldecode.samplers import branching
from ctrldecode.samplers._branching import thin
from tests.samplers.enumeration import LENGTH, SIZE, Soft, TableLM, automaton, enumerate_all


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(-8, 8), min_size=1, max_size=30),
    num=st.integers(1, 12),
    seed=st.integers(0, 2**30),
)
def test_thinning_keeps_distinct_things_and_weights_above_the_threshold(values, num, seed):
    logs = torch.tensor(values, dtype=torch.float64)
    kept, new, log_threshold = thin(logs, num, seeded(seed))
    assert len(set(kept.tolist())) == len(kept) == min(num, len(values))
    for index, value in zip(kept.tolist(), new.tolist(), strict=True):
        assert value == pytest.approx(max(values[index], log_threshold), abs=1e-9)
    if log_threshold > -math.inf:  # Σ min(1, w / κ) = num
        assert sum(min(1.0, math.exp(value - log_threshold)) for value in values) == pytest.approx(num)


def test_thinning_of_weights_that_no_float_holds():
    kept, new, log_threshold = thin(-800.0 * torch.arange(7, dtype=torch.float64), 4, seeded(0))
    assert len(set(kept.tolist())) == 4
    assert kept.tolist()[:3] == [0, 1, 2]
    assert bool(new.isfinite().all())
    assert log_threshold == pytest.approx(-2400)


def test_thinning_keeps_every_weight_in_expectation():
    logs = torch.tensor([3.0, 1.0, 0.5, 0.2, 0.2, 0.1, 0.01, 0.001], dtype=torch.float64).log()
    sums, squares, runs = np.zeros(8), np.zeros(8), 4000
    rng = seeded(0)
    for _ in range(runs):
        kept, new, _ = thin(logs, 4, rng)
        weights = np.zeros(8)
        weights[kept.numpy()] = new.exp().numpy()
        sums += weights
        squares += weights**2
    means = sums / runs
    sigma = np.sqrt(np.maximum(squares / runs - means**2, 0) / runs)
    assert (np.abs(means - logs.exp().numpy()) <= 4 * sigma + 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("twisted", [False, True])
def test_z_is_unbiased_within_three_sigma(seed, twisted):
    lm, potential = TableLM(seed), automaton(seed) * Soft(seed)
    exact = enumerate_all(lm, potential)
    found = branching(
        lm,
        potential,
        torch.zeros(200, 1, dtype=torch.long),
        num=12,
        max_new_tokens=LENGTH,
        rng=seeded(1),
        twist=Soft(seed + 9) if twisted else None,
    )
    values = found.log_z.exp().numpy()
    assert abs(values.mean() - math.exp(exact.log_z)) < 3 * values.std(ddof=1) / math.sqrt(200)
    assert all(len(set(map(tuple, texts))) == len(texts) for texts in found.tokens)


def test_room_for_every_text_gives_the_target_exactly():
    lm, potential = TableLM(1), automaton(1) * Soft(1)
    exact = enumerate_all(lm, potential)
    found = branching(lm, potential, [[0]], num=5000, max_new_tokens=LENGTH, rng=seeded(0), twist=Soft(2))
    assert float(found.log_z[0]) == pytest.approx(exact.log_z, abs=1e-5)
    shares = (found.log_weights[0] - found.log_weights[0].logsumexp(-1)).tolist()
    got = dict(zip(map(tuple, found.tokens[0]), shares, strict=True))
    assert set(got) == set(exact.texts)
    assert all(got[text] == pytest.approx(p, abs=1e-4) for text, p in zip(exact.texts, exact.log_probs, strict=True))


def test_a_dead_end_is_no_text():
    class Never(Potential):
        size = SIZE

        def init(self, prompts, mask=None, budget=None):
            return torch.zeros(len(prompts))

        def log_weights(self, state, tokens=None):
            weights = torch.where(state[:, None] > 1, -math.inf, torch.zeros(len(state), SIZE))
            return weights if tokens is None else weights.gather(1, tokens)

        def step(self, state, tokens):
            return state + 1

    lm = TableLM(0)
    lm.table[:, 4] = -math.inf  # no text ends before the dead end
    found = branching(lm, Never(), [[0]], num=7, max_new_tokens=LENGTH, rng=seeded(0))
    assert found.tokens == [[]]
    assert float(found.log_z[0]) == -math.inf
