"""log_prob, filter, posterior and viterbi against every hidden path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ctrldecode.errors import InputError
from ctrldecode.kernels import hmm as kernels
from tests.hmm.models import Parameters, cases, paths, random_parameters, stored, until_end


@given(cases())
@settings(max_examples=60, deadline=None)
def test_log_prob_is_the_sum_over_paths(case):
    parameters, sequences = case
    hmm = parameters.hmm()
    exact = stored(hmm)
    sequences = [until_end(tokens, exact.eos) for tokens in sequences]
    for tokens, log_prob in zip(sequences, hmm.log_prob(sequences), strict=True):
        np.testing.assert_allclose(log_prob.exp(), sum(paths(exact, tokens).values()), rtol=_tolerance(tokens))


def _tolerance(tokens) -> float:
    """A token that is not known counts as exactly 1, where stored rows of float32 sum to 1 within 1e-7."""
    return 1e-12 if -1 not in tokens else 1e-6


@given(cases())
@settings(max_examples=60, deadline=None)
def test_posterior_filter_and_viterbi(case):
    parameters, sequences = case
    hmm = parameters.hmm()
    exact = stored(hmm)
    sequences = [until_end(tokens, exact.eos) for tokens in sequences]
    sequences = [tokens for tokens in sequences if sum(paths(exact, tokens).values()) > 0]
    gamma, best, filtered = hmm.posterior(sequences), hmm.viterbi(sequences), hmm.filter(sequences)
    for row, tokens in enumerate(sequences):
        chances = paths(exact, tokens)
        total, length = sum(chances.values()), len(tokens)
        assert gamma[row, length:].eq(0).all()
        assert best.states[row, length:].eq(-1).all()
        np.testing.assert_allclose(gamma[row, :length], _marginals(chances, hmm.states, length), rtol=1e-9, atol=1e-15)
        path = tuple(best.states[row, :length].tolist())
        np.testing.assert_allclose([chances[path], best.log_prob[row].exp()], max(chances.values()), rtol=1e-9)
        for t in range(length):
            before = paths(exact, tokens[: t + 1])
            wanted = _marginals(before, hmm.states, t + 1)[t]
            np.testing.assert_allclose(filtered.posterior[row, t], wanted, rtol=1e-9, atol=1e-15)
        ahead = paths(exact, [*tokens, -1])
        np.testing.assert_allclose(
            filtered.predicted[row], _marginals(ahead, hmm.states, length + 1)[length], rtol=1e-6, atol=1e-9
        )
        np.testing.assert_allclose(filtered.log_evidence[row].sum().exp(), total, rtol=_tolerance(tokens))


def _marginals(chances, states, length):
    found = np.zeros((length, states))
    for path, chance in chances.items():
        for t, state in enumerate(path):
            found[t, state] += chance
    return found / found.sum(1, keepdims=True)


def test_finished_texts_and_open_prefixes_add_up_to_one():
    hmm = random_parameters(np.random.default_rng(3), 3, 4, eos=(1,)).hmm()
    texts = [until_end(tokens, (1,)) for tokens in itertools.product(range(4), repeat=5)]
    distinct = sorted(set(map(tuple, texts)))
    assert float(hmm.log_prob(distinct).exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_log_prob_in_every_precision(dtype):
    hmm = random_parameters(np.random.default_rng(4), 6, 40).hmm(dtype=dtype)
    sequences = hmm.sample(20, 5, np.random.default_rng(0))
    exact = stored(hmm)
    wanted = [sum(paths(exact, until_end(row, exact.eos)).values()) for row in sequences[:, :4].tolist()]
    np.testing.assert_allclose(hmm.log_prob(sequences[:, :4]).exp(), wanted, rtol=1e-6)


def test_forms_of_a_batch_are_the_same():
    hmm = random_parameters(np.random.default_rng(5), 3, 5).hmm()
    rows = [[1, 2, 3], [4], [], [2, 0, 3, 3]]
    wanted = hmm.log_prob(rows)
    right = torch.tensor([[1, 2, 3, 9], [4, 9, 9, 9], [9, 9, 9, 9], [2, 0, 3, 3]])
    left = torch.tensor([[9, 1, 2, 3], [9, 9, 9, 4], [9, 9, 9, 9], [2, 0, 3, 3]])
    assert torch.equal(hmm.log_prob(right, mask=right != 9), wanted)
    assert torch.equal(hmm.log_prob(left, mask=left != 9), wanted)
    assert torch.equal(hmm.log_prob(left.numpy(), mask=left != 9), wanted)
    assert torch.equal(hmm.posterior(left, mask=left != 9)[:, :3], hmm.posterior([*rows[:3], [2, 0]]))
    assert torch.equal(hmm.log_prob([[1, 2, -1, -1]]), hmm.log_prob([[1, 2]]))
    assert wanted[2] == 0
    assert hmm.log_prob([]).shape == (0,)
    assert hmm.log_prob(torch.zeros(2, 0, dtype=torch.long)).tolist() == [0, 0]


def test_agrees_with_the_kernel_step_by_step():
    hmm = random_parameters(np.random.default_rng(6), 5, 7).hmm()
    tokens = hmm.sample(8, 6, np.random.default_rng(1))
    filtered = hmm.filter(tokens)
    predicted = hmm.initial.expand(8, -1)
    alive = torch.ones(8, dtype=torch.bool)
    for t in range(6):
        posterior, predicted, log_evidence = kernels.filter_step(hmm.emission, hmm.transition, predicted, tokens[:, t])
        torch.testing.assert_close(posterior[alive].double(), filtered.posterior[alive, t], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(log_evidence[alive].double(), filtered.log_evidence[alive, t], rtol=1e-5, atol=1e-6)
        alive = alive & ~torch.isin(tokens[:, t], torch.tensor(hmm.eos_token_ids))


def test_long_sequences_do_not_underflow():
    hmm = random_parameters(np.random.default_rng(7), 4, 6, ends=0).hmm()
    tokens = hmm.sample(1, 3000, np.random.default_rng(0))
    log_prob = hmm.log_prob(tokens)
    assert -8000 < float(log_prob) < -3000
    assert torch.isfinite(hmm.posterior(tokens)).all()
    assert float(hmm.viterbi(tokens).log_prob) < float(log_prob)


def test_impossible_sequences():
    hmm = Parameters(np.array([1.0, 0]), np.array([[0.5, 0.5], [0, 1]]), np.array([[0, 1.0, 0], [1, 0, 0]]), (0,)).hmm()
    assert hmm.log_prob([[1, 2], [1, 0], [0]]).tolist() == [-np.inf, np.log(0.5), -np.inf]
    filtered = hmm.filter([[1, 2]])
    torch.testing.assert_close(filtered.posterior[0, 1], hmm.filter([[1, -1]]).posterior[0, 1])
    assert not filtered.posterior.isnan().any()
    for ask in (hmm.posterior, hmm.viterbi):
        with pytest.raises(InputError, match="sequence 1 has probability 0 under the HMM"):
            ask([[1, 0], [1, 2]])


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ([[1, 7]], None, "must lie in 0 to 4"),
        ([[-2]], None, "must lie in 0 to 4"),
        (torch.tensor([1, 2]), None, r"wanted \(B, T\) token ids"),
        (torch.tensor([[1.5, 2.0]]), None, r"wanted \(B, T\) token ids"),
        (torch.tensor([[1, 2]]), torch.tensor([[True]]), "a mask of their shape"),
        ([[1, 2]], torch.tensor([[True, True]]), "lists of ids need none"),
        ([["a"]], None, "wanted lists of token ids"),
        (["ab"], None, "wanted lists of token ids"),
        (3, None, r"wanted \(B, T\) token ids"),
    ],
)
def test_wrong_tokens(tokens, mask, message):
    hmm = random_parameters(np.random.default_rng(8), 2, 5).hmm()
    with pytest.raises(InputError, match=message):
        hmm.log_prob(tokens, mask)
