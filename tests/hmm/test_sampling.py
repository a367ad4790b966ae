"""Sampling from an HMM: its distribution, its seeds, and what follows an end."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from ctrldecode.errors import InputError
from ctrldecode.hmm import _sampling
from tests.hmm.models import random_parameters, until_end


def test_frequencies_are_the_probabilities():
    """Pearson's statistic over all texts of length ≤ 3, within 5 sigma of its mean; seed 0."""
    hmm = random_parameters(np.random.default_rng(1), 3, 4, eos=(1,)).hmm()
    num = 20_000
    seen = Counter(tuple(until_end(row, (1,))) for row in hmm.sample(num, 3, np.random.default_rng(0)).tolist())
    texts = sorted({tuple(until_end(tokens, (1,))) for tokens in itertools.product(range(4), repeat=3)} - {(1,)})
    assert float(hmm.log_prob([(1,)])) == -np.inf  # so it is no cell of the statistic, and must not be drawn
    assert (1,) not in seen
    wanted = hmm.log_prob(texts).exp().numpy() * num
    assert wanted.sum() == pytest.approx(num, rel=1e-6)
    counts = np.array([seen[text] for text in texts])
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    freedom = len(texts) - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_is_drawn_is_possible(dtype):
    hmm = random_parameters(np.random.default_rng(2), 5, 300, eos=(3, 9), ends=2, sparse=True).hmm(dtype=dtype)
    tokens = hmm.sample(200, 12, np.random.default_rng(0))
    assert torch.isfinite(hmm.log_prob(tokens)).all()
    for row in tokens.tolist():
        text = until_end(row, (3, 9))
        assert set(row[len(text) :]) <= {text[-1]}


def test_seeds():
    hmm = random_parameters(np.random.default_rng(3), 5, 20).hmm()
    first, again, other = (hmm.sample(5, 7, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rng = np.random.default_rng(0)
    assert not torch.equal(hmm.sample(5, 7, rng), hmm.sample(5, 7, rng))


def test_groups_of_states_make_no_difference(monkeypatch):
    hmm = random_parameters(np.random.default_rng(4), 9, 30).hmm()
    whole = hmm.sample(40, 6, np.random.default_rng(0))
    monkeypatch.setattr(_sampling, "_TABLE", 64)  # two states at a time
    assert torch.equal(hmm.sample(40, 6, np.random.default_rng(0)), whole)


def test_sizes():
    hmm = random_parameters(np.random.default_rng(5), 2, 4).hmm()
    rng = np.random.default_rng(0)
    assert hmm.sample(0, 3, rng).shape == (0, 3)
    assert hmm.sample(3, 0, rng).shape == (3, 0)
    with pytest.raises(InputError, match="num and length must be at least 0"):
        hmm.sample(-1, 2, rng)
    with pytest.raises(InputError, match="more than fit into memory"):
        hmm.sample(10**23, 4, rng)
