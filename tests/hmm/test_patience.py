"""Patience and urgency: a pull that waits until it decides, against its formula written out token by token."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode import laws
from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.core.potential import per_row
from ctrldecode.errors import InputError
from ctrldecode.hmm import _patience
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from tests.hmm.stories import ENDS, SIZE, attribute, both_of, story_hmm
from tests.hmm.test_lookahead import run


def scores_of(rows, seed=3):
    return torch.log_softmax(3 * torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed)), -1)


def weights_under(potential, state, scores):
    out = scores.clone()
    potential.add_log_weights(state, out)
    return out - scores


def after(potential, texts, budget=24):
    """The state behind texts of equal length."""
    state = potential.init(torch.zeros(len(texts), 0, dtype=torch.long), None, torch.full((len(texts),), budget))
    for column in zip(*texts, strict=True):
        state = potential.step(state, torch.tensor(column))
    return state


TEXTS = [[4, 5, 6], [3, 5, 6], [3, 7, 6]]


@pytest.mark.parametrize("limit", ["eos", "open"])
@pytest.mark.parametrize("detail", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, attribute()])
@pytest.mark.parametrize("power", [1.0, 1.25])
def test_a_patience_of_almost_1_is_the_lookahead_itself(limit, detail, weights, power):
    plain, patient = (
        Lookahead(story_hmm(), both_of(3, 7), weights, max_new_tokens=24, limit=limit, detail=detail, patience=patience)
        ** power
        for patience in (1.0, 1 + 1e-12)
    )
    scores = scores_of(len(TEXTS))
    wanted = weights_under(plain, after(plain, TEXTS), scores)
    found = weights_under(patient, after(patient, TEXTS), scores)
    assert torch.equal(found.isneginf(), wanted.isneginf())
    known = ~wanted.isneginf()
    for row in range(len(TEXTS)):  # up to a factor of the row
        difference = (found - wanted)[row][known[row]]
        torch.testing.assert_close(difference, difference[:1].expand_as(difference), atol=1e-4, rtol=0)


def by_hand(lookahead, state, scores, row):
    """Every token's log-weight in a row, up to what is common to all: the formula of the docstring, move by move in Python floats."""
    coarse = Lookahead(
        lookahead.hmm, lookahead.automaton, max_new_tokens=lookahead.max_new_tokens, limit=lookahead.limit, detail=0.0
    ).log_weights(state)[row].tolist()  # fmt: skip
    probs = scores[row].exp().tolist()
    target = lookahead.automaton.table[int(state.node[row])][lookahead.automaton.classes]
    groups = {}
    for token in range(SIZE):
        if coarse[token] > -math.inf:
            groups.setdefault("end" if token in ENDS else int(target[token]), []).append(token)
    mass = {move: sum(probs[token] for token in tokens) for move, tokens in groups.items()}
    total = sum(mass.values())
    spent = 1 - float(state.left[row] / state.budget[row])
    mean = sum(mass[move] / total * coarse[tokens[0]] for move, tokens in groups.items())
    found = [-math.inf] * SIZE
    for move, tokens in groups.items():
        tilt = (1 + lookahead.urgency * spent) * (coarse[tokens[0]] - mean)
        share = math.log(mass[move] / total)
        pull = max(0.0, lookahead.patience * (share + tilt) - share) if tilt > 0 else tilt
        for token in tokens:
            found[token] = pull
    return torch.tensor(found)


