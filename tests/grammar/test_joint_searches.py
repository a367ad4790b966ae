"""What a `JointPotential` remembers of its searches: true after other searches, and never more than the grammar's own mask allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.automata import TokenDFA
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import BudgetError, GrammarLimitError, InputError
from ctrldecode.grammar.grammar import Grammar
from ctrldecode.grammar.joint import JointPotential
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.kernels.tokens import masks
from tests.grammar.enumeration import PIECES, compiled
from tests.grammar.strategies import grammars, language

pytestmark = pytest.mark.filterwarnings("ignore::ctrldecode.errors.GrammarWarning")  # random grammars have unused names

LETTERS = Vocabulary([b"a", b"b", b"c", b"d", b"e", None], {5})


def automaton(edges, accepting, vocabulary):
    """From edges (state, token, state)."""
    tokens = vocabulary.tokens
    table = np.full((max(max(a, b) for a, _, b in edges) + 1, vocabulary.size), -1)
    for here, token, after in edges:
        table[here, tokens.index(token.encode())] = after
    return TokenDFA(table, 0, accepting, vocabulary.eos_token_ids, vocabulary=vocabulary)


def walk(potential, text, budget):
    state = potential.init(torch.zeros(1, 1, dtype=torch.long), budget=torch.tensor([float(budget)]))
    for letter in text:
        state = potential.step(state, torch.tensor([LETTERS.tokens.index(letter.encode())]))
    return state


def allowed(potential, state):
    return set(torch.isfinite(potential.log_weights(state)[0]).nonzero().flatten().tolist())


def test_a_place_that_was_reached_by_a_long_way_is_reached_again_by_a_shorter_one():
    """The search comes to state 2 by `aaaa` first, which both think is nearer to an end, and `bbc` is shorter."""
    grammar = Grammar("start: /(bbc|a)*d/").compile(LETTERS)
    edges = [(0, "b", 1), (1, "b", 7), (7, "c", 2), (0, "a", 3), (3, "a", 4), (4, "a", 8), (8, "a", 2)]
    dfa = automaton([*edges, (2, "a", 5), (5, "d", 6), (2, "e", 6)], [6], LETTERS)
    walk(grammar.within(dfa), "", 5)
    with pytest.raises(BudgetError):
        walk(grammar.within(dfa), "", 4)


def test_a_way_that_is_told_again_ends_where_the_text_may():
    """After `c` two more letters are needed, after `b` they are a way, too, but one is enough."""
    grammar = Grammar('start: "b" ("a" | "a" "a") | "c" "a" "a" | "d"').compile(LETTERS)
    dfa = automaton([(0, "b", 1), (0, "c", 1), (1, "a", 2), (2, "a", 3), (0, "d", 3)], [2, 3], LETTERS)
    joint = grammar.within(dfa)
    assert joint.fewest(walk(joint, "c", 3)) == [2]
    assert allowed(joint, walk(joint, "", 2)) == {1, 3}


def test_ways_that_only_the_grammars_plan_allows_are_not_counted_on():
    """The grammar has found that `ab` is one token, and allows it where it began; not what leads there again."""
    vocabulary = Vocabulary([b"a", b"b", b"c", None, b"ab"], {3})
    grammar = Grammar('start: "a" "b"\n%ignore "c"').compile(vocabulary)
    dfa = automaton([(0, "c", 1), (1, "ab", 2), (1, "a", 3), (3, "b", 2)], [2], vocabulary)
    joint = grammar.within(dfa)
    assert grammar.init(torch.zeros(1, 1), budget=torch.tensor([1.0])).positions[0].cost == 1
    with pytest.raises(BudgetError):
        walk(joint, "", 2)
    assert allowed(joint, walk(joint, "", 3)) == {2}
    assert allowed(joint, walk(joint, "c", 3)) == {0, 4}
    product = grammar * joint
    assert allowed(product, product.init(torch.zeros(1, 1), budget=torch.tensor([3.0]))) == {2}


class Oracle:
    """What is left of the grammar's masks and the automaton's, once all that leads to no end within the budget is taken away."""

    def __init__(self, grammar, dfa):
        self.grammar, self.dfa, self.known = grammar, dfa, {}

    def ends(self, position, state, left):
        key = (position, state, left)
        if key not in self.known:
            self.known[key] = (position.accepts and self.dfa.accepting[state]) or bool(self.allowed(*key))
        return self.known[key]

    def allowed(self, position, state, left):
        (tokens,) = np.nonzero(masks.bits(position.mask(left), self.grammar.size)) if left > 0 else ([],)
        following = [(int(t), int(self.dfa.table[state, self.dfa.classes[t]])) for t in tokens]
        return {
            token
            for token, after in following
            if after >= 0
            and self.dfa.accept_distance[after] <= left - 1
            and self.ends(position.step(token), after, left - 1)
        }


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@settings(max_examples=60, deadline=None)
@given(grammars(), st.randoms(use_true_random=False))
def test_masks_are_exact_in_whatever_order_they_are_asked_for(parser, text, rng):
    """One potential for many texts, in turns, with other budgets, and its memory emptied now and then."""
    grammar = None if language(text, 0, parser) is None else compiled(text, PIECES, parser)
    if grammar is None:
        return
    states = rng.randint(1, 5)
    rows = [[-1 if piece is None else rng.randrange(-1, states) for piece in PIECES.tokens] for _ in range(states)]
    dfa = TokenDFA(rows, 0, [rng.random() < 0.4 for _ in rows], 3, vocabulary=PIECES)
    joint, oracle = JointPotential(grammar, dfa, max_places=500), Oracle(grammar, dfa)
    try:
        masks_are_exact(joint, oracle, rng)
    except GrammarLimitError:
        assert parser == "earley"


def masks_are_exact(joint, oracle, rng):
    start, at = joint.grammar.language.start(), joint.dfa.start
    texts = []
    for budget in rng.choices(range(8), k=6):
        if start.cost > budget or joint.dfa.accept_distance[at] > budget or not oracle.ends(start, at, budget):
            with pytest.raises(BudgetError):
                walk(joint, "", budget)
        else:
            texts.append(walk(joint, "", budget))
    while texts:
        state = texts.pop(rng.randrange(len(texts)))
        (position,), (where,), (left,) = state.grammar.positions, state.states, state.grammar.left
        if rng.random() < 0.1:
            joint._forget(0)
        tokens = allowed(joint, state) - {3}
        assert tokens == oracle.allowed(position, where, left)
        if tokens:
            texts.append(joint.step(state, torch.tensor([rng.choice(sorted(tokens))])))
        else:
            assert position.accepts
            assert joint.dfa.accepting[where]


def test_without_a_budget_what_is_allowed_can_be_finished():
    grammar = Grammar('start: "(" start ")" | "a"').compile(Vocabulary([b"(", b")", b"a", None], {3}))
    dfa = TokenDFA([[1, -1, -1, -1], [2, -1, -1, -1], [2, 2, 2, -1]], 0, [2], 3)
    joint = grammar.within(dfa)
    state = joint.init(torch.zeros(1, 1), budget=torch.tensor([math.inf]))
    for _ in range(20):
        assert allowed(joint, state) == ({0} if state.states[0] < 2 else {0, 2})
        state = joint.step(state, torch.tensor([0]))


@pytest.mark.parametrize("limit", ["open", "eos"])
def test_the_end_of_sequence_counts_where_it_must_come_within_the_budget(limit):
    """A lookahead with that limit forbids what leaves no token for the end."""
    grammar = Grammar('start: ("a" | "b")+').compile(LETTERS)
    dfa = automaton([(0, "a", 0), (0, "b", 1), (1, "a", 2), (2, "a", 3)], [3], LETTERS)
    emissions = np.array([[0.2] * 5 + [0], [0] * 5 + [1]])
    hmm = HMM([1, 0], [[0.9, 0.1], [0, 1]], emissions, eos_token_ids=[5])
    joint, ends = grammar.within(dfa, limit=limit), int(limit == "eos")
    product = joint * Lookahead(hmm, dfa, max_new_tokens=5, limit=limit)
    with pytest.raises(BudgetError, match=f"at most {2 + ends} tokens{', the end of sequence among them' * ends};"):
        walk(joint, "", 2 + ends)
    assert allowed(joint, walk(joint, "", 3 + ends)) == {1}
    state = walk(product, "", 3 + ends)
    for token in (1, 0, 0):
        assert allowed(product, state) == {token}
        state = product.step(state, torch.tensor([token]))
    assert 5 in allowed(product, state)


def test_limits_are_checked_and_told_apart():
    grammar = Grammar('start: "a"').compile(LETTERS)
    dfa = automaton([(0, "a", 1)], [1], LETTERS)
    with pytest.raises(InputError, match="limit must be"):
        JointPotential(grammar, dfa, limit="end")
    assert grammar.within(dfa, limit="eos").fingerprint != grammar.within(dfa).fingerprint


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@settings(max_examples=60, deadline=None)
@given(grammars(), st.lists(st.sampled_from([0, 1, 2, 4, 5, 6, 7, 8]), max_size=4))
def test_grouped_tokens_lead_where_a_step_leads(parser, text, tokens):
    """In earley mode perhaps to another position, with the same future: what is no longer alive may be joined to it or not."""
    grammar = None if language(text, 0, parser) is None else compiled(text, PIECES, parser)
    position = None if grammar is None else grammar.language.start()
    for token in tokens:
        position = position and position.step(token)
    if grammar is None or position is None:
        return
    groups = grammar.language.grouped(position)
    reached = {int(token): after for after, members in groups for token in members}
    assert len(reached) == sum(len(members) for _, members in groups)
    assert set(reached) | {3} == set(np.flatnonzero(masks.bits(position.mask(), PIECES.size))) | {3}
    for token, after in reached.items():
        stepped = position.step(token)
        assert stepped is after or (parser == "earley" and stepped.cost == after.cost)
