"""Candidates: within the bound that they report, under exponents and in products."""

from __future__ import annotations

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
