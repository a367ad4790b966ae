"""Records against the definition: every number of a step from log-probabilities and log-weights, without any of our bookkeeping."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from ctrldecode import (
    AutomatonPotential,
    CausalLM,
    ControlProcessor,
    GeDi,
    Vocabulary,
)
from ctrldecode.core.potential import Product, Support, per_row
from ctrldecode.errors import BudgetError, InputError, PotentialError
from ctrldecode.explain import from_json, to_json, trace
from ctrldecode.explain._scores import view_of
from ctrldecode.guidance.forbidden import ForbiddenTokens
from ctrldecode.hmm.lookahead import Lookahead
from tests.explain.potentials import PAIRS, PROMPT, TEXT, Evens, grammar, lookahead, soft
from tests.guidance.models import CODES, EOS, SIZE, TableModel
from tests.hmm.stories import ENDS, attribute, both_of, story_hmm
from tests.hmm.stories import SIZE as STORY
from tests.toys import Automaton, Table, tiny_llama

POTENTIALS = {
    "none": lambda: None,
    "one": soft,
    "power": lambda: soft() ** 0.5,
    "automaton and table": lambda: soft() * AutomatonPotential(PAIRS),
    "quotient": lambda: AutomatonPotential(PAIRS) * soft(1) / Table(SIZE, seed=2, hard=0.0, eos=EOS),
    "gedi": lambda: GeDi(TableModel(seed=5), CODES, target="b", strength=4.0) * AutomatonPotential(PAIRS),
    "by row": lambda: per_row([AutomatonPotential(PAIRS)]),
}


def log_weights(potential, text, budget):
    """log-weights (V,) of what may follow a text, by stepping from the start."""
    if potential is None:
        return torch.zeros(SIZE)
    state = potential.init(PROMPT, None, torch.tensor([budget]))
    for token in text:
        state = potential.step(state, torch.tensor([token]))
    return potential.log_weights(state)[0]


@pytest.mark.parametrize("name", POTENTIALS)
def test_every_text_against_the_definition(name):
    lm, budget = TableModel(seed=1), 4
    for tokens in itertools.product(range(SIZE), repeat=3):
        potential = POTENTIALS[name]()
        found = trace(lm, potential, PROMPT, tokens, vocabulary=TEXT, budget=budget, top=SIZE)
        log_weight = total = 0.0
        for at, step in enumerate(found.steps):
            log_probs = torch.tensor(lm.log_probs([*PROMPT[0].tolist(), *tokens[:at]]))
            scores = log_probs + log_weights(potential, tokens[:at], budget)
            normaliser = float(scores.logsumexp(-1))
            log_weight, total = log_weight + normaliser, total + float(scores[tokens[at]] - log_probs[tokens[at]])
            masked = scores.isneginf()
            assert step.log_prob == pytest.approx(float(log_probs[tokens[at]]), abs=1e-5)
            assert step.log_final == pytest.approx(float(scores[tokens[at]]) - normaliser, abs=1e-5)
            assert (step.log_normaliser, step.log_weight) == pytest.approx((normaliser, log_weight), abs=1e-5)
            assert step.sum_log_weights == pytest.approx(total, abs=1e-4)
            assert step.masked == sum(effect.masked for effect in step.effects) == int(masked.sum())
            assert step.mass == pytest.approx(float(log_probs[masked].exp().sum()), abs=1e-6)
            moved = 0.5 * float((log_probs.exp() - (scores - normaliser).exp()).abs().sum())
            assert step.moved == pytest.approx(moved, abs=1e-6)
            if potential is not None and potential.hard:
                assert step.moved == pytest.approx(step.mass, abs=1e-6)
            assert {one.token.id: one.log_final for one in step.candidates} == pytest.approx(
                {token: value - normaliser for token, value in enumerate(scores.tolist())}, abs=1e-5
            )
        last = len(found.steps) - 1
        assert found.ending == ("forbidden" if total == -math.inf else "ended" if tokens[last] == EOS else "open")
        assert last == 2 or found.ending in ("forbidden", "ended")
        assert from_json(to_json(found)) == found


def test_factors_in_order_add_up():
    potential = soft() * AutomatonPotential(PAIRS) * soft(4) ** 2.0
    found = trace(TableModel(seed=1), potential, PROMPT, [1, 2, 1, EOS], vocabulary=TEXT, budget=6, top=SIZE)
    assert [(factor.kind, factor.power) for factor in found.factors] == [
        ("automaton", 1.0),
        ("potential", 1.0),
        ("potential", 2.0),
    ]
    for step in found.steps:
        assert step.sum_log_weights == pytest.approx(sum(effect.sum_log_weights for effect in step.effects))
        assert step.effects[-1].log_normaliser == step.log_normaliser
        for at, effect in enumerate(step.effects):  # every token is a candidate here, so the sum is over all
            total = torch.tensor([one.after[at] for one in step.candidates]).logsumexp(0)
            assert effect.log_normaliser == pytest.approx(float(total), abs=1e-5)
        for one in step.candidates:
            assert one.after[-1] - step.log_normaliser == pytest.approx(one.log_final, abs=1e-5)
            assert list(one.after).index(-math.inf) == 0 if one.after[0] == -math.inf else True


def _within_three(log_probs, weights):
    guided = log_probs + weights
    return guided >= guided.amax(-1, keepdim=True) - 3


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("support", [False, True], ids=["alone", "with support"])
def test_log_weights_are_those_of_the_processor(temperature, support):
    model = tiny_llama()
    potential = Automaton() * Table() ** 0.5
    rule = Support(_within_three, "three nats below the best") if support else None
    processor = ControlProcessor(potential, max_new_tokens=9, eos_token_ids=[2], support=rule)
    prompt = torch.tensor([[5, 9, 11]])
    lm = CausalLM(model, eos_token_ids=[2], temperature=temperature)
    ids, generator = prompt, torch.Generator().manual_seed(3)
    for _ in range(9):
        out = processor(ids, model(ids).logits[:, -1] / temperature)
        ids = torch.cat([ids, out.softmax(-1).multinomial(1, generator=generator)], dim=1)
        if ids[0, -1] == 2:
            break
    (row,) = processor.report(ids)
    words = Vocabulary([b"%d." % token for token in range(50)], 2)
    found = trace(lm, potential, prompt, row.tokens, vocabulary=words, budget=9, support=rule)
    assert [step.token.id for step in found.steps] == list(row.tokens)
    assert found.steps[-1].log_weight == pytest.approx(row.log_weight, abs=1e-4)
    assert [step.log_normaliser for step in found.steps] == pytest.approx(row.log_normalisers, abs=1e-4)
    assert [(step.masked, pytest.approx(step.mass, abs=1e-5)) for step in found.steps] == [tuple(m) for m in row.masked]
    assert found.ending in ("ended", "open")
    assert [factor.kind for factor in found.factors][-1] == ("support" if support else "potential")


@pytest.mark.parametrize("form", [{"patience": 8.0, "urgency": 0.8}, {"candidates": 3}], ids=["patience", "candidates"])
@pytest.mark.parametrize("beside", ["quotient", "support"])
def test_what_heeds_the_scores_is_told_as_it_was_applied(form, beside):
    own = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9, limit="open", **form)
    mood = Lookahead(story_hmm(1), None, attribute(), max_new_tokens=9, limit="open")
    potential, rule = (own / mood, None) if beside == "quotient" else (own, Support(_within_three, "three nats"))
    processor = ControlProcessor(potential, max_new_tokens=9, eos_token_ids=ENDS, support=rule)
    prompt, logits = torch.tensor([[4, 5]]), torch.randn(1, STORY, generator=torch.Generator().manual_seed(3))
    wanted = processor(prompt, logits)[0]
    product = potential**1.0
    found = view_of(logits, product, rule, product.init(prompt, None, torch.tensor([9])))
    torch.testing.assert_close(found.scores[-1], wanted, atol=1e-4, rtol=0)


def test_ranks_and_what_was_masked_most():
    lm = TableModel(seed=1)
    found = trace(lm, AutomatonPotential(PAIRS), PROMPT, [0, 0, 0], vocabulary=TEXT, top=2)
    (first, _, last) = found.steps
    order = sorted(range(SIZE), key=lambda token: -lm.log_probs(PROMPT[0].tolist())[token])
    assert first.rank == order.index(0)
    assert {*order[:2], 0} <= {one.token.id for one in first.candidates}
    assert {one.token.id for one in last.effects[0].removed} == {0}
    assert (
        last.effects[0].removed[0].why
        == last.effects[0].verdict
        == "from state 4 it leads nowhere: no accepted text goes on that way"
    )


# ---------------------------------------------------------------------------------------------------- ends and refusals


def test_a_dead_end_is_recorded_as_a_place():
    potential = AutomatonPotential(PAIRS) * grammar('start: A A A\nA: "a"')
    found = trace(TableModel(seed=1), potential, PROMPT, [0, 0], vocabulary=TEXT, look_ahead=True)
    assert found.ending == "dead end"
    last = found.steps[-1]
    assert (last.token, last.log_weight, last.masked) == (None, -math.inf, SIZE)
    assert last.moved == pytest.approx(1)
    assert {one.token.id for effect in last.effects for one in effect.removed} == set(range(SIZE))
    again = from_json(to_json(found))
    assert to_json(again) == to_json(found)
    assert again.steps[-1].token is None


@pytest.mark.parametrize(
    ("make", "tokens", "budget", "ending"),
    [
        (lambda: AutomatonPotential(PAIRS), [1, 1], 2, "complete"),
        (lambda: AutomatonPotential(PAIRS), [1, 1], 3, "open"),  # more may come
        (lambda: AutomatonPotential(PAIRS), [1, 1], None, "open"),
        (lambda: AutomatonPotential(PAIRS), [1, EOS], 2, "forbidden"),
        (lambda: AutomatonPotential(PAIRS), [2, EOS], 2, "ended"),
        (
            lambda: Table(SIZE, hard=0.0, eos=EOS) * AutomatonPotential(PAIRS),
            [1, 1],
            2,
            "complete",
        ),  # a soft one has no say
        (lambda: per_row([AutomatonPotential(PAIRS)]), [1, 1], 2, "complete"),
        (lambda: grammar('start: A+\nA: "a"'), [0, 0], 2, "complete"),
        (lambda: AutomatonPotential(PAIRS) * grammar('start: A+\nA: "a"'), [0, 0], 2, "complete"),
        (Evens, [1, 1], 2, "complete"),  # a hard potential of one's own
        (Evens, [1, 1, 1], 3, "open"),
        (lambda: lookahead(limit="open", detail=0) ** 1.25, [1, 1], 2, "complete"),
        (lambda: lookahead(limit="open") * Evens(), [2, 1, 1], 3, "open"),  # one of two accepts
        (lambda: Table(SIZE, hard=0.0, eos=EOS), [1, 1], 2, "open"),  # nothing that judges a whole text
        (lambda: ForbiddenTokens([0], size=SIZE, eos_token_ids=[EOS]), [1, 1], 2, "open"),  # as beside a guide
        (lambda: None, [1, 1], 2, "open"),
    ],
)
def test_a_text_that_uses_its_budget_up_is_complete_where_it_may_end(make, tokens, budget, ending):
    found = trace(TableModel(seed=1), make(), PROMPT, tokens, vocabulary=TEXT, budget=budget)
    assert found.ending == ending
    assert from_json(to_json(found)) == found


def test_nothing_behind_the_end_is_looked_at():
    """And the record says so; the text is what came about, without what stood behind it."""
    found = trace(TableModel(seed=1), None, PROMPT, [0, EOS, 1, 2], vocabulary=TEXT, look_ahead=True)
    assert (len(found.steps), found.ending) == (2, "ended")
    assert (found.text, found.rest) == ("a", 2)
    assert json.loads(to_json(found))["rest"] == 2


def test_what_stands_behind_an_impossible_token_is_counted():
    found = trace(TableModel(seed=1), AutomatonPotential(PAIRS), PROMPT, [0, 0, 0, 1, 1], vocabulary=TEXT)
    assert (found.ending, found.text, found.rest) == ("forbidden", "aaabb", 2)
    for tokens, ahead in (([0, 0], True), ([0, 0], False), ([0, EOS], False)):
        assert trace(TableModel(), None, PROMPT, tokens, vocabulary=TEXT, look_ahead=ahead).rest == 0


def test_what_was_asked_for_stands_beside_each_factor():
    potential = soft() * AutomatonPotential(PAIRS)
    found = trace(
        TableModel(), potential, PROMPT, [0], vocabulary=TEXT, asked=lambda factor: f"asked of {factor.describe()}"
    )
    assert [factor.asked for factor in found.factors] == ["asked of the automaton", "asked of Table"]
    assert [factor.asked for factor in trace(TableModel(), potential, PROMPT, [0], vocabulary=TEXT).factors] == ["", ""]


def test_special_tokens_have_names():
    words = Vocabulary([b"a", None, b"\n", b"\xe2", None], EOS)
    found = trace(TableModel(), None, PROMPT, [1, 2, 3], vocabulary=words, names=lambda token: f"<{token}>")
    assert [step.token[1:] for step in found.steps] == [("<1>", "special"), ("⏎", "text"), ("\\xE2", "text")]
    assert trace(TableModel(), None, PROMPT, [1], vocabulary=words).steps[0].token.text == "#1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": []}, "nothing to explain"),
        ({"top": 0}, "nothing to explain"),
        ({"tokens": [9]}, r"ids in \[0, 5\)"),
        ({"budget": 1}, "the budget is 1"),
        ({"prompt": torch.tensor([[0], [1]])}, "one prompt"),
        ({"potential": Table(7)}, "one size"),
        ({"vocabulary": Vocabulary([b"a", None], 1)}, "one size"),
    ],
)
def test_what_is_refused(change, message):
    given = {"potential": None, "prompt": PROMPT, "tokens": [0, 1], "vocabulary": TEXT, **change}
    with pytest.raises(InputError, match=message):
        trace(TableModel(), **given)


def test_a_budget_that_fits_nothing():
    with pytest.raises(BudgetError):
        trace(TableModel(), grammar('start: "a" "b" "c"'), PROMPT, [0], vocabulary=TEXT, budget=1)


def test_a_quotient_that_is_infinite():
    quotient = Product([(soft(), -1.0)])
    with pytest.raises(PotentialError, match="divided by where it is 0"):
        trace(TableModel(), quotient, PROMPT, [0], vocabulary=TEXT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 2}', "null"])
def test_json_of_something_else(text):
    with pytest.raises(InputError):
        from_json(text)
