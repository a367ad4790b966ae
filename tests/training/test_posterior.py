"""Scale and bias fitted to evidence whose answer is known, and figures counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode.training.posterior import Evidence, Posterior, evidence, fit_posterior, measure
from tests.training.toy_texts import CODES, separable, small_model


def text(happy: float, sad: float, label: int) -> Evidence:
    """One token, with these log-probabilities."""
    return Evidence(torch.tensor([[happy], [sad]], dtype=torch.float64), label)


def test_fit_finds_scale_and_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(4000):
        label = int(torch.rand((), generator=generator) < 0.5)
        difference = float(torch.randn((), generator=generator)) * 0.1 + (0.06 if label else -0.02)
        found.append(text(-1.0, -1.0 + difference, label))
    fitted = fit_posterior(found, [None])
    # two normal distributions of one width: the log-odds are d (0.06 + 0.02) / 0.01 − (0.06² − 0.02²) / 0.02
    assert fitted.scale == pytest.approx(8.0, rel=0.15)
    assert fitted.bias[1] - fitted.bias[0] == pytest.approx(-0.16, abs=0.08)  # three standard errors
    assert sum(fitted.bias) == pytest.approx(0)


def test_a_scale_stays_finite_without_errors() -> None:
    found = [text(-1, -2, 0), text(-2, -1, 1)] * 5
    fitted = fit_posterior(found)
    assert 1 < fitted.scale < 1e4
    assert measure(found, fitted).log_loss[-1] < 0.02


def test_figures_count_classes_equally() -> None:
    found = [text(-1, -2, 0), text(-1, -2, 0), text(-2, -1, 0), text(-1, -2, 1)]
    figures = measure(found, Posterior(1.0, (0.0, 0.0)), [None])
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert figures.accuracy[0] == pytest.approx((2 / 3 + 0) / 2)
    assert figures.log_loss[0] == pytest.approx(((2 * right + wrong) / 3 + wrong) / 2)
    assert figures.nats == pytest.approx((1 + 1 + 2 + 2) / 4)
    assert figures.perplexity == pytest.approx(math.exp(1.5))


def test_prefixes_are_read() -> None:
    found = Evidence(torch.tensor([[-1.0, -1.5, -6.0], [-2.0, -4.0, -4.5]]), 1)
    assert found.mean(1).tolist() == [-1, -2]
    assert found.mean(2).tolist() == [-0.75, -2]
    assert found.mean(9).tolist() == found.mean(None).tolist() == [-2, -1.5]


def test_evidence_keeps_the_order_of_texts() -> None:
    model, texts = small_model().eval(), separable(9)
    reported = []
    found = evidence(model, CODES, texts, 4, lambda done, total: reported.append((done, total)))
    assert [of.label for of in found] == [of.label for of in texts]
    assert [of.nats.shape for of in found] == [(2, len(of.tokens)) for of in texts]
    assert reported == [(4, 9), (8, 9), (9, 9)]
    for row in (0, 5):
        assert torch.allclose(evidence(model, CODES, [texts[row]])[0].nats, found[row].nats, atol=1e-5)
