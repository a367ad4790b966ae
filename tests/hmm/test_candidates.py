"""Candidates: within the bound that they report, under exponents and in products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.potential import per_row
from ctrldecode.hmm import _candidates
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from tests.hmm.stories import ENDS, SIZE, attribute, both_of, story_hmm


@pytest.mark.parametrize("power", [0.5, 1.0, 1.25, 3.0])
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-6])
def test_candidates_are_within_the_bound_that_they_report(monkeypatch, tolerance, power):
    monkeypatch.setattr(_candidates, "_LEAST", 2)
    parts = story_hmm(), both_of(3, 7), attribute()
    exact, listed = (Lookahead(*parts, max_new_tokens=24, limit="open", candidates=c) for c in (None, tolerance))
    scores = torch.log_softmax(4 * torch.randn(2, SIZE, generator=torch.Generator().manual_seed(3)), -1)
    whole, few = scores.clone(), scores.clone()
    for lookahead, out in ((exact, whole), (listed, few)):
        potential = lookahead**power
        potential.add_log_weights(potential.init(torch.zeros(2, 1, dtype=torch.long)), out)
    kept = ~few.isneginf()
    torch.testing.assert_close(few[kept], whole[kept])
    left_out = (whole.exp().sum(-1) - few.exp().sum(-1)) / few.exp().sum(-1)
    assert bool((left_out <= tolerance + 1e-6).all())
    assert listed.truncation.largest <= tolerance
    assert float(left_out.max()) <= listed.truncation.largest + 1e-6
    assert listed.truncation.steps == 2
    assert tolerance == 1e-6 or listed.truncation.tokens < 2 * SIZE


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4])
def test_hardly_more_candidates_are_weighed_than_their_bound_takes(tolerance, rows):
    size, rng = 3000, torch.Generator().manual_seed(7)
    emission = torch.rand(4, size, generator=rng) ** 8
    emission[:, 0], emission[3], emission[3, 0] = 0, 0, 1
    transition = torch.tensor([[0.6, 0.2, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.2, 0.2, 0.5, 0.1], [0, 0, 0, 1]])
    hmm = HMM([0.5, 0.3, 0.2, 0], transition, emission / emission.sum(1, keepdim=True), eos_token_ids=[0])
    moves = np.where(np.isin(np.arange(size), [5, 6, 7]), 1, [[0], [1]])  # one of these must come
    automaton = TokenDFA(moves, 0, [1], [0])
    expected = emission[:3].sum(0).clamp_min(1e-9).log()
    scores = (expected + 4 * torch.randn(rows, size, generator=rng)).log_softmax(
        -1
    )  # a model that is like the HMM, but for noise

    def weighed(candidates):
        lookahead = Lookahead(hmm, automaton, max_new_tokens=20, limit="open", candidates=candidates)
        lookahead.add_log_weights(lookahead.init(torch.zeros(rows, 0, dtype=torch.long)), scores.clone())
        return lookahead.truncation

    found = weighed(tolerance)
    assert found.largest <= tolerance
    fewest, enough = 1, size
    while fewest < enough:
        middle = (fewest + enough) // 2
        fewest, enough = (fewest, middle) if weighed(middle).largest <= tolerance else (middle + 1, enough)
    assert 64 < fewest < size // 2
    assert fewest * rows <= found.tokens <= 1.25 * fewest * rows


@pytest.mark.parametrize("rows", [False, True])
def test_a_number_of_candidates_is_heeded_under_an_exponent(rows):
    lookahead = Lookahead(story_hmm(), None, attribute(), max_new_tokens=24, limit="open", candidates=4)
    potential = per_row([lookahead]) ** 1.25 if rows else lookahead**1.25
    state = potential.init(torch.zeros(1, 1, dtype=torch.long))
    scores = torch.zeros(1, SIZE)
    potential.add_log_weights(state, scores)
    kept = ~scores.isneginf()
    assert int(kept.sum()) == 4
    torch.testing.assert_close(scores[kept], potential.log_weights(state)[kept])


@pytest.mark.parametrize("power", [1.0, 1.25])
def test_candidates_are_what_a_mask_allows_whichever_stands_first(power):
    """A mask that forbids what the model likes best leaves no dead end, since candidates are taken from what it allows."""
    allowed = TokenDFA(np.where(np.isin(np.arange(SIZE), [3, 4]), 0, -1)[None], 0, [0], ENDS)
    mask = AutomatonPotential(allowed)
    lookahead = Lookahead(story_hmm(), None, attribute(), max_new_tokens=9, limit="open", candidates=1) ** power
    found = []
    for product in (mask * lookahead, lookahead * mask):
        scores = torch.zeros(1, SIZE)
        scores[0, 8], scores[0, 4] = 20.0, 15.0
        product.add_log_weights(product.init(torch.tensor([[0]])), scores)
        found.append(scores)
    assert (~found[0].isneginf()).nonzero().tolist() == [[0, 4]]
    assert torch.equal(*found)


def test_a_number_of_candidates_falls_back_to_all_tokens():
    automaton = TokenDFA(np.where(np.arange(SIZE) == 3, 1, -1)[None].repeat(2, 0), 0, [1], ENDS)  # nothing but token 3
    lookahead = Lookahead(story_hmm(), automaton, max_new_tokens=4, limit="open", candidates=1)
    scores = torch.zeros(1, SIZE)
    scores[0, 5] = 9.0
    lookahead.add_log_weights(lookahead.init(torch.tensor([[0]])), scores)
    assert (~scores.isneginf()).nonzero()[:, 1].tolist() == [3]


def test_candidates_where_the_hmm_rules_out_what_is_asked_for_are_those_of_the_mask():
    size, rng = 200, torch.Generator().manual_seed(0)
    emission = torch.rand(2, size, generator=rng)
    emission[:, [0, 7]], emission[1], emission[1, 0] = 0, 0, 1
    hmm = HMM([1, 0], [[0.9, 0.1], [0, 1]], emission / emission.sum(1, keepdim=True), eos_token_ids=[0])
    moves = np.where(np.arange(size) == 7, 1, [[0], [1]])  # the HMM never says 7, which must come
    exact, listed, few = (
        Lookahead(hmm, TokenDFA(moves, 0, [1], [0]), max_new_tokens=9, limit="open", candidates=candidates)
        for candidates in (None, 0.01, 100)
    )
    state = exact.init(torch.zeros(2, 0, dtype=torch.long))
    assert exact.log_psi(state).tolist() == [-math.inf] * 2
    scores = torch.randn(2, size, generator=rng).log_softmax(-1)
    whole, some, hundred = scores.clone(), scores.clone(), scores.clone()
    for lookahead, out in ((exact, whole), (listed, some), (few, hundred)):
        lookahead.add_log_weights(state, out)
    kept = ~some.isneginf()
    assert torch.equal(some[kept], whole[kept])
    assert bool((some.logsumexp(-1) > whole.logsumexp(-1) + math.log1p(-0.01)).all())
    left_out = (whole.exp().sum(-1) / hundred.exp().sum(-1) - 1).max()
    assert 0 < float(left_out) <= few.truncation.largest + 1e-6


@pytest.mark.parametrize("candidates", [4, 0.3])
def test_candidates_leave_rows_that_have_ended_as_they_are(monkeypatch, candidates):
    monkeypatch.setattr(_candidates, "_LEAST", 2)
    lookahead = Lookahead(story_hmm(), None, attribute(), max_new_tokens=24, limit="open", candidates=candidates)
    state = lookahead.step(lookahead.init(torch.zeros(2, 1, dtype=torch.long)), torch.tensor([ENDS[0], 3]))
    scores = torch.log_softmax(4 * torch.randn(2, SIZE, generator=torch.Generator().manual_seed(3)), -1)
    out = scores.clone()
    lookahead.add_log_weights(state, out)
    assert torch.equal(out[0], scores[0])
    assert bool(out[1].isneginf().any())
    alone = scores[1:].clone()  # nor do they ask for more candidates of the others
    lookahead.add_log_weights(
        lookahead.step(lookahead.init(torch.zeros(1, 1, dtype=torch.long)), torch.tensor([3])), alone
    )
    torch.testing.assert_close(alone, out[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_candidates_are_rounded_once(dtype):
    scores = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = []
    for candidates in (None, SIZE):
        lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open", candidates=candidates)
        found.append(scores.clone())
        lookahead.add_log_weights(lookahead.init(torch.zeros(20, 1, dtype=torch.long)), found[-1])
    assert torch.equal(*found)


def _add(bounds, weights, candidates):
    """Weights of one row of equal scores, log ψ(x) being 0; what was counted, and how often weights were asked for."""
    calls, account = [], _candidates.Truncation()
    one = torch.zeros(1)

    def weigh(tokens):
        calls.append(tokens.shape[1])
        return weights[None].gather(1, tokens)

    _candidates.add(torch.zeros(1, len(weights)), weigh, bounds[None], one, one.bool(), candidates, account)
    return account, calls


def test_a_bound_that_no_number_holds_is_told():
    bounds = torch.tensor([0.0, -1.0])
    account, _ = _add(bounds, torch.tensor([-800.0, -1.0]), 1)  # e^799 times what is kept
    assert account.largest == math.inf
    account, _ = _add(bounds - torch.tensor([0.0, 800.0]), torch.tensor([-900.0, -801.0]), 1)
    assert account.largest == math.inf


def test_bounds_far_above_what_is_kept_do_not_make_many_rounds():
    size = 2000
    bounds = -torch.linspace(0, 400, size)
    account, calls = _add(bounds, bounds - 150, 0.01)
    assert len(calls) <= 2
    assert account.largest == 0


@pytest.mark.parametrize("candidates", [4, 0.3])
def test_no_rows_have_no_candidates(candidates):
    lookahead = Lookahead(story_hmm(), None, attribute(), max_new_tokens=24, limit="open", candidates=candidates)
    lookahead.add_log_weights(lookahead.init(torch.zeros(0, 1, dtype=torch.long)), torch.zeros(0, SIZE))
    assert lookahead.truncation.steps == 0
