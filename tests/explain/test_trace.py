"""Records against the definition: every number of a step from log-probabilities and log-weights, without any of our bookkeeping."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from ctrldecode import (
    HMM,
    AutomatonPotential,
    CausalLM,
    ControlProcessor,
    GeDi,
    Grammar,
    Lookahead,
    TokenDFA,
    Vocabulary,
)
from ctrldecode import fudge as fudge_of
from ctrldecode.core.potential import Potential, Product, Support, per_row
from ctrldecode.errors import BudgetError, InputError, PotentialError
from ctrldecode.explain import from_json, to_json, trace, verdict
from ctrldecode.hmm.attributes import AttributeWeights
from tests.guidance.models import CODES, EOS, SIZE, TableModel, log_posteriors
from tests.toys import Automaton, Table, tiny_llama

TEXT = Vocabulary([b"a", b"b", b"c", b" ", None], EOS)
PROMPT = torch.tensor([[0, 1]])


def rises(state, token):
    return (state * 3 + token + 1) % 3


# At most two tokens 0, and any of the others; an even number of tokens 1.
PAIRS = TokenDFA(
    [[2, 1, 0, 0, -1], [3, 0, 1, 1, -1], [4, 3, 2, 2, -1], [5, 2, 3, 3, -1], [-1, 5, 4, 4, -1], [-1, 4, 5, 5, -1]],
    start=0,
    accepting=[0, 2, 4],
    eos_token_ids=[EOS],
)


def soft(seed=3):
    return Table(SIZE, seed=seed, eos=EOS)


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


# --------------------------------------------------------------------------------------------------------------- reasons


EMISSIONS = [[0.1, 0.2, 0.3, 0.4, 0], [0.4, 0.3, 0.2, 0.1, 0], [0, 0, 0, 0, 1]]


class Evens(Potential[torch.Tensor]):
    """Hard: texts of an even number of tokens; the state is that number."""

    size, hard = SIZE, True

    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts), dtype=torch.long)

    def log_weights(self, state, tokens=None):
        listed = torch.arange(SIZE).expand(len(state), SIZE) if tokens is None else tokens
        return torch.zeros(listed.shape).masked_fill((listed == EOS) & (state % 2 == 1)[:, None], -math.inf)

    def step(self, state, tokens):
        return state + 1


def lookahead(**more):
    hmm = HMM([0.6, 0.4, 0], [[0.5, 0.4, 0.1], [0.3, 0.6, 0.1], [0, 0, 1]], EMISSIONS, eos_token_ids=[EOS])
    return Lookahead(hmm, PAIRS, max_new_tokens=5, **more)


def reasons_of(potential, tokens, **more):
    """Verdict of the last token, and the facts of its step by name."""
    found = trace(TableModel(seed=1), potential, PROMPT, tokens, vocabulary=TEXT, **more)
    effect = found.steps[-1].effects[0]
    return effect.verdict, {fact.name: (fact.before, fact.after) for fact in effect.facts}


def grammar(rules):
    return Grammar(rules).compile(TEXT)


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


def test_all_factors_that_forbid_a_token_say_so():
    potential = AutomatonPotential(PAIRS) * grammar('start: A+\nA: "a"')
    found = trace(TableModel(seed=1), potential, PROMPT, [1, EOS], vocabulary=TEXT)
    assert found.ending == "forbidden"
    assert len(found.steps) == 1
    found = trace(TableModel(seed=1), potential, PROMPT, [0, 0, 0], vocabulary=TEXT)
    assert [bool(effect.verdict) for effect in found.steps[-1].effects] == [True, False]


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
