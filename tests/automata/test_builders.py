"""Builders against `re` and plain Python, over every string of tokens of tiny vocabularies."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.automata import (
    TokenDFA,
    _tables,
    contains,
    contains_all,
    forbids,
    in_order,
    regex,
    sentence_count,
    suffix,
    token_count,
    word_count,
)
from ctrldecode.automata._words import is_word, separators, statuses
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import AutomatonError, AutomatonLimitError
from tests.automata.enumeration import agree, pattern

EXAMPLES = settings(max_examples=15, deadline=None)

ASCII = Vocabulary([b"a", b"b", b" ", b" ab", b"ba ", None, None], {6})
# Halves of characters: é is a letter, — a separator, and both can be spelled by one token or by several.
UNICODE = Vocabulary([b"a", b"\xc3", b"\xa9", b"\xe2\x80", b"\x94", None], {5})
MIXED = Vocabulary([b"a", "é".encode(), "—".encode(), b"a\xe2", b"\x80\x94a", None], {5})
PUNCTUATED = Vocabulary([b"a", b". ", b".", b" ", b' "', "…".encode()[:2], "…".encode()[2:], None], {7})

ascii_phrases = st.lists(st.text("ab ", min_size=1, max_size=3), min_size=1, max_size=3)
unicode_phrases = st.lists(st.text("aé—", min_size=1, max_size=2), min_size=1, max_size=2)
CASES = st.one_of(
    st.tuples(st.just(ASCII), ascii_phrases),
    st.tuples(st.just(UNICODE), unicode_phrases),
    st.tuples(st.just(MIXED), unicode_phrases),
)


@EXAMPLES
@given(CASES, st.booleans())
def test_contains_and_forbids(case: tuple[Vocabulary, list[str]], boundaries: bool) -> None:
    vocabulary, phrases = case
    found = re.compile(pattern(phrases, boundaries=boundaries))
    dfa = contains(vocabulary, phrases, boundaries=boundaries)
    agree(dfa, vocabulary, lambda text: bool(found.search(text)))
    assert forbids(vocabulary, phrases, boundaries=boundaries) == ~dfa


@EXAMPLES
@given(st.lists(ascii_phrases, min_size=2, max_size=3), st.booleans())
def test_clauses_in_any_order_and_in_order(clauses: list[list[str]], boundaries: bool) -> None:
    patterns = [pattern(clause, boundaries=boundaries) for clause in clauses]
    together = contains_all(ASCII, clauses, boundaries=boundaries)
    agree(together, ASCII, lambda text: all(re.search(p, text) for p in patterns))
    ordered = in_order(ASCII, clauses, boundaries=boundaries)
    agree(ordered, ASCII, lambda text: bool(re.search(".*".join(patterns), text)))


@EXAMPLES
@given(st.lists(unicode_phrases, min_size=2, max_size=2), st.sampled_from([UNICODE, MIXED]))
def test_clauses_in_order_with_separators_of_several_bytes(clauses: list[list[str]], vocabulary: Vocabulary) -> None:
    patterns = [pattern(clause) for clause in clauses]
    agree(in_order(vocabulary, clauses), vocabulary, lambda text: bool(re.search(".*".join(patterns), text)))


@pytest.mark.parametrize("phrase", ["aé", "a", "—", "aa"])
def test_every_spelling_of_one_text_agrees(phrase: str) -> None:
    """Broken UTF-8 included: a condition on text cannot depend on where its tokens begin."""
    dfa = contains(UNICODE, phrase)
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    single = contains(pieces, phrase)
    ids = [token for token, piece in enumerate(UNICODE.tokens) if piece]
    strings = [()]
    for _ in range(5):
        strings = [(*string, token) for string in strings for token in ids]
        for string in strings:
            assert dfa.accepts_tokens(string) == single.accepts_tokens(UNICODE.bytes_of(string))


@pytest.mark.parametrize(
    ("phrase", "inside", "outside"),
    [
        (
            "dog",
            ["dog", "a dog.", "“dog”", "dog’s", "dog—", "dog。", "！dog", "🐶dog🐶", "\xa0dog", "¿dog?"],
            ["dogma", "hotdog"],
        ),
        (
            "dog",
            ["dog-house", "(dog)", "dog\n", "\tdog"],
            ["dog_", "dog1", "dogé", "ñdog", "dogж", "d og", "Dog", "犬dog"],
        ),
        ("red ball", ["a red ball.", "red ball"], ["red  ball", "redball", "bored ball", "red balls"]),
        ("$5", ["$5", "US$5", "a$5."], ["$50", "$5a"]),
        ("...", ["a...b", "...."], ["..", ". . ."]),
        ("né", ["né", "il est né!"], ["née", "ané"]),
        ("كلب", ["كلب", "كلب،", "هذا كلب؟"], ["كلبي", "الكلب"]),
        ("कुत्ता", ["कुत्ता।"], ["कुत्ताा"]),
        ("犬", ["犬。", "「犬」", "猫・犬・鳥"], ["犬が", "子犬"]),
        ("σκύλος", ["σκύλος·", "ένας σκύλος"], ["σκύλοςα"]),
    ],
)
def test_borders_of_words(phrase: str, inside: list[str], outside: list[str]) -> None:
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    dfa = contains(pieces, phrase)
    assert [text for text in inside if not dfa.accepts(text)] == []
    assert [text for text in outside if dfa.accepts(text)] == []
    anywhere = contains(pieces, phrase, boundaries=False)
    assert [text for text in inside + outside if anywhere.accepts(text) != (phrase in text)] == []


@pytest.mark.parametrize("text", ["dog", "كلب", "कुत्ता", "ひらがな", "ሰላም"])
def test_the_kind_of_every_character(text: str) -> None:
    """The automaton over UTF-8 says of every character what the ranges say; ASCII as `re`'s \\w."""
    parting = separators(text)
    table = statuses(parting)
    planes = [*range(0x10000, 0x20000, 7), *range(0x20000, 0x110000, 997), 0x3FFFF, 0x40000, 0x10FFFF]
    for code in [*range(0x3400), *range(0xFE00, 0x10000), *planes]:
        status = 0
        for byte in chr(code).encode():
            status = int(table[status, byte])
        assert status == int(is_word(chr(code), parting)), hex(code)
        assert code > 127 or is_word(chr(code), parting) == bool(re.match(r"\w", chr(code)))
    assert all(is_word(character, parting) for character in text)


