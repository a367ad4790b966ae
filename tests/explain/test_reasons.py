"""What each kind of potential knows of a place, and why it says that a token has weight 0."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode import (
    AutomatonPotential,
    ControlProcessor,
    GeDi,
    Grammar,
    Vocabulary,
)
from ctrldecode import fudge as fudge_of
from ctrldecode.core.potential import per_row
from ctrldecode.explain import trace, verdict
from ctrldecode.hmm.attributes import AttributeWeights
from tests.explain.potentials import PAIRS, PROMPT, TEXT, Evens, grammar, lookahead, soft
from tests.guidance.models import CODES, EOS, SIZE, TableModel, log_posteriors


def reasons_of(potential, tokens, **more):
    """Verdict of the last token, and the facts of its step by name."""
    found = trace(TableModel(seed=1), potential, PROMPT, tokens, vocabulary=TEXT, **more)
    effect = found.steps[-1].effects[0]
    return effect.verdict, {fact.name: (fact.before, fact.after) for fact in effect.facts}


def test_a_grammar_says_what_it_expects():
    sums = grammar('start: A " " B\nA: "a"+\nB: "b"\n')
    verdict, facts = reasons_of(sums, [0, 1])
    begun = '" ", more of A (begun with “a”)'
    assert verdict == f"“b” cannot stand here; expected: {begun}"
    assert facts["expects"] == (begun, "")
    assert reasons_of(sums, [0, EOS])[0] == f"the text cannot end here; expected: {begun}"
    assert reasons_of(sums, [0, 3])[1]["expects"] == (begun, '"b"')
    assert reasons_of(sums, [0, 3, 1, EOS])[0] == ""


def test_a_grammar_tells_where_a_token_leaves_it():
    words = Vocabulary([b"ab", b"ac", "é".encode()[:1], b"b", None], EOS)
    potential = Grammar('start: "ab"+').compile(words)
    found = trace(TableModel(), potential, PROMPT, [1], vocabulary=words)
    assert (
        found.steps[0].effects[0].verdict
        == '“a” fits, then “c” cannot stand here; expected: more of "ab" (begun with “a”)'
    )
    found = trace(TableModel(), potential, PROMPT, [2], vocabulary=words)
    assert found.steps[0].effects[0].verdict.startswith("“\\xC3” cannot stand here")


def test_a_grammar_tells_of_the_budget():
    verdict, facts = reasons_of(grammar('start: A* "b" "b" "c"\nA: "a"'), [0], budget=3)
    assert verdict == "it fits, but finishing may take 3 tokens more, and 2 would be left"
    assert facts["tokens that suffice to finish"] == (3.0, "")


def test_an_automaton_tells_its_state_and_the_way_to_the_end():
    potential = AutomatonPotential(PAIRS)
    assert reasons_of(potential, [1, EOS])[0] == "state 1 does not accept: at least 1 token more before the end"
    assert (
        reasons_of(potential, [2, 1], budget=2)[0]
        == "it leads from state 0 to 1, 1 token from the end, and 0 would be left"
    )
    facts = reasons_of(potential, [1, 1], budget=6)[1]
    assert facts == {
        "automaton state": ("1 of 6", "0 of 6, accepting"),
        "fewest tokens to acceptance": (1.0, 0.0),
        "tokens left": (5.0, 4.0),
    }
    assert (
        reasons_of(per_row([potential]), [1, EOS])[0] == "state 1 does not accept: at least 1 token more before the end"
    )


def test_a_lookahead_tells_what_the_hmm_expects():
    sees = lookahead()
    state = sees.init(PROMPT, None, torch.tensor([5]))
    after = sees.step(state, torch.tensor([1]))
    _, facts = reasons_of(sees, [1], budget=5)
    wanted = pytest.approx((float(sees.log_psi(state)), float(sees.log_psi(after))))
    assert facts["log probability by the HMM that the text comes to be accepted"] == wanted
    assert reasons_of(sees, [1, EOS], budget=5)[0].startswith("state 1 does not accept")
    assert reasons_of(sees, [0, 0, 0], budget=5)[0].startswith("from state 4 it leads nowhere")
    # The end of sequence must fit, too: it stands behind the token that accepts.
    assert (
        reasons_of(sees, [2, 2, 2, 1], budget=5)[0]
        == "it leads from state 0 to 1, 2 tokens from the end, and 1 would be left"
    )


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
def test_a_lookahead_says_of_which_form_its_weights_are(detail):
    """What the HMM expects is of the exact form always; only there do the weights add up to it, times the power."""
    found = trace(
        TableModel(seed=1),
        lookahead(detail=detail) ** 1.25,
        PROMPT,
        [1, 2, 1],
        vocabulary=TEXT,
        budget=5,
        look_ahead=True,
    )
    (factor,) = found.factors
    assert (factor.name[-len(f", detail {detail:g}") :], factor.power) == (f", detail {detail:g}", 1.25)
    name = "log probability by the HMM that the text comes to be accepted"
    first, last = (
        next(fact for fact in step.effects[0].facts if fact.name == name) for step in (found.steps[0], found.steps[-1])
    )
    rise = 1.25 * (last.before - first.before)
    assert (found.steps[-1].effects[0].sum_log_weights == pytest.approx(rise, abs=1e-4)) == (detail == 1)


def test_a_patient_lookahead_says_so_and_its_weights_are_those_of_the_processor():
    patient = lookahead(detail=0.5, patience=8, urgency=0.8)
    found = trace(TableModel(seed=1), patient, PROMPT, [1, 2], vocabulary=TEXT, budget=5)
    assert found.factors[0].name.endswith(", detail 0.5, patience 8, urgency 0.8")
    scores = torch.tensor([TableModel(seed=1).log_probs(PROMPT[0].tolist())], dtype=torch.float32)
    controlled = ControlProcessor(patient, max_new_tokens=5)(PROMPT, scores)
    assert found.steps[0].effects[0].log_weight == pytest.approx(float(controlled[0, 1] - scores[0, 1]), abs=1e-5)


def test_a_lookahead_with_a_strength_or_attributes_says_so():
    weighed = lookahead(weights=AttributeWeights([0.5, 1, 1, 0.2, 1], EOS), strength=2.0)
    found = trace(TableModel(seed=1), weighed, PROMPT, [1], vocabulary=TEXT, budget=5)
    assert found.factors[0].name.endswith(", detail 1, strength 2")
    wanted = "log expectation by the HMM that it is accepted, times its attribute weights, under strength 2"
    assert wanted in {fact.name for fact in found.steps[0].effects[0].facts}


def test_gedi_tells_the_posterior_of_every_class():
    lm = TableModel(seed=5)
    gedi = GeDi(lm, CODES, target="b", strength=4.0)
    _, facts = reasons_of(gedi, [2, 1])
    before, after = (log_posteriors(lm, CODES.values(), PROMPT[0].tolist(), text) for text in ([2], [2, 1]))
    for at, name in enumerate(CODES):
        assert facts[f"P({name})"] == pytest.approx((math.exp(before[at]), math.exp(after[at])), abs=1e-5)


def test_a_support_tells_the_posterior():
    gedi = GeDi(TableModel(seed=5), CODES, target="b", strength=4.0)
    found = trace(
        TableModel(seed=1), gedi, PROMPT, [0], vocabulary=TEXT, support=gedi.support(0.2, 0.9), look_ahead=True
    )
    (removed, *_) = found.steps[0].effects[-1].removed
    assert "the posterior of b is" in removed.why
    assert found.steps[0].effects[-1].masked > 0


def test_fudge_and_candidates():
    def few(ids, mask):
        return -0.5 * mask.sum(-1)

    judge = fudge_of(few, size=SIZE, eos_token_ids=[EOS], candidates=2)
    order = sorted(range(SIZE), key=lambda token: -TableModel(seed=1).log_probs([0, 1])[token])
    verdict, facts = reasons_of(judge, [order[-1]])
    assert verdict == "it is not among the 2 likeliest tokens, which are all that the classifier is asked of"
    assert facts["P(attribute)"][0] == pytest.approx(math.exp(-1))


def test_what_has_nothing_to_say_says_that_its_weight_is_zero():
    table = soft()
    forbidden = int(table.log_weights(table.init(PROMPT)).isneginf().nonzero()[0, 1])
    assert reasons_of(table, [forbidden]) == ("it gives weight 0 and no reason", {})
    found = trace(TableModel(seed=1), Evens(), PROMPT, [0, EOS], vocabulary=TEXT)
    assert verdict(found) == "Token 2, “#4”, is impossible. Evens: it gives weight 0 and no reason."


def test_what_a_grammar_within_an_automaton_knows():
    potential = grammar('start: (A | B)+\nA: "a"\nB: "b"').within(PAIRS)
    assert reasons_of(potential, [1, 1]) == ("", {"fewest tokens to a text of both": (1.0, 0.0)})
    said, facts = reasons_of(potential, [1, EOS], budget=5)
    assert said == "no text of both that goes on with it can be finished within the 4 tokens left"
    assert facts["tokens left"] == (4.0, "")


def test_all_factors_that_forbid_a_token_say_so():
    potential = AutomatonPotential(PAIRS) * grammar('start: A+\nA: "a"')
    found = trace(TableModel(seed=1), potential, PROMPT, [1, EOS], vocabulary=TEXT)
    assert found.ending == "forbidden"
    assert len(found.steps) == 1
    found = trace(TableModel(seed=1), potential, PROMPT, [0, 0, 0], vocabulary=TEXT)
    assert [bool(effect.verdict) for effect in found.steps[-1].effects] == [True, False]
