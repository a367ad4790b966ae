"""Distances, bounds and exact distributions against plain enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctrldecode import diagnostics
from ctrldecode.errors import InputError
from ctrldecode.samplers import asap, cars, importance, smc
from tests.samplers.enumeration import LENGTH, Soft, TableLM, automaton, enumerate_all

PROMPT = torch.tensor([[0]])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_exact_is_the_enumeration(seed):
    lm, potential = TableLM(seed), automaton(seed) * Soft(seed)
    wanted = enumerate_all(lm, potential)
    found = diagnostics.exact(lm, potential, [0], max_new_tokens=LENGTH)
    assert found.log_z == pytest.approx(wanted.log_z, abs=1e-6)  # scores are added up in float32
    assert sorted(found.texts) == sorted(wanted.texts)
    assert all(
        found.log_prob(text) == pytest.approx(p, abs=1e-6)
        for text, p in zip(wanted.texts, wanted.log_probs, strict=True)
    )
    assert found.log_prob((9, 9)) == -math.inf


def test_token_wise_is_what_importance_proposes():
    lm, potential = TableLM(0), automaton(0)
    q = diagnostics.token_wise(lm, potential, [0], max_new_tokens=LENGTH)
    p = diagnostics.exact(lm, potential, [0], max_new_tokens=LENGTH)
    assert np.exp(q.log_probs).sum() == pytest.approx(1)
    found = importance(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0))
    for text, weight in zip(found.tokens[0], found.log_weights[0].tolist(), strict=True):  # w = Z π / q
        assert weight == pytest.approx(p.log_z + p.log_prob(text) - q.log_prob(text), abs=1e-4)
    assert diagnostics.kl(q, p) > 0.01
    assert diagnostics.kl(p, p) == pytest.approx(0, abs=1e-12)


def test_distances_shrink_for_exact_samples_and_show_the_bias_of_the_mask():
    lm, potential = TableLM(1, sharpness=2.0), automaton(1)
    target = diagnostics.exact(lm, potential, [0], max_new_tokens=LENGTH)
    rng = np.random.default_rng(0)
    fair = cars(lm, potential, PROMPT, num=2000, max_new_tokens=LENGTH, rng=seeded(0))
    masked = importance(lm, potential, PROMPT, num=2000, max_new_tokens=LENGTH, rng=seeded(0))
    near = diagnostics.distances(fair.tokens[0], fair.log_weights[0], target, rng=rng)
    far = diagnostics.distances(masked.tokens[0], torch.zeros(2000), target, rng=rng)
    mended = diagnostics.distances(masked.tokens[0], masked.log_weights[0], target, rng=rng)
    assert max(near.kl.value, mended.kl.value) < 0.1 * far.kl.value
    assert max(near.total_variation.value, mended.total_variation.value) < 0.3 * far.total_variation.value
    q = diagnostics.token_wise(lm, potential, [0], max_new_tokens=LENGTH)
    assert far.kl.value == pytest.approx(diagnostics.kl(q, target), abs=0.2)
    for distance in (near.kl, far.kl, near.total_variation):
        assert distance.low <= distance.high
    assert near.reverse_kl.value == math.inf  # some rare text was not drawn
    assert 0 < near.unseen < 0.1


def test_distances_of_known_frequencies():
    target = diagnostics.Distribution([(0,), (1,)], np.log([0.5, 0.5]), 0.0)
    found = diagnostics.distances([[0], [0], [0], [1]], torch.zeros(4), target, rng=np.random.default_rng(0))
    assert found.kl.value == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert found.reverse_kl.value == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2))
    assert found.total_variation.value == pytest.approx(0.25)
    even = diagnostics.distances([[0], [1]], torch.tensor([1.0, 1.0]), target, rng=np.random.default_rng(0))
    assert even.kl.value == pytest.approx(0, abs=1e-12)
    outside = diagnostics.distances([[7]], torch.zeros(1), target, rng=np.random.default_rng(0))
    assert outside.kl.value == math.inf
    with pytest.raises(InputError, match="positive weight"):
        diagnostics.distances([[0]], torch.tensor([-math.inf]), target, rng=np.random.default_rng(0))


def test_bounds_hold():
    lm, potential = TableLM(1), automaton(1)
    target = diagnostics.exact(lm, potential, [0], max_new_tokens=LENGTH)
    learned = asap(lm, potential, PROMPT, num=200, max_new_tokens=LENGTH, rng=seeded(0))
    bounds = diagnostics.log_z_bounds(learned)
    assert bounds.lower <= target.log_z + 1e-9
    assert bounds.upper >= target.log_z - 1e-9
    assert bounds.upper - bounds.lower < 0.5
    held = 0
    rng = np.random.default_rng(0)
    for run in range(200):  # each bound with confidence 0.9
        plain = smc(lm, potential, PROMPT, num=4, max_new_tokens=LENGTH, rng=seeded(run))
        text = target.texts[int(rng.choice(len(target.texts), p=np.exp(target.log_probs)))]
        kept = smc(lm, potential, PROMPT, num=4, max_new_tokens=LENGTH, rng=seeded(run), retained=[text])
        found = diagnostics.log_z_bounds(plain, retained=kept, confidence=0.9)
        held += found.lower <= target.log_z <= found.upper
    assert held >= 160


def test_joint_log_probabilities_are_those_of_the_target():
    lm, potential = TableLM(2), automaton(2) * Soft(2)
    target = diagnostics.exact(lm, potential, [0], max_new_tokens=LENGTH)
    texts = target.texts[:30]
    found = diagnostics.log_joint(lm, potential, [0], texts, max_new_tokens=LENGTH)
    assert found.tolist() == pytest.approx([target.log_prob(text) + target.log_z for text in texts], abs=1e-5)


def test_summary_counts_what_there_is():
    lm, potential = TableLM(0), automaton(0)
    found = diagnostics.summary(cars(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0)))
    assert (found["texts"], found["stopped"], found["ess"]) == (50, None, pytest.approx(50))
    assert found["duplicates"] == pytest.approx(1 - found["distinct"] / 50)
    assert 0 < found["acceptance"] <= 1


def test_what_is_too_large_to_enumerate_says_so():
    with pytest.raises(InputError, match="too many to enumerate"):
        diagnostics.exact(TableLM(0), Soft(0), [0], max_new_tokens=LENGTH, limit=100)
