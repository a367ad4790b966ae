"""Grammar potentials against lark, by enumeration of every text of a small alphabet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lark import Lark, Token

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import BudgetError, GrammarError, GrammarLimitError, InputError
from ctrldecode.grammar.grammar import Grammar
from tests.grammar.enumeration import (
    LETTERS,
    LONGEST,
    completions,
    every_tokenisation_of_every_text,
    laws_hold,
    masks_equal_enumeration,
    walk,
)
from tests.grammar.strategies import ALPHABET, grammars, language, texts

pytestmark = pytest.mark.filterwarnings("ignore::ctrldecode.errors.GrammarWarning")  # random grammars have unused names

both_parsers = pytest.mark.parametrize("parser", ["lalr", "earley"])


@both_parsers
@settings(max_examples=60, deadline=None)
@given(grammars())
def test_masks_equal_enumeration(parser: str, text: str) -> None:
    masks_equal_enumeration(parser, text)


@both_parsers
@settings(max_examples=60, deadline=None)
@given(grammars())
def test_every_tokenisation_of_every_text(parser: str, text: str) -> None:
    every_tokenisation_of_every_text(parser, text)


@both_parsers
@settings(max_examples=25, deadline=None)
@given(grammars())
def test_laws(parser: str, text: str) -> None:
    laws_hold(parser, text)


@pytest.mark.soak
@both_parsers
@settings(max_examples=2000, deadline=None, phases=[Phase.generate])
@given(grammars())
def test_two_thousand_grammars(parser: str, text: str) -> None:
    masks_equal_enumeration(parser, text)
    every_tokenisation_of_every_text(parser, text)


TRAPS = {
    "keywords that begin one another": (
        'start: "in" N | "int" N | "as" N | "assert" N | "async" N | N "=" N\nN: /[a-z]+/\n%ignore " "',
        {"int x": True, "in x": True, "async x": True, "assert x": True, "int=x": False, "asy=x": True, "as=x": False},
    ),
    "ignored keyword at the end": ('start: (W | T)*\nT: /[ab]/\nW: "b"\n%ignore W', {"bb": True, "ab": True, "": True}),
    "ignored space as a keyword": (
        'start: (W | S)+\nW: /[a-z ]/\nS: " "\n%ignore S',
        {"a ": True, " ": True, "a b": True},
    ),
    "a terminal that is ignored never comes": (
        'start: "a" W "d" | "b"\nW: "c"\n%ignore W',
        {"a": False, "cb": True, "acd": False},
    ),
    "leftmost-first, not longest": ("start: T\nT: /a|ab/", {"a": True, "ab": False}),
    "longest alternative first": ("start: T\nT: /ab|a/", {"a": True, "ab": True}),
    "keyword or name": (
        'start: "if" N | N "x"\nN: /[a-z]+/\n%ignore " "',
        {"ifx": False, "if x": True, "ix x": True, "i x": True},
    ),
    "a pending match": ('start: (T | "." )+\nT: /[0-9]+(\\.[0-9]+)?/', {"1.": True, "1.5": True, "1..5": True}),
    "comment left open": (
        'start: ("/" | "*" | "a")+\nC: "/*" /[^*]*/ "*/"\n%ignore C',
        {"/*a": True, "/*a*/": False, "/*a*/a": True, "a/*": True},
    ),
    "ignored keyword reaches the parser": (
        'start: U U\nU: /[^a]/\nW: "c"\n%ignore "c"',
        {"bb": True, "bc": False, "cbb": False},
    ),
    "case folding": ('start: "select"i', {"SELECT": True, "Select": True, "SELEC": False}),
    "lazy repeat": ('start: T "b"?\nT: /ab*?/', {"a": True, "ab": True, "abb": False}),
    "empty text": ("start: T?\nT: /a+/", {"": True, "a": True}),
    "characters of several bytes": (
        "start: T+\nT: /[à-ü]|[一-龥]|😀/",
        {"éé": True, "語": True, "😀": True, "a": False},
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name: str) -> None:
    text, expected = TRAPS[name]
    grammar = Grammar(text, parser="lalr")
    potential = grammar.compile(Vocabulary([*(bytes([b]) for b in range(256)), None], {256}))
    for candidate, wanted in expected.items():
        assert grammar.accepts(candidate) == wanted, f"lark on {candidate!r}"
        assert potential.accepts(candidate) == wanted, candidate


def test_budget_is_checked_before_the_first_token() -> None:
    potential = Grammar('start: "a" "b" "c"').compile(LETTERS)
    prompts = torch.zeros(2, 1, dtype=torch.long)
    with pytest.raises(BudgetError, match="needs 3 tokens, but only 2 are allowed"):
        potential.init(prompts, budget=torch.tensor([3, 2]))
    weights = potential.log_weights(potential.init(prompts, budget=torch.tensor([3, 3])))
    assert torch.isfinite(weights).tolist() == [[True, False, False, False]] * 2


def test_tokens_that_span_lexemes_count_where_the_budget_needs_them() -> None:
    pieces = Vocabulary([b"a", b"b", b"c", b"ab", b"bc", b"abc", None], {6})
    prompts = torch.zeros(1, 1, dtype=torch.long)
    text = 'start: "a" "b" "c"'
    potential = Grammar(text).compile(pieces)
    assert potential.shortest == 3
    weights = potential.log_weights(potential.init(prompts, budget=torch.tensor([1])))[0]
    assert torch.isfinite(weights).nonzero().flatten().tolist() == [5]
    assert potential.shortest == 1
    tight = Grammar('start: ("a" "b" "c") ~ 4').compile(Vocabulary([b"a", b"b", b"c", b"ca", b"bca", None], {5}))
    state = tight.init(prompts, budget=torch.tensor([6]))  # a bca bca bca b c
    for left in range(6, 0, -1):
        allowed = torch.isfinite(tight.log_weights(state)[0]).nonzero().flatten()
        assert len(allowed), left
        state = tight.step(state, allowed[:1])
    assert torch.isfinite(tight.log_weights(state)[0]).nonzero().flatten().tolist() == [5]
    with pytest.raises(BudgetError, match="found needs 6 tokens, but only 5"):
        tight.init(prompts, budget=torch.tensor([5]))


def test_nesting_of_ten_thousand_levels() -> None:
    potential = Grammar('start: "a" start "b" | "c"').compile(LETTERS)
    depth = 10_000
    state = walk(potential, [0] * depth + [2] + [1] * (depth - 1))
    assert torch.isfinite(potential.log_weights(state)).tolist() == [[False, True, False, False]]
    assert potential.accepts("a" * depth + "c" + "b" * depth)


@settings(max_examples=40, deadline=None)
@given(grammars(), st.integers(0, 2))
def test_ignored_text_is_bounded(text: str, longest: int) -> None:
    """By enumeration: the texts in which no run of ignored lexemes is longer than the bound, and all their prefixes."""
    accepted = language(text, LONGEST, "lalr")
    if accepted is None or "%ignore" not in text:
        return
    lark = Lark(text, parser="lalr", keep_all_tokens=True)
    wanted = {candidate for candidate in accepted if longest_ignored(lark, candidate) <= longest}
    try:
        potential = Grammar(text, parser="lalr").compile(LETTERS, max_ignored=longest)
    except GrammarError:
        assert not wanted
        return
    prefixes = set(completions(wanted))
    for candidate in texts(LONGEST):
        assert potential.accepts(candidate) == (candidate in wanted), candidate
        state = walk(potential, [ALPHABET.index(letter) for letter in candidate])
        if candidate in prefixes:
            assert state.positions[0] is not None, candidate


def longest_ignored(lark: Lark, text: str) -> int:
    """Characters between the lexemes that the parser sees, at most."""
    seen = [(token.start_pos, token.end_pos) for token in lark.parse(text).scan_values(lambda v: isinstance(v, Token))]
    ends = [0, *(end for _, end in seen)]
    starts = [*(start for start, _ in seen), len(text)]
    return max(start - end for start, end in zip(starts, ends, strict=True))


def test_mask_bits_and_scores_agree() -> None:
    tokens = [bytes([b]) for b in range(70)]  # 70 bits: two words and a part
    potential = Grammar(r"start: /[\x00-\x20]/ /[!-E]/*").compile(Vocabulary(tokens, {69}))
    state = walk(potential, [3])
    words = potential.mask(state)
    assert words.dtype == np.int32
    assert words.shape == (1, 3)
    weights = potential.log_weights(state)
    bits = [bool(int(words[0, v >> 5]) >> (v & 31) & 1) for v in range(70)]
    assert torch.isfinite(weights[0]).tolist() == bits
    for dtype in (torch.float32, torch.float64, torch.float16):
        scores = torch.randn(1, 70).to(dtype)
        wanted = scores + weights.to(dtype)
        potential.add_log_weights(state, scores)
        assert torch.equal(scores, wanted)


ERRORS = {
    'start: a b\na: "x"': "Rule 'b'|b",
    'start: "a" start': "no text",
    "start: T\nT: /a(?=b)/": "terminal T.*lookahead",
    "start: T\nT: /(a)\\1/": "terminal T.*back-reference",
    "start: T\nT: /^a/": "terminal T.*anchor",
    "start: T\nT: /a*/": "terminal T.*empty text",
    "start: T\nT: /a(/": "/a.*no regular expression: missing",
    "start: [": "line 1",
    'start: x | y\nx: T\ny: T\nT: "a"': "Reduce/Reduce",
}


@pytest.mark.parametrize("text", ERRORS)
def test_bad_grammars_are_named(text: str) -> None:
    with pytest.raises(GrammarError, match=ERRORS[text]):
        Grammar(text, parser="lalr").compile(LETTERS)


def test_a_bound_on_masks_costs_time_only() -> None:
    text = 'start: "a" start "b" | "c"'
    small, large = (Grammar(text).compile(LETTERS, mask_bytes=size) for size in (1, 2**20))
    for tokens in ([], [0], [0, 0], [0, 2], [], [0], [0, 0, 2, 1]):
        assert torch.equal(small.log_weights(walk(small, tokens)), large.log_weights(walk(large, tokens)))
    kept = small.language._kept
    assert len(kept) == 1


def test_limits_are_named() -> None:
    with pytest.raises(GrammarLimitError, match="max_lexer_states"):
        Grammar("start: T\nT: /(a|b)*a(a|b){12}c/").compile(LETTERS, max_lexer_states=500)
    with pytest.raises(GrammarLimitError, match="max_search"):
        Grammar('start: U start T | T T T\nT: /(ab)+/\nU: "a"').compile(LETTERS, max_search=2)
    with pytest.raises(InputError, match="parser"):
        Grammar('start: "a"', parser="glr")
    with pytest.raises(GrammarError, match="cannot read"):
        Grammar.from_file("no/such/file.lark")


RUNS = """
start: (WORD | sum)+
sum: "-" sum | "=" WORD
WORD: /a(aa)*/
%ignore / /
"""


@pytest.mark.parametrize("max_ignored", [None, 3])
@pytest.mark.parametrize(
    "text", ["a     a", "aaaa", "aaaaaaa", "-----=a", " " * 9, "a   ", "a    -  =aaa", "=aaaa=aaa"]
)
def test_a_run_of_one_byte_ends_where_its_bytes_lead(text: str, max_ignored: int | None) -> None:
    vocabulary = Vocabulary([*(bytes([b]) for b in range(128)), None], {128})
    own = Grammar(RUNS).compile(vocabulary, max_ignored=max_ignored).language
    found = own.start()
    for byte in text.encode():
        found = None if found is None else own.after(found, bytes([byte]))
    assert own.after(own.start(), text.encode()) is found
