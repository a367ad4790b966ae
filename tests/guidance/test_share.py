"""The share of a class among classes, in float32 and without overflow, against softmax in float64."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode.guidance.gedi import _log_share


def want(log_probs, slope, start, place):
    scores = log_probs.double() * slope.double()[:, None, None] + start.double()[:, :, None]
    shares = torch.log_softmax(scores, 1)[:, place]
    return shares.masked_fill(scores.isneginf().all(1), -math.inf)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(
    "spread", [0.1, 3.0, 60.0, 400.0]
)  # exponentials of differences beyond 88 are no float32 any more
@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_it_is_the_softmax_over_classes(classes, spread, zeros):
    rng = torch.Generator().manual_seed(classes)
    log_probs = -spread * torch.rand(4, classes, 300, generator=rng)
    log_probs[torch.rand(log_probs.shape, generator=rng) < zeros] = -math.inf
    slope, start = torch.rand(4, generator=rng) + 0.1, spread * torch.randn(4, classes, generator=rng)
    for place in range(classes):
        found = _log_share(log_probs, slope, start, place)
        torch.testing.assert_close(
            found.double(), want(log_probs, slope, start, place), rtol=1e-5, atol=1e-6 * (1 + spread)
        )


def test_what_is_given_stays_as_it_was():
    log_probs = torch.log_softmax(torch.randn(1, 2, 5), -1)
    before = log_probs.clone()
    _log_share(log_probs, torch.ones(1), torch.zeros(1, 2), 0)
    assert torch.equal(log_probs, before)


def test_not_a_number_is_handed_on():
    log_probs = torch.zeros(1, 2, 3)
    log_probs[0, 1, 2] = math.nan
    assert _log_share(log_probs, torch.ones(1), torch.zeros(1, 2), 0).isnan().tolist() == [[False, False, True]]
