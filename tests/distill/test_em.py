"""Steps of EM: what the parameters keep, that plain EM climbs, that steps are pure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrldecode.distill import em
from ctrldecode.distill.workers import Workers

STATES, SIZE, ENDS = 5, 9, (2, 7)


def prior(emission: float = 0.5, transition: float = 0.5) -> em.Prior:
    tokens = torch.full((SIZE,), 1 / SIZE)
    return em.Prior(tokens, ENDS, sequences=30, emission=emission, transition=transition)


def state(seed: int = 0) -> em.EMState:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((STATES,), (STATES, STATES), (SIZE, STATES))
    initial, transition, emission = (torch.rand(shape, generator=generator) for shape in shapes)
    return em.init(initial, transition, emission, sequences=2)


def texts(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """30 texts that follow a pattern, of which some have ended."""
    rng = np.random.default_rng(seed)
    body = np.array([token for token in range(SIZE) if token not in ENDS])
    tokens = body[(rng.integers(0, len(body), (30, 1)) + np.arange(8)) % len(body)]
    lengths = rng.integers(2, 9, 30)
    for row, length in zip(tokens[::2], lengths[::2], strict=True):
        row[length - 1] = ENDS[int(length) % 2]
    return torch.from_numpy(tokens), torch.from_numpy(lengths)


def test_parameters_are_distributions_with_an_absorbing_end():
    model = em.parameters(state(), prior())
    torch.testing.assert_close(model.initial.sum(), torch.tensor(1.0))
    torch.testing.assert_close(model.transition.sum(1), torch.ones(STATES))
    torch.testing.assert_close(model.emission.sum(0), torch.ones(STATES))
    assert float(model.transition[-1, -1]) == 1
    ends = torch.tensor(ENDS)
    assert not model.emission[ends, :-1].any()
    torch.testing.assert_close(model.emission[ends, -1].sum(), torch.tensor(1.0))


def test_an_end_that_was_never_seen_is_one():
    seen = state()
    seen.emission.zero_()
    torch.testing.assert_close(em.parameters(seen, prior()).emission[torch.tensor(ENDS), -1], torch.tensor([0.5, 0.5]))


def test_pseudocounts_pull_towards_the_prior():
    strong = em.parameters(state(), prior(emission=1e6, transition=1e6))
    torch.testing.assert_close(strong.initial, torch.full((STATES,), 1 / STATES), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        strong.emission[0, :-1], torch.full((STATES - 1,), 1 / (SIZE - len(ENDS))), rtol=1e-3, atol=0
    )


def posterior_density(model: em.Parameters, about: em.Prior, log_likelihood: float) -> float:
    """log P(texts) plus the log of the Dirichlet priors, up to a constant."""
    free = torch.tensor([token for token in range(SIZE) if token not in ENDS])
    emission = about.emission * (about.tokens[free, None] * model.emission[free, :-1].double().log()).sum()
    moves = (
        about.transition / STATES * (model.initial.double().log().sum() + model.transition[:-1].double().log().sum())
    )
    return log_likelihood + float(emission + moves)


@pytest.mark.parametrize("strength", [0.01, 2.0])
def test_plain_em_climbs(strength):
    now, about, batch = state(), prior(strength, strength), texts()
    before = -np.inf
    for _ in range(12):
        model = em.parameters(now, about)
        counts = em.expect(model, [batch], Workers())
        now, info = em.step(now, counts, 30, forgetting=0.0)
        assert info.rate == 1
        density = posterior_density(model, about, info.log_likelihood)
        assert density >= before - 1e-4  # float32
        before = density


def test_steps_mix_statistics_and_leave_the_old_state():
    now = state()
    kept = [tensor.clone() for tensor in now[:3]]
    counts = em.expect(em.parameters(now, prior()), [texts()], Workers())
    after, info = em.step(now, counts, 30, forgetting=0.7)
    assert info.rate == pytest.approx(2**-0.7)
    assert after.updates == 1
    for old, copy, new, seen in zip(now[:3], kept, after[:3], counts[:3], strict=True):
        assert torch.equal(old, copy)
        torch.testing.assert_close(new, (1 - info.rate) * old + info.rate * seen / 30)


def test_batches_are_summed_over():
    tokens, lengths = texts()
    model = em.parameters(state(), prior())
    whole = em.expect(model, [(tokens, lengths)], Workers())
    parts = em.expect(model, [(tokens[:7], lengths[:7]), (tokens[7:], lengths[7:])], Workers())
    for got, wanted in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, wanted)
    total = em.log_likelihood(model, [(tokens[:7], lengths[:7]), (tokens[7:], lengths[7:])], Workers())
    assert total == pytest.approx(float(whole.log_likelihood), rel=1e-6)
