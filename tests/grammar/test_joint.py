"""A grammar and an automaton at once: against enumeration of every text, in budgets, and no way into a dead end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode import automata, laws
from ctrldecode._resources import grammar_path
from ctrldecode.automata import TokenDFA
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import BudgetError, GrammarLimitError, InputError
from ctrldecode.grammar.grammar import Grammar
from ctrldecode.grammar.joint import JointPotential
from tests.grammar.enumeration import LETTERS, LONGEST, PIECES, compiled, completions
from tests.grammar.strategies import ALPHABET, grammars, language, texts

pytestmark = pytest.mark.filterwarnings("ignore::ctrldecode.errors.GrammarWarning")  # random grammars have unused names

BYTES = Vocabulary([*(bytes([b]) for b in range(256)), None], {256})


@st.composite
def letter_automata(draw):
    """Random automata over the three letters, and what they accept."""
    states = draw(st.integers(1, 4))
    table = [[draw(st.integers(-1, states - 1)) for _ in ALPHABET] for _ in range(states)]
    accepting = draw(st.lists(st.booleans(), min_size=states, max_size=states))
    return table, accepting


def reached(table, text):
    state = 0
    for letter in text:
        state = table[state][ALPHABET.index(letter)] if state >= 0 else -1
    return state


def walk(potential, tokens, budget=math.inf):
    state = potential.init(torch.zeros(1, 1, dtype=torch.long), budget=torch.tensor([budget]))
    for token in tokens:
        state = potential.step(state, torch.tensor([token]))
    return state


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@settings(max_examples=80, deadline=None)
@given(grammars(), letter_automata())
def test_masks_equal_enumeration(parser, text, automaton):
    """Where both are known for all texts up to a length, with that length as the budget."""
    table, accepting = automaton
    accepted = language(text, LONGEST, parser)
    grammar = None if accepted is None else compiled(text, LETTERS, parser)
    if accepted is None or grammar is None:
        return
    both = {one for one in accepted if (state := reached(table, one)) >= 0 and accepting[state]}
    potential = JointPotential(grammar, TokenDFA([[*row, -1] for row in table], 0, accepting, 3, vocabulary=LETTERS))
    if not both:
        with pytest.raises(BudgetError):
            walk(potential, [], LONGEST)
        return
    shortest = completions(both)
    for prefix in texts(LONGEST - 1):
        left = LONGEST - len(prefix)
        if shortest.get(prefix, LONGEST + 1) > left:
            continue  # no text of both: what is allowed there does not matter
        weights = potential.log_weights(walk(potential, [ALPHABET.index(letter) for letter in prefix], LONGEST))[0]
        wanted = [shortest.get(prefix + letter, LONGEST + 1) <= left - 1 for letter in ALPHABET]
        assert [bool(torch.isfinite(w)) for w in weights[:3]] == wanted, prefix
        assert bool(torch.isfinite(weights[3])) == (prefix in both), prefix


def automaton_of_pieces(table, accepting):
    """The same automaton over tokens of several letters."""
    rows = []
    for state in range(len(table)):
        row = []
        for piece in PIECES.tokens:
            here = state
            for letter in (piece or b"").decode():
                here = table[here][ALPHABET.index(letter)] if here >= 0 else -1
            row.append(-1 if piece is None else here)
        rows.append(row)
    return TokenDFA(rows, 0, accepting, 3, vocabulary=PIECES)


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@settings(max_examples=60, deadline=None)
@given(grammars(), letter_automata(), st.integers(0, 2**32 - 1))
def test_whatever_is_drawn_ends_in_a_text_of_both(parser, text, automaton, seed):
    """With tokens that span lexemes, and a budget that is just enough, or somewhat more.

    Ambiguous grammars of earley mode hardly ever come back to a position, so a search there may be given up, which is told.
    """
    grammar = None if language(text, 0, parser) is None else compiled(text, PIECES, parser)
    if grammar is None:
        return
    dfa = automaton_of_pieces(*automaton)
    potential, rng = JointPotential(grammar, dfa, max_places=1000), np.random.default_rng(seed)
    try:
        drawn_texts_are_of_both(potential, rng)
    except GrammarLimitError:
        assert parser == "earley"


def drawn_texts_are_of_both(potential, rng):
    try:
        (shortest,) = map(int, potential.fewest(walk(potential, [], 12)))
    except BudgetError:  # there is none so short
        return
    for budget in (shortest, shortest + 1, 12):
        if not 0 < budget <= 12:
            continue
        state, tokens = walk(potential, [], budget), []
        for _ in range(budget + 1):
            allowed = torch.isfinite(potential.log_weights(state)[0]).nonzero().flatten().tolist()
            if allowed == [3] or (len(tokens) == budget and 3 in allowed):
                break
            assert allowed, (tokens, budget)
            assert torch.isfinite(potential.grammar.log_weights(state.grammar)[0, allowed]).all(), (tokens, budget)
            token = int(rng.choice([one for one in allowed if one != 3] or allowed))
            tokens.append(token)
            state = potential.step(state, torch.tensor([token]))
        assert len(tokens) <= budget
        assert potential.dfa.accepts_tokens(tokens)
        assert potential.grammar.accepts(PIECES.bytes_of(tokens))


@settings(max_examples=25, deadline=None)
@given(grammars(), letter_automata())
def test_laws(text, automaton):
    grammar = None if language(text, 0, "lalr") is None else compiled(text, PIECES, "lalr")
    if grammar is None:
        return
    potential = JointPotential(grammar, automaton_of_pieces(*automaton))
    try:
        walk(potential, [], 12)
    except BudgetError:
        return
    laws.check(potential, PIECES, budget=12)


def test_a_list_is_not_closed_before_its_word():
    grammar = Grammar.from_file(grammar_path("card")).compile(BYTES)
    wanted = automata.contains_all(BYTES, ["dragon", "ball"])
    joint, plain = grammar.within(wanted), grammar
    beginning = b'{"hero": "Tim", "kind": "boy", "animals": ['
    for potential, closes in ((joint, False), (plain, True)):
        weights = potential.log_weights(walk(potential, list(beginning)))[0]
        assert bool(torch.isfinite(weights[ord("]")])) == closes
        assert bool(torch.isfinite(weights[ord('"')]))


def test_budgets_are_checked_before_the_first_token():
    grammar = Grammar.from_file(grammar_path("card")).compile(BYTES)
    joint = grammar.within(automata.contains(BYTES, ["dragon"]))
    text = b'{"hero": "Aa", "kind": "boy", "animals": ["dragon"], "things": [], "mood": "sad"}'
    assert joint.shortest == len(text)
    walk(joint, [], len(text))
    with pytest.raises(BudgetError, match="needs at most 80 tokens; raise max_new_tokens"):
        walk(joint, [], len(text) - 1)


@pytest.mark.parametrize("word", ["unicorn", "girl boy"])
def test_a_word_that_the_grammar_cannot_say_is_refused(word):
    grammar = Grammar.from_file(grammar_path("card")).compile(BYTES)
    with pytest.raises(BudgetError, match="there is no text of the grammar card within the automaton"):
        walk(grammar.within(automata.contains(BYTES, [word])), [])


def test_nesting_without_end_is_limited_or_bounded():
    grammar = Grammar('start: "(" start ")" | "a"').compile(BYTES)
    impossible = automata.contains(BYTES, ["b"], boundaries=False)
    with pytest.raises(BudgetError, match="at most 40 tokens"):
        walk(grammar.within(impossible), [], 40)
    with pytest.raises(GrammarLimitError, match="max_places"):
        walk(JointPotential(grammar, impossible, max_places=300), [])


def test_vocabularies_must_agree():
    with pytest.raises(InputError, match="one Vocabulary"):
        JointPotential(Grammar('start: "a"').compile(BYTES), TokenDFA([[0, -1]], 0, [0], 1))


def test_every_tokenisation_counts():
    """Whatever the pieces: the joint mask is the plain one where the automaton accepts all."""
    grammar = Grammar("start: (T | U)+\nT: /ab|c/\nU: /a+/").compile(PIECES)
    everything = TokenDFA([[0] * 3 + [-1] + [0] * 5], 0, [0], 3, vocabulary=PIECES)
    joint = grammar.within(everything)
    for tokens in itertools.product([0, 1, 2, 4, 6], repeat=3):
        state, other = walk(grammar, []), walk(joint, [])
        for token in tokens:
            assert torch.equal(grammar.log_weights(state), joint.log_weights(other))
            if not torch.isfinite(grammar.log_weights(state)[0, token]):
                break
            state, other = (p.step(s, torch.tensor([token])) for p, s in ((grammar, state), (joint, other)))
