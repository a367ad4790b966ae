"""`TokenDFA` and its algebra, against sets of token strings, by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.automata import UNREACHABLE, TokenDFA, concatenation, intersection, union
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import AutomatonError, AutomatonLimitError, InputError

SIZE, EOS, LONGEST = 4, 3, 5
STRINGS = [ids for length in range(LONGEST + 1) for ids in itertools.product(range(SIZE), repeat=length)]
BODIES = {ids for ids in STRINGS if EOS not in ids}


@st.composite
def automata(draw: st.DrawFn, most: int = 4) -> TokenDFA:
    states = draw(st.integers(1, most))
    cell = st.integers(-1, states - 1)
    transitions = draw(st.lists(st.lists(cell, min_size=SIZE, max_size=SIZE), min_size=states, max_size=states))
    accepting = draw(st.lists(st.booleans(), min_size=states, max_size=states))
    return TokenDFA(transitions, draw(st.integers(0, states - 1)), accepting, EOS)


def language(dfa: TokenDFA) -> set[tuple[int, ...]]:
    """All accepted strings up to a length, by breadth-first steps over all strings."""
    return {ids for ids in BODIES if dfa.accepts_tokens(ids)}


def plain(transitions, start, accepting) -> set[tuple[int, ...]]:
    found = set()
    for ids in BODIES:
        state = start
        for token in ids:
            state = transitions[state][token] if state >= 0 else -1
        if state >= 0 and accepting[state]:
            found.add(ids)
    return found


@settings(max_examples=40, deadline=None)
@given(automata(), automata())
def test_the_algebra_is_that_of_sets(a: TokenDFA, b: TokenDFA) -> None:
    one, two = language(a), language(b)
    assert language(a & b) == one & two
    assert language(a | b) == one | two
    assert language(~a) == BODIES - one
    joined = {x + y for x in one for y in two}
    assert language(a + b) == joined & BODIES
    assert language(a.minimised()) == one
    assert (a & b) == (b & a)
    assert ~(a & b) == (~a | ~b)
    assert ~~a == a.minimised()


@settings(max_examples=40, deadline=None)
@given(automata())
def test_distances_and_dead_ends(dfa: TokenDFA) -> None:
    for state in range(dfa.states):
        lengths = [len(ids) for ids in BODIES if accepts_from(dfa, state, ids)]
        distance = int(dfa.accept_distance[state])
        assert distance == min(lengths, default=UNREACHABLE)  # at most 4 states, so 5 tokens tell
        assert distance < UNREACHABLE or (dfa.table[state] == -1).all()
        assert all(dfa.accept_distance[t] < UNREACHABLE for t in dfa.table[state] if t >= 0)


def accepts_from(dfa: TokenDFA, state: int, ids: tuple[int, ...]) -> bool:
    for token in ids:
        state = int(dfa.step([state], [token])[0])
    return state >= 0 and bool(dfa.accepting[state])


@settings(max_examples=40, deadline=None)
@given(automata(most=3), automata(most=3))
def test_minimal_automata_of_one_language_are_equal(a: TokenDFA, b: TokenDFA) -> None:
    """Three states each and the dead one: if a string tells two of seven states apart, then one of at most five tokens."""
    equal = language(a) == language(b)
    assert equal == (a.minimised() == b.minimised())
    assert equal == (a.minimised().fingerprint == b.minimised().fingerprint)


def test_a_plain_array_keeps_its_states() -> None:
    transitions = [[1, 2, -1, 0], [2, 1, 0, 1], [2, 2, 2, 2]]
    dfa = TokenDFA(np.array(transitions), 1, [0], EOS)
    assert dfa.states == 3
    assert language(dfa) == plain(transitions, 1, [True, False, False])
    assert (dfa.table[:, dfa.classes[EOS]] == -1).all()
    assert dfa.step([0, 1, -1, 1], [0, 2, 0, EOS]).tolist() == [1, 0, -1, -1]
    assert dfa.accept_distance.tolist() == [0, 1, UNREACHABLE]
    assert dfa.edges().tolist() == [[0, 1], [1, 0], [1, 1]]


def test_ids_without_text_are_never_in_a_body() -> None:
    vocabulary = Vocabulary([b"a", None, b"b", None], {EOS})
    dfa = TokenDFA([[0, 0, 0, 0]], 0, [True], EOS, vocabulary=vocabulary)
    for one in (dfa, ~~dfa, dfa & dfa, dfa | ~dfa, dfa + dfa):
        assert one.accepts_tokens([0, 2, EOS])
        assert not one.accepts_tokens([0, 1])
        assert one.accepts("ab")
        assert not one.accepts("c")
        assert not one.accepts("\ud800")


def test_the_empty_set() -> None:
    nothing = TokenDFA([[0, 0, 0, 0]], 0, [False], EOS)
    assert nothing.is_empty
    assert (nothing | ~nothing).accepts_tokens([0, 1, 2])
    assert (nothing & ~nothing).is_empty
    assert (nothing + ~nothing).is_empty
    assert nothing.minimised().states == 1


@pytest.mark.parametrize("combine", [intersection, union, concatenation])
def test_a_product_past_its_limit_is_refused(combine) -> None:
    def counting(modulus: int) -> TokenDFA:
        """Strings whose number of tokens 0 is a multiple; for concatenation, many borders are possible."""
        rows = [[(q + 1) % modulus, q, q, -1] for q in range(modulus)]
        return TokenDFA(rows, 0, [0], EOS)

    a, b = counting(7), counting(11)
    with pytest.raises(AutomatonLimitError, match="limit=20"):
        combine(a, b, limit=20)
    assert combine(a, b, limit=2000).accepts_tokens([0] * 77)


def test_automata_over_other_tokens_are_refused() -> None:
    a, b = TokenDFA([[0, 0]], 0, [0], 1), TokenDFA([[0, 0, 0]], 0, [0], 1)
    for combine in (intersection, union, concatenation):
        with pytest.raises(InputError, match="same tokens"):
            combine(a, b)
    with pytest.raises(InputError, match="same tokens"):
        TokenDFA([[0, 0]], 0, [0], 0) & a
    with pytest.raises(InputError, match="same vocabulary"):
        TokenDFA([[0, 0]], 0, [0], 1, vocabulary=Vocabulary([b"a", None], 1)) | TokenDFA(
            [[0, 0]], 0, [0], 1, vocabulary=Vocabulary([b"b", None], 1)
        )
    with pytest.raises(TypeError):
        a & 3  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], 0, [0], 1), r"\(Q, V\)"),
        (([[0.5, 1.0]], 0, [0], 1), "integers"),
        (([[0, 1]], 0, [0], 1), r"transitions\[0, 1\] is 1"),
        (([[0, 0]], 1, [0], 1), "start"),
        (([[0, 0]], 0.0, [0], 1), "start"),
        (([[0, 0]], 0, [1], 1), "accepting"),
        (([[0, 0]], 0, [True, False], 1), "accepting"),
        (([[0, 0]], 0, [0], 2), "eos_token_ids"),
        (([[0, 0]], 0, [0], []), "eos_token_ids"),
        (([[0, 0]], 0, [0], [0.5]), "eos_token_ids"),
    ],
)
def test_what_is_no_automaton_is_refused(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        TokenDFA(*arguments)


def test_wrong_states_tokens_and_vocabularies_are_refused() -> None:
    dfa = TokenDFA([[0, 0]], 0, [0], 1)
    with pytest.raises(InputError, match="tokens must be ids"):
        dfa.step([0], [2])
    with pytest.raises(InputError, match="states must be"):
        dfa.step([1], [0])
    with pytest.raises(AutomatonError, match="vocabulary"):
        dfa.accepts("a")
    with pytest.raises(InputError, match="give both the same"):
        TokenDFA([[0, 0]], 0, [0], 1, vocabulary=Vocabulary([b"a", b"b", None], 2))
    with pytest.raises(AttributeError, match="immutable"):
        dfa.start = 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="read-only"):
        dfa.table[0, 0] = -1


def test_a_picture() -> None:
    vocabulary = Vocabulary([b"a", b'"', None], {2})
    picture = TokenDFA([[0, 1, -1], [1, 1, -1]], 0, [1], 2, vocabulary=vocabulary).to_dot()
    assert "1 [shape=doublecircle];" in picture
    assert """0 -> 0 [label="'a'"];""" in picture
    assert r"""0 -> 1 [label="'\"'"];""" in picture
    many = TokenDFA([[0] * 9], 0, [0], 8).to_dot()
    assert 'label="0 1 2 3 … 8 tokens"' in many
