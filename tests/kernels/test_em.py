"""The E-step: the reference against all hidden paths, torch against the reference, EM against what EM promises, and peers."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.kernels.hmm import _em_reference as reference
from ctrldecode.kernels.hmm import _em_torch as kernel

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


class Case(NamedTuple):
    initial: np.ndarray
    transition: np.ndarray
    emission: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray


def distributions(rng: np.random.Generator, *shape: int, axis: int = -1) -> np.ndarray:
    values = rng.random(shape) ** 3 + 1e-3
    return values / values.sum(axis, keepdims=True)


def random_case(seed: int, states: int, size: int, rows: int, steps: int, *, missing: float = 0.2) -> Case:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, size, (rows, steps))
    tokens[rng.random(tokens.shape) < missing] = -1
    lengths = rng.integers(0, steps + 1, rows)
    parameters = (
        distributions(rng, states),
        distributions(rng, states, states),
        distributions(rng, size, states, axis=0),
    )
    return Case(*parameters, tokens, lengths)


def on(case: Case, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    arrays = [torch.from_numpy(array).to(device) for array in case]
    return [array.to(dtype) for array in arrays[:3]] + arrays[3:]


def by_torch(case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> kernel.Counts:
    size, states = case.emission.shape
    zero = kernel.zero_counts(states, size, device)
    counts = kernel.Counts(*(part.to(dtype) for part in zero[:3]), zero.log_likelihood)
    kernel.expected_counts(*on(case, device, dtype), counts)
    return counts


def by_enumeration(case: Case) -> reference.Counts:
    """Sums over all hidden paths of all rows."""
    initial, transition, emission = (np.zeros_like(array) for array in case[:3])
    log_likelihood = 0.0
    for row, length in zip(case.tokens, case.lengths, strict=True):
        tokens = row[:length]
        paths = list(itertools.product(range(len(initial)), repeat=int(length)))
        joint = np.array([path_probability(case, path, tokens) for path in paths])
        log_likelihood += float(np.log(joint.sum()))
        for path, weight in zip(paths, joint / joint.sum(), strict=True):
            for t, (state, token) in enumerate(zip(path, tokens, strict=True)):
                if t == 0:
                    initial[state] += weight
                else:
                    transition[path[t - 1], state] += weight
                if token >= 0:
                    emission[token, state] += weight
    return reference.Counts(initial, transition, emission, log_likelihood)


def path_probability(case: Case, path: tuple[int, ...], tokens: np.ndarray) -> float:
    probability = 1.0
    for t, (state, token) in enumerate(zip(path, tokens, strict=True)):
        probability *= case.initial[state] if t == 0 else case.transition[path[t - 1], state]
        probability *= 1.0 if token < 0 else case.emission[token, state]
    return probability


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_the_reference_sums_over_all_paths(seed, states, size, rows, steps):
    case = random_case(seed, states, size, rows, steps)
    for got, wanted in zip(reference.expected_counts(*case), by_enumeration(case), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("states", "size", "rows", "steps"), [(1, 1, 1, 1), (3, 5, 4, 6), (8, 64, 33, 17), (65, 40, 7, 30), (2, 9, 5, 1)]
)
def test_torch_agrees_with_the_reference(device, states, size, rows, steps):
    case = random_case(states, states, size, rows, steps)
    wanted = reference.expected_counts(*case)
    for got, want in zip(by_torch(case, device, torch.float64), wanted, strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-9, atol=1e-11)
    naive = 1e-5 * max(1, steps)  # an error of float32 at every step, and sums of a few hundred terms
    for got, want in zip(by_torch(case, device), wanted, strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=naive, atol=naive)


@pytest.mark.parametrize("device", DEVICES)
def test_likelihoods_of_rows(device):
    case = random_case(3, 4, 6, 9, 7)
    got = kernel.log_likelihood(*on(case, device, torch.float64))
    np.testing.assert_allclose(got.cpu().numpy(), reference.log_likelihood(*case), rtol=1e-12)


def test_counts_add_up_to_what_was_seen():
    case = random_case(5, 6, 11, 20, 9)
    counts = by_torch(case)
    observed = case.tokens[np.arange(9) < case.lengths[:, None]]
    np.testing.assert_allclose(counts.initial.sum(), (case.lengths > 0).sum(), rtol=1e-5)
    np.testing.assert_allclose(counts.transition.sum(), np.maximum(case.lengths - 1, 0).sum(), rtol=1e-5)
    np.testing.assert_allclose(counts.emission.sum(1), np.bincount(observed[observed >= 0], minlength=11), rtol=1e-5)


def test_batches_add():
    case = random_case(6, 5, 8, 12, 7)
    size, states = case.emission.shape
    parts = kernel.zero_counts(states, size)
    arrays = on(case, "cpu", torch.float32)
    for rows in (slice(0, 5), slice(5, 5), slice(5, 12)):
        kernel.expected_counts(*arrays[:3], arrays[3][rows], arrays[4][rows], parts)
    for got, wanted in zip(parts, by_torch(case), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_emitted_counts_nothing():
    case = random_case(7, 4, 6, 8, 5, missing=0.0)
    case.emission[2] = 0
    case.tokens[case.tokens == 2] = 1
    case.lengths[:] = 5
    possible = by_torch(case, dtype=torch.float64)
    tokens = np.concatenate([case.tokens, [[0, 1, 2, 1, 0], [2, 1, 1, 1, 1], [0, 0, 0, 0, 2]]])
    more = case._replace(tokens=tokens, lengths=np.full(11, 5))
    counts = by_torch(more, dtype=torch.float64)
    assert counts.log_likelihood == -np.inf
    for got, wanted in zip(counts[:3], possible[:3], strict=True):
        torch.testing.assert_close(got, wanted)
    wanted = reference.expected_counts(*more)
    for got, want in zip(counts, wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)
    got = kernel.log_likelihood(*on(more, "cpu", torch.float64))
    np.testing.assert_allclose(got, reference.log_likelihood(*more))


def test_tiny_probabilities_do_not_underflow():
    case = random_case(8, 3, 4, 2, 400, missing=0.0)
    case = case._replace(emission=case.emission * 1e-12, lengths=np.array([400, 399]))  # probabilities around 1e-5000
    wanted = reference.expected_counts(*case)
    for got, want in zip(by_torch(case), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_the_likelihood_never_falls(seed, states, size):
    case = random_case(seed, states, size, rows=6, steps=8)
    case.lengths[0] = 8  # something to learn from
    before = -np.inf
    for _ in range(5):
        counts = by_torch(case, dtype=torch.float64)
        assert float(counts.log_likelihood) >= before - 1e-9
        before = float(counts.log_likelihood)
        case = case._replace(
            initial=maximised(case.initial, counts.initial.numpy(), 0),
            transition=maximised(case.transition, counts.transition.numpy(), 1),
            emission=maximised(case.emission, counts.emission.numpy(), 0),
        )


def maximised(before: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
    """Counts over their sums along an axis; what was there before where nothing was counted."""
    sums = counts.sum(axis, keepdims=True)
    return np.where(sums > 0, counts / np.where(sums > 0, sums, 1), before)


def test_one_step_is_that_of_hmmlearn():
    hmmlearn: Any = pytest.importorskip("hmmlearn.hmm")
    case = random_case(11, 4, 6, 10, 7, missing=0.0)
    case.lengths[:] = np.maximum(case.lengths, 1)
    peer = hmmlearn.CategoricalHMM(
        n_components=4,
        n_features=6,
        n_iter=1,
        tol=-np.inf,
        init_params="",
        implementation="scaling",
        startprob_prior=1.0,
        transmat_prior=1.0,
        emissionprob_prior=1.0,
    )
    peer.startprob_, peer.transmat_, peer.emissionprob_ = case.initial, case.transition, case.emission.T
    rows = [row[:length] for row, length in zip(case.tokens, case.lengths, strict=True)]
    peer.fit(np.concatenate(rows)[:, None], case.lengths)
    counts = by_torch(case, dtype=torch.float64)
    np.testing.assert_allclose(peer.startprob_, counts.initial / counts.initial.sum(), rtol=1e-8)
    np.testing.assert_allclose(peer.transmat_, counts.transition / counts.transition.sum(1, keepdim=True), rtol=1e-8)
    np.testing.assert_allclose(peer.emissionprob_.T, counts.emission / counts.emission.sum(0), rtol=1e-8, atol=1e-12)
    assert peer.monitor_.history[0] == pytest.approx(float(counts.log_likelihood))


def test_expectations_are_those_of_pomegranate():
    """Its model has an end after the last token, which is sure here: ends of one."""
    hmm: Any = pytest.importorskip("pomegranate.hmm")
    distributions_of: Any = pytest.importorskip("pomegranate.distributions")
    case = random_case(12, 4, 6, 10, 7, missing=0.0)
    case.lengths[:] = 7
    emits = [distributions_of.Categorical(torch.from_numpy(column)[None].float()) for column in case.emission.T.copy()]
    peer = hmm.DenseHMM(
        emits,
        edges=case.transition.astype(np.float32),
        starts=case.initial.astype(np.float32),
        ends=np.ones(4, np.float32),
    )
    moves, posterior, starts, _, log_probs = peer.forward_backward(X=torch.from_numpy(case.tokens)[:, :, None])
    counts = by_torch(case)
    np.testing.assert_allclose(counts.transition, moves.sum(0), rtol=1e-3)
    np.testing.assert_allclose(counts.initial, starts.sum(0), rtol=1e-3)
    emission = torch.zeros(6, 4).index_add_(
        0, torch.from_numpy(case.tokens).flatten(), posterior.exp().float().flatten(0, 1)
    )
    np.testing.assert_allclose(counts.emission, emission, rtol=1e-3)
    assert float(log_probs.sum()) == pytest.approx(float(counts.log_likelihood), rel=1e-4)
