"""Earley mode: what differs from lalr mode, ambiguity, bounds on ignored text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark, Token
from lark.exceptions import LarkError
from lark.lexer import Lexer

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import ConflictError, GrammarError, GrammarWarning
from ctrldecode.grammar.grammar import Grammar
from tests.grammar.enumeration import LETTERS, LONGEST, completions, walk
from tests.grammar.strategies import ALPHABET, grammars, opened, texts
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::ctrldecode.errors.GrammarWarning")  # random grammars have unused names

BYTES = Vocabulary([*(bytes([b]) for b in range(256)), None], {256})
RUNS = Vocabulary([b"a", b"b", None, *(b"a" * n for n in (2, 3, 5, 8, 16, 32, 64))], {2})

TRAPS = {
    "leftmost-first, not longest": ("start: T\nT: /a|ab/", {"a": True, "ab": False}),
    "every length of a lexeme": ('start: T "b"\nT: /ab*/', {"ab": True, "abb": True, "a": False}),
    "keyword and name": (
        'start: "if" N | N "x"\nN: /[a-z]+/\n%ignore " "',
        {"ifx": True, "if x": True, "ix x": True, "x": False},
    ),
    "an open comment": (
        'start: ("/" | "*" | "a")+\nC: "/*" /[^*]*/ "*/"\n%ignore C',
        {"/*a": True, "/*a*/": True, "/*a*/a": True, "a/*": True},
    ),
    "ignored text is not cut": ('start: "b" "c" "b"\n%ignore /c+/', {"bcb": True, "bccb": True, "ccbcbcc": True}),
    "ignored text takes what it can": ('start: "a" "ca"\n%ignore /c+/', {"aca": True, "acca": False, "accca": False}),
    "left recursion": ('start: start "a" | "b"', {"baaa": True, "b": True, "ab": False}),
    "ambiguity": ('start: start start | "a"', {"a": True, "aaa": True, "": False}),
    "palindromes": ('start: "a" start "a" | "b" start "b" | ', {"abba": True, "": True, "abab": False}),
    "a cycle": ('start: p | "a"\np: start', {"a": True, "aa": False}),
    "empty in the middle": ('start: p "a" p\np: "b"?', {"a": True, "bab": True, "bb": False}),
    "not LALR(1)": ('start: p "x" | q "y"\np: "a" p?\nq: "a" q?', {"aax": True, "aay": True, "aa": False}),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name: str) -> None:
    text, expected = TRAPS[name]
    grammar = Grammar(text, parser="earley")
    assert grammar.parser == "earley"
    potential = grammar.compile(BYTES)
    for candidate, wanted in expected.items():
        assert grammar.accepts(candidate) == wanted, f"lark on {candidate!r}"
        assert potential.accepts(candidate) == wanted, candidate


AMBIGUOUS = {
    "two lengths": "start: x\nx: A x | B x | A\nA: /a/\nB: /aa/",
    "every cut": "start: N start | N\nN: /[ab]+/",
    "every tree": 'start: start start | "a"',
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguity_does_not_multiply(name: str) -> None:
    """A text has more readings than could be kept; a position holds a few configurations all the same."""
    potential = Grammar(AMBIGUOUS[name], parser="earley").compile(RUNS)
    position = potential.language.start()
    for _ in range(60):
        allowed = position.mask()
        assert all(int(allowed[t >> 5]) >> (t & 31) & 1 for t in (0, 3, 9)), "runs of a of every length"
        position = position.step(0)
        assert position is not None
        assert len(position.configurations) <= 3
    assert position.accepts


def test_nesting_of_ten_thousand_levels() -> None:
    potential = Grammar('start: "a" start "b" | "c"', parser="earley").compile(LETTERS)
    depth = 10_000
    state = walk(potential, [0] * depth + [2] + [1] * (depth - 1))
    position = state.positions[0]
    assert position is not None
    assert not position.accepts
    assert position.cost == 1
    last = position.step(1)
    assert last is not None
    assert last.accepts


class _Given(Lexer):
    """Hands lark terminals that were lexed before."""

    def __init__(self, conf: Any) -> None:
        """Take nothing from lark."""

    def lex(self, data: list[str]) -> Iterator[Token]:
        return (Token(name, name) for name in data)


@settings(max_examples=40, deadline=None)
@given(grammars(), st.integers(0, 2))
def test_ignored_text_is_bounded(text: str, longest: int) -> None:
    """By enumeration: the texts that some cut into lexemes, and runs of ignored text within the bound, makes a sentence."""
    lark = opened(text, "earley")
    if lark is None or "%ignore" not in text:
        return
    sentences = Lark(text, parser="earley", lexer=_Given)

    @cache
    def is_sentence(names: tuple[str, ...]) -> bool:
        try:
            sentences.parse(names)  # pyright: ignore[reportArgumentType]  our lexer takes names
        except LarkError:
            return False
        return True

    def accepted(candidate: str) -> bool:
        return any(is_sentence(names) for names in set(cuts(lark, candidate, longest)))

    wanted = {candidate for candidate in texts(LONGEST) if accepted(candidate)}
    try:
        potential = Grammar(text, parser="earley").compile(LETTERS, max_ignored=longest)
    except GrammarError:
        assert not wanted
        return
    prefixes = set(completions(wanted))
    for candidate in texts(LONGEST):
        assert potential.accepts(candidate) == (candidate in wanted), candidate
        if candidate in prefixes:
            state = walk(potential, [ALPHABET.index(letter) for letter in candidate])
            assert state.positions[0] is not None, candidate


def cuts(lark: Lark, text: str, longest: int) -> Iterator[tuple[str, ...]]:
    """The sequences of terminals that a text can be cut into, no run of ignored text being longer than a bound."""
    conf: Any = lark.parser.lexer_conf  # pyright: ignore[reportUnknownMemberType]
    parser: Any = lark.parser.parser  # pyright: ignore[reportUnknownMemberType]
    patterns = {t.name: parser.term_matcher.__self__.regexps[t.name] for t in conf.terminals}

    def after(place: int, run: int) -> Iterator[tuple[str, ...]]:
        if place == len(text):
            yield ()
        for name, pattern in patterns.items():
            found = pattern.match(text, place)
            if found and name in conf.ignore and run + found.end() - place <= longest:
                yield from after(found.end(), run + found.end() - place)
            for end in range(place + 1, len(text) + 1):
                if pattern.fullmatch(text, place, end) and pattern.match(text[place:end]).end() == end - place:
                    yield from ((name, *rest) for rest in after(end, 0))

    return after(0, 0)


@pytest.mark.parametrize("name", golden.names())
def test_shipped_grammars_in_this_mode(name: str) -> None:
    """The golden texts of the shipped grammars, whose language may be larger in this mode than the files say."""
    grammar = Grammar.from_file(golden.FOLDER / f"{name}.lark", parser="earley")
    potential = grammar.compile(BYTES)
    candidates = [
        text
        for suffix in ("accept", "reject")
        for text in golden.read(golden.FOLDER / f"{name}.{suffix}")
        if len(text) < 100
    ]
    for candidate in candidates[::2]:
        assert potential.accepts(candidate) == grammar.accepts(candidate), candidate


AUTO = {
    'start: "a" start "b" | "c"': "lalr",
    'start: p | q\np: T\nq: T\nT: "a"': "earley",  # one lexeme, two rules
    'start: "a" start | "a" start "b" | "c"': "earley",  # lark's lalr parser would read on at "b"
    'start: start start | "a"': "earley",
}


@pytest.mark.parametrize("text", AUTO)
def test_auto_takes_lalr_where_the_grammar_is_lalr(text: str) -> None:
    assert Grammar(text).parser == AUTO[text]
    assert Grammar(text, parser="earley").parser == "earley"


def test_what_reads_on_is_named() -> None:
    with pytest.warns(GrammarWarning, match=r'before "b" .* start: "a" start \(parser="earley" follows both\)'):
        Grammar('start: "a" start | "a" start "b" | "c"', parser="lalr")
    with pytest.raises(ConflictError, match=r"p: T|p: \"a\""):
        Grammar('start: p | q\np: T\nq: T\nT: "a"', parser="lalr")
    with pytest.warns(GrammarWarning, match="never used: p, T"):
        Grammar('start: "a"\np: T\nT: "b"')
