"""The automata of terminals against Python's `re`, text by text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.automata._charset import merge, utf8_automaton
from ctrldecode.automata._nfa import Nfa
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import GrammarError
from ctrldecode.grammar import Grammar, GrammarPotential

BYTES = Vocabulary([*(bytes([b]) for b in range(256)), None], {256})

# Pattern, and the characters that its texts are drawn from.
PATTERNS = [
    (r"[^\"\\]+", 'a"\\é\n'),
    (r"\w+", "aé_1 ٣-ß"),
    (r"\d+", "12٣a²"),
    (r"\s+", " \t\u00a0\u2003\x1fa"),
    (r"(?i:straße|k)", "STRAßEstraekK\u212a"),
    (r"(?i:[a-f]+)", "aFgſG"),
    (r"a{2,4}?b?", "ab"),
    (r"(?s:.)+", "a\n😀"),
    (r".+", "a\n😀"),
    (r"[一-龥ぁ-ん]+", "語あa"),
    (r"(?x: a [ ] b )", "a b"),
    (r"a(?:b|bc)(?:d|cd)?", "abcd"),
    (r"[\x80-\U0010ffff]+", "\x7f\x80\u07ff\u0800\uffff\U00010000"),
    (r"\W+|\D", "aé_1 ٣-"),
]


def single(pattern: str) -> tuple[Grammar, GrammarPotential]:
    grammar = Grammar(f"start: T\nT: /{pattern}/")
    return grammar, grammar.compile(BYTES)


@pytest.mark.parametrize(("pattern", "letters"), PATTERNS)
def test_terminal_equals_lark(pattern: str, letters: str) -> None:
    grammar, potential = single(pattern)

    @settings(max_examples=80, deadline=None)
    @given(st.text(alphabet=letters, max_size=6))
    def check(text: str) -> None:
        assert potential.accepts(text) == grammar.accepts(text), text

    check()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='"\\an\n', max_size=8))
def test_escaped_string_of_lark(text: str) -> None:
    grammar = Grammar("%import common.ESCAPED_STRING\nstart: ESCAPED_STRING /a+/?")
    potential = grammar.compile(BYTES)
    for candidate in (text, f'"{text}"'):
        assert potential.accepts(candidate) == grammar.accepts(candidate), candidate


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF)).map(sorted), max_size=4))
def test_utf8_automaton(pairs: list[list[int]]) -> None:
    ranges = merge([(low, high) for low, high in pairs])
    node = utf8_automaton(ranges)
    edges = {point for low, high in pairs for edge in (low, high) for point in (edge - 1, edge, edge + 1)}
    for point in edges | {0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF}:
        if 0 <= point <= 0x10FFFF and not 0xD800 <= point <= 0xDFFF:
            assert spelled(node, chr(point).encode()) == any(low <= point <= high for low, high in ranges), hex(point)


def spelled(node: object, text: bytes) -> bool:
    for byte in text:
        if node is None:
            return False
        node = next((rest for low, high, rest in node if low <= byte <= high), False)  # type: ignore[attr-defined]
        if node is False:
            return False
    return node is None


@pytest.mark.parametrize("pattern", ["a(?!b)", "(?<!a)b", r"(a)\1", r"a\b", "a$", "(?>a+)a", "a++", "(a)?(?(1)b|c)"])
def test_refused_constructs_name_the_terminal(pattern: str) -> None:
    re.compile(pattern)  # they are constructs of `re`
    with pytest.raises(GrammarError, match=r"terminal NAME.*rewrite"):
        Nfa().add_pattern(pattern, 0, "NAME")


def test_declared_terminal() -> None:
    with pytest.raises(GrammarError, match="terminal FOO is declared"):
        Grammar('%declare FOO\nstart: FOO "a"')