LEADS = [
    chr(code).encode() for code in (0xA0, 0xE9, 0x416, 0x905, 0x2014, 0x3042, 0x72AC, 0xFF01, 0x1F436, 0x20000, 0xE0100)
]


@pytest.mark.parametrize("character", LEADS, ids=str)
def test_a_character_that_is_broken_off_is_a_separator(character: bytes) -> None:
    """As U+FFFD is, which stands for it in decoded text; whole characters are judged by the same pattern."""
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    there, absent = contains(pieces, "sad"), forbids(pieces, "sad")
    found = re.compile(pattern(["sad"]))
    for length in range(1, len(character) + 1):
        part = character[:length]
        for text in (
            part + b"sad",
            b"sad" + part,
            b"a" + part + b"sad",
            b"sad" + part + b"a",
            part * 2 + b"sad" + part,
        ):
            wanted = bool(found.search(text.decode(errors="replace")))
            assert (there.accepts(text), absent.accepts(text)) == (wanted, not wanted), text
    other = contains_all(pieces, ["sad", "dog"])
    assert other.accepts(b"sad" + character[:1] + b"dog")
    assert in_order(pieces, ["sad", "dog"]).accepts(b"sad" + character[:1] + b"dog")


@pytest.mark.parametrize("phrase", ["straße", "Kilo", "İs", "ÅNGSTRÖM", "σας", "a-b"])
def test_case_is_that_of_re(phrase: str) -> None:
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    dfa = contains(pieces, phrase, boundaries=False, ignore_case=True)
    for text in {phrase, phrase.lower(), phrase.upper(), phrase.title(), phrase.replace("K", "\u212a"), phrase[:-1]}:
        assert dfa.accepts(text) == bool(re.search(re.escape(phrase), text, re.IGNORECASE)), text
    assert contains(pieces, phrase, ignore_case=True).accepts(f"({phrase})")