@pytest.mark.parametrize("limit", ["eos", "open"])
@pytest.mark.parametrize(("patience", "urgency"), [(8.0, 0.8), (3.0, 0.0), (1.0, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_pulls_are_those_of_the_formula(limit, patience, urgency, seed):
    lookahead = Lookahead(
        story_hmm(seed), both_of(3, 7), max_new_tokens=24, limit=limit, detail=0, patience=patience, urgency=urgency
    )
    state, scores = after(lookahead, TEXTS, budget=9), scores_of(len(TEXTS), seed)
    found = weights_under(lookahead, state, scores)
    for row in range(len(TEXTS)):
        torch.testing.assert_close(found[row], by_hand(lookahead, state, scores, row), atol=1e-4, rtol=1e-4)


def test_a_patient_lookahead_leaves_a_word_alone_until_the_pull_decides():
    plain, patient = (
        Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open", detail=0, patience=patience)
        for patience in (1.0, 8.0)
    )
    rare = torch.full((1, SIZE), 1.0)
    rare[0, 3] = 1e-6
    rare = (rare / rare.sum()).log()
    pulled = weights_under(plain, after(plain, [[4]]), rare)[0]
    assert float(pulled[3] - pulled[4]) > 0.1  # to write 3 is worth something
    held = weights_under(patient, after(patient, [[4]]), rare)[0]
    assert float(held[3]) == 0
    likely = torch.full((1, SIZE), 1.0)
    likely[0, 3] = 5.0
    likely = (likely / likely.sum()).log()
    late = [[4] * 21]  # the words are urgent
    usual, own = (weights_under(potential, after(potential, late), likely)[0] for potential in (plain, patient))
    assert float(own[3] - own[4]) > float(usual[3] - usual[4]) + 1  # the pull decides, and is given in full


def test_urgency_grows_as_the_budget_of_a_row_is_spent():
    lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open", detail=0, urgency=1.0)
    plain = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open", detail=0)
    scores = scores_of(1)
    for budget in (6, 24):
        for spent in (0, 3):
            state = after(lookahead, [[4] * spent], budget)
            own, usual = (weights_under(potential, state, scores)[0] for potential in (lookahead, plain))
            exponent = (own[3] - own[4]) / (usual[3] - usual[4])
            assert float(exponent) == pytest.approx(1 + spent / budget, abs=1e-4)


@pytest.mark.parametrize("limit", ["eos", "open"])
@pytest.mark.parametrize("budget", [3, 4, 9])
def test_what_is_asked_for_always_comes_within_the_budget(limit, budget):
    wanted = both_of(3, 7)
    lookahead = Lookahead(story_hmm(), wanted, max_new_tokens=9, limit=limit, detail=0.2, patience=8, urgency=0.8)
    rng = torch.Generator().manual_seed(0)
    state = lookahead.init(torch.zeros(16, 1, dtype=torch.long), None, torch.full((16,), budget))
    texts = [[] for _ in range(16)]
    for step in range(budget):
        scores = scores_of(16, step)
        lookahead.add_log_weights(state, scores)
        for row in state.finished.nonzero()[:, 0].tolist():
            assert bool(scores[row].isfinite().all())  # weights of 0 behind the end
        chosen = torch.multinomial(scores.softmax(-1), 1, generator=rng)[:, 0]
        for row in (~state.finished).nonzero()[:, 0].tolist():
            texts[row].append(int(chosen[row]))
        state = lookahead.step(state, chosen)
    for text in texts:
        ended = text[-1] in ENDS
        assert ended or limit == "open"
        assert wanted.accepts_tokens(text[:-1] if ended else text)


def test_without_scores_the_weights_are_those_of_the_lookahead():
    """Laws hold for `log_weights`; what `add_log_weights` adds is more, as with candidates."""
    patient = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, patience=8, urgency=0.8)
    plain = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24)
    state = after(patient, TEXTS)
    torch.testing.assert_close(patient.log_weights(state), plain.log_weights(state))
    laws.check(plain, eos_token_ids=ENDS)
    assert run(patient, seed=5) == run(plain, seed=5)


def test_rows_and_exponents_are_heeded():
    lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, detail=0.2, patience=4, urgency=0.5)
    scores = scores_of(2)
    together = lookahead**1.5
    alone = per_row([lookahead, lookahead]) ** 1.5
    prompts = torch.tensor([[4, 5], [3, 5]])
    torch.testing.assert_close(
        weights_under(alone, alone.init(prompts), scores), weights_under(together, together.init(prompts), scores)
    )


def test_what_the_model_gives_to_forbidden_tokens_alone_is_pulled_as_ever():
    """Of e⁻²⁰⁰ and less float32 knows no exponential; the pulls are those of the probabilities among allowed tokens."""
    lookahead = Lookahead(
        story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open", detail=0, patience=4, urgency=0.5
    )
    late = after(lookahead, [[4] * 22], 24)  # 3 or 7 must come now
    scores = torch.full((1, SIZE), -math.log(SIZE))
    wanted = weights_under(lookahead, late, scores)
    assert wanted[0, [3, 7]].abs().max() > 0.1
    allowed = ~wanted.isneginf()
    torch.testing.assert_close(
        weights_under(lookahead, late, torch.where(allowed, scores - 200, scores)), wanted, atol=1e-4, rtol=0
    )


def test_what_the_hmm_holds_impossible_is_left_to_the_mask():
    emission = torch.tensor(
        [
            [0.0 if token in {3, *ENDS} else 1.0 for token in range(SIZE)],
            [float(token in ENDS) for token in range(SIZE)],
        ]
    )
    silent = HMM([1, 0], [[0.5, 0.5], [0, 1]], emission / emission.sum(1, keepdim=True), ENDS)
    never = TokenDFA(
        [
            [1 if token in {3, 4} else 0 for token in range(SIZE)],
            [2 if token == 3 else 1 for token in range(SIZE)],
            [2] * SIZE,
        ],
        0,
        [2],
        ENDS,
    )
    lookahead = Lookahead(silent, never, max_new_tokens=2, limit="open", detail=0, patience=8, urgency=1)
    state = after(lookahead, [[4]], budget=2)
    assert float(lookahead.log_psi(state)[0]) == -math.inf
    found = weights_under(lookahead, state, scores_of(1))[0]
    assert found.tolist() == [0.0 if token == 3 else -math.inf for token in range(SIZE)]


def test_moves_of_unknown_worth_are_not_pulled():
    probs = torch.tensor([[0.5, 0.3, 0.2]])
    move = torch.tensor([[0, 1, 2]])
    found = _patience.pulls(
        probs, move, torch.zeros(3).long(), torch.tensor([-1.0, -math.inf, 0.0]), torch.ones(1), 1.0
    )
    torch.testing.assert_close(found, torch.tensor([-2 / 7, 0.0, 5 / 7]))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"patience": 0.5}, "patience must be"),
        ({"patience": math.inf}, "patience must be"),
        ({"patience": math.nan}, "patience must be"),
        ({"urgency": -1}, "urgency must be"),
        ({"urgency": math.inf}, "urgency must be"),
        ({"patience": 8, "candidates": 10}, "leave out candidates"),
        ({"urgency": 1, "strength": 2.0}, "leave out candidates"),
    ],
)
def test_wrong_numbers_are_refused(given, wanted):
    with pytest.raises(InputError, match=wanted):
        Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9, **given)