REGEXES = st.recursive(
    st.sampled_from(["a", "b", " ", "[ab]", "[^a]", ".", r"\s", "é", r"\w"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{2,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=5,
)


@EXAMPLES
@given(REGEXES, st.sampled_from([ASCII, MIXED]), st.sampled_from(["", "(?s)", "(?i)"]))
def test_regular_expressions(expression: str, vocabulary: Vocabulary, flags: str) -> None:
    compiled = re.compile(flags + expression)
    try:
        dfa = regex(vocabulary, flags + expression)
    except AutomatonError as error:
        assert "cannot spell" in str(error)  # noqa: PT017  a condition on the vocabulary, which the empty set shows below
        dfa = TokenDFA([[-1] * vocabulary.size], 0, [], vocabulary.eos_token_ids, vocabulary=vocabulary)
    agree(dfa, vocabulary, lambda text: bool(compiled.fullmatch(text)), 5)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 2), (1, 1), (2, 3), (2, None), (0, None)])
def test_counts(low: int, high: int | None) -> None:
    most = 99 if high is None else high
    agree(word_count(ASCII, low, high), ASCII, lambda text: low <= len(text.split()) <= most)
    agree(sentence_count(PUNCTUATED, low, high), PUNCTUATED, lambda text: low <= sentences(text) <= most, 5)
    dfa = token_count(ASCII, low, high)
    assert [dfa.accepts_tokens([3] * n) for n in range(6)] == [low <= n <= most for n in range(6)]
    assert not dfa.accepts_tokens([5] * low + [5])
    assert dfa.accept_distance[dfa.start] == low


def sentences(text: str) -> int:
    """−1 if text is left over."""
    words = text.split()
    ends = [bool(re.search("""[.!?…]["')\\]”’.!?…]*$""", word)) for word in words]
    return sum(ends) if all(ends[-1:]) else -1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Hi.", 1),
        ("Hi. Yo! ", 2),
        ('He said "no." Then (so!) it was.', 3),
        ("3.14 is pi.", 1),
        ("Oh...", 1),
        ("Why?! “So…”", 2),
        ("", 0),
    ],
)
def test_sentences(text: str, number: int) -> None:
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    assert [n for n in range(5) if sentence_count(pieces, n, n).accepts(text)] == [number]
    assert not sentence_count(pieces, 0).accepts(text + "and")


@pytest.mark.parametrize(
    "text", ["A dog ran. And ", "A dog ran. And then the cat ", "no end here ", "A dog\n", "Oh \t"]
)
def test_white_space_ends_no_sentence(text: str) -> None:
    pieces = Vocabulary([bytes([byte]) for byte in range(256)] + [None], {256})
    assert not sentence_count(pieces, 0).accepts(text)
    assert sentence_count(pieces, 0).accepts(text + "sat. ")


@EXAMPLES
@given(CASES)
def test_suffix(case: tuple[Vocabulary, list[str]]) -> None:
    vocabulary, phrases = case
    agree(suffix(vocabulary, phrases[0]), vocabulary, lambda text: text.endswith(phrases[0]))


@EXAMPLES
@given(ascii_phrases, ascii_phrases, st.integers(0, 2))
def test_products_of_conditions(one: list[str], two: list[str], words: int) -> None:
    first, second = re.compile(pattern(one)), re.compile(pattern(two))
    dfa = (contains(ASCII, one) | ~contains(ASCII, two)) & word_count(ASCII, words, words + 1)
    agree(
        dfa,
        ASCII,
        lambda text: bool(first.search(text) or not second.search(text)) and words <= len(text.split()) <= words + 1,
    )


def test_the_least_number_of_tokens() -> None:
    dfa = contains_all(ASCII, ["ab", "ba"])
    assert dfa.accept_distance[dfa.start] == 2
    assert dfa.accepts_tokens([4, 3])
    both = TokenDFA.minimised(contains(ASCII, "ab") & contains(ASCII, "ba"))
    assert both == dfa


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: contains(ASCII, []), "no phrase"),
        (lambda: contains(ASCII, ""), "is empty"),
        (lambda: contains(ASCII, ["a", ""]), "is empty"),
        (lambda: contains(ASCII, [b"a"]), "must be a string, got bytes"),
        (lambda: contains(ASCII, "\ud800"), "surrogate"),
        (lambda: contains(ASCII, "c"), "cannot spell a text with 'c'"),
        (lambda: contains(ASCII, "é"), "cannot spell"),
        (lambda: contains_all(ASCII, ["a", "c"]), "cannot spell a text with 'c'"),
        (lambda: contains_all(ASCII, []), "no clause"),
        (lambda: contains_all(ASCII, "ab"), r"write \['ab'\]"),
        (lambda: in_order(ASCII, []), "no clause"),
        (lambda: in_order(ASCII, ["a", []]), "no phrase"),
        (lambda: forbids(ASCII, ""), "is empty"),
        (lambda: suffix(ASCII, ""), "is empty"),
        (lambda: suffix(ASCII, "ac"), "cannot spell"),
        (lambda: word_count(ASCII, 3, 2), "low=3 to high=2"),
        (lambda: word_count(ASCII, -1), "low=-1"),
        (lambda: word_count(ASCII, 1.5), "whole numbers"),
        (lambda: sentence_count(ASCII, 1, 2), "cannot spell"),
        (lambda: token_count(ASCII, 2, 1), "holds no number"),
        (lambda: token_count(Vocabulary([None], {0}), 1), "cannot spell"),
        (lambda: regex(ASCII, "(a"), "no regular expression"),
        (lambda: regex(ASCII, 3), "must be a string, got int"),
        (lambda: regex(ASCII, "cd"), "cannot spell a text that matches /cd/"),
        (lambda: regex(ASCII, "a(?=b)"), "lookahead or lookbehind"),
        (lambda: regex(ASCII, "a(?!b)"), "negative lookahead"),
        (lambda: regex(ASCII, r"(a)\1"), "back-reference"),
        (lambda: regex(ASCII, r"(a)?(?(1)b)"), "conditional group"),
        (lambda: regex(ASCII, "^a$"), "not needed"),
        (lambda: regex(ASCII, r"\ba"), r"contains\("),
        (lambda: regex(ASCII, "(?>a)b"), "atomic group"),
        (lambda: regex(ASCII, "a*+b"), "possessive"),
    ],
)
def test_what_cannot_be_is_refused(build, message: str) -> None:
    with pytest.raises(AutomatonError, match=message):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda limit: contains(ASCII, "abababab", limit=limit),
        lambda limit: in_order(ASCII, ["abab", "abab"], limit=limit),
        lambda limit: forbids(ASCII, "abababab", limit=limit),
        lambda limit: contains_all(ASCII, ["abab", "abba", "a b"], limit=limit),
        lambda limit: suffix(ASCII, "abababab", limit=limit),
        lambda limit: word_count(ASCII, 20, 30, limit=limit),
        lambda limit: sentence_count(PUNCTUATED, 3, 9, limit=limit),
        lambda limit: token_count(ASCII, 0, 3, limit=limit),
        lambda limit: regex(ASCII, "(a|b)*a(a|b){12}", limit=limit),
        lambda limit: regex(ASCII, "a{1000}", limit=limit),
    ],
)
def test_limits(build) -> None:
    with pytest.raises(AutomatonLimitError, match="limit=7"):
        build(7)


def test_counts_of_tokens_are_limited_before_they_are_built() -> None:
    assert token_count(ASCII, 0, 2, limit=7).states == 3
    with pytest.raises(AutomatonLimitError, match=f"a count of up to {10**18} tokens needs"):
        token_count(ASCII, 0, 10**18)


@pytest.mark.parametrize("build", [token_count, word_count])
def test_long_counters_take_few_rounds_to_be_made_minimal(build, monkeypatch) -> None:
    """Distances to acceptance tell states apart where there is a lower bound, those to rejection where there is an upper one."""
    rounds = []
    group = _tables.dfa.group
    monkeypatch.setattr(_tables.dfa, "group", lambda rows: rounds.append(rows) or group(rows))
    for low, high in [(0, 300), (300, 300), (150, 300), (300, None)]:
        rounds.clear()
        assert build(ASCII, low, high).states >= 301
        assert len(rounds) < 20


def test_what_would_explode_is_refused_before_memory_runs_out() -> None:
    clauses = [f"{a}{b}a{b}{a}" for a in "ab" for b in ("aa", "ab", "ba", "bb")] + ["a b a", "b a b", "aa bb", "bb aa"]
    with pytest.raises(AutomatonLimitError, match="limit=200000 table entries"):
        contains_all(ASCII, clauses, boundaries=False, limit=200_000)
