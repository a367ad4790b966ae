"""Automata from conditions on text: phrases, counts, regular expressions.

Every builder takes the vocabulary first and gives a minimal `TokenDFA`. A condition holds over the bytes of the generated text,
whatever tokens spell them; the prompt is not part of it. What a builder raises is an `AutomatonError` that says what was wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata import _counts, _phrases, _regex
from ctrldecode.automata._bytes import LIMIT
from ctrldecode.automata._lift import lifted
from ctrldecode.automata._products import LIMIT as TABLE_LIMIT
from ctrldecode.automata._tables import Tables
from ctrldecode.automata.dfa import TokenDFA, intersection, text_tokens
from ctrldecode.errors import AutomatonError, AutomatonLimitError

if TYPE_CHECKING:
    from ctrldecode.automata._bytes import ByteDFA
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = [
    "contains",
    "contains_all",
    "forbids",
    "in_order",
    "regex",
    "sentence_count",
    "suffix",
    "token_count",
    "word_count",
]

Phrases = str | Sequence[str]


def contains(
    vocabulary: Vocabulary, phrases: Phrases, *, boundaries: bool = True, ignore_case: bool = False, limit: int = LIMIT
) -> TokenDFA:
    """The texts in which at least one of some phrases stands.

    Args:
        vocabulary: the tokens.
        phrases: a phrase, or alternatives such as the inflections of a word. A phrase may hold spaces and punctuation, and
            matches exactly these characters.
        boundaries: whether a phrase must stand between the borders of words: "dog" is not in "dogma". Only an end of the phrase
            that is itself a character of a word must be at a border. The beginning and the end of the text are borders.
        ignore_case: whether letters match their other case, as with `re.IGNORECASE`.
        limit: states over bytes past which building stops.

    Raises:
        AutomatonError: there is no phrase, one is empty, or the tokens cannot spell any.
        AutomatonLimitError: the automaton would pass `limit`.

    Example:
        >>> from ctrldecode.core.vocabulary import Vocabulary
        >>> letters = Vocabulary([b" ", b"a", b"d", b"g", b"m", b"o", b"og", None], 7)
        >>> dog = contains(letters, ["dog", "mad"])
        >>> dog.accepts("a dog"), dog.accepts("dogma"), dog.accepts_tokens([2, 6])
        (True, False, True)
    """
    return in_order(vocabulary, [phrases], boundaries=boundaries, ignore_case=ignore_case, limit=limit)


def contains_all(
    vocabulary: Vocabulary,
    clauses: Iterable[Phrases],
    *,
    boundaries: bool = True,
    ignore_case: bool = False,
    limit: int = TABLE_LIMIT,
) -> TokenDFA:
    """The texts that meet every clause, in any order; a clause is a phrase or a list of alternatives.

    Clauses are met each by itself: "red ball" meets the clauses "red" and "red ball". See `contains`; `limit` is that of
    `intersection`, in table entries.
    """
    parts = [
        contains(vocabulary, clause, boundaries=boundaries, ignore_case=ignore_case)
        for clause in _checked_clauses(clauses)
    ]
    return intersection(*parts, limit=limit)


def in_order(
    vocabulary: Vocabulary,
    clauses: Iterable[Phrases],
    *,
    boundaries: bool = True,
    ignore_case: bool = False,
    limit: int = LIMIT,
) -> TokenDFA:
    """The texts that meet every clause, one behind the other, without overlap. See `contains`."""
    checked = [_checked_phrases(clause) for clause in _checked_clauses(clauses)]
    found = _lifted(vocabulary, _phrases.in_order(checked, boundaries=boundaries, ignore_case=ignore_case, limit=limit))
    return _spelled(found, f"a text with {' and then '.join(' or '.join(map(repr, clause)) for clause in checked)}")


def forbids(
    vocabulary: Vocabulary, phrases: Phrases, *, boundaries: bool = True, ignore_case: bool = False, limit: int = LIMIT
) -> TokenDFA:
    """The texts in which none of some phrases stands. See `contains`, whose complement it is."""
    checked = [_checked_phrases(phrases)]
    return ~_lifted(vocabulary, _phrases.in_order(checked, boundaries=boundaries, ignore_case=ignore_case, limit=limit))


def suffix(vocabulary: Vocabulary, text: str, *, limit: int = LIMIT) -> TokenDFA:
    """The texts that end with `text`, for infilling: what is generated leads up to it."""
    (checked,) = _checked_phrases([text])
    return _spelled(_lifted(vocabulary, _phrases.ending(checked, limit)), f"a text that ends with {checked!r}")


def regex(vocabulary: Vocabulary, pattern: str, *, limit: int = LIMIT) -> TokenDFA:
    r"""The texts that match a regular expression of Python's `re` as a whole.

    Lookahead, lookbehind, back-references, anchors and word boundaries, conditional and atomic groups and possessive repeats
    are refused by name. Inline flags such as `(?i)` and `(?s)` are heeded.

    Raises:
        AutomatonError: the pattern cannot be followed, or no text that matches can be spelled.
        AutomatonLimitError: it needs more than `limit` states.

    Example:
        >>> from ctrldecode.core.vocabulary import Vocabulary
        >>> digits = Vocabulary([b"1", b"12", b".", b"2.", None], 4)
        >>> number = regex(digits, r"[0-9]+(\.[0-9]{2})?")
        >>> number.accepts_tokens([1]), number.accepts_tokens([0, 3, 1]), number.accepts("1.2")
        (True, True, False)
    """
    if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
        raise AutomatonError(f"a pattern must be a string, got {type(pattern).__name__}; pass compiled.pattern")
    return _spelled(_lifted(vocabulary, _regex.full_match(pattern, limit)), f"a text that matches /{pattern}/")


def word_count(vocabulary: Vocabulary, low: int, high: int | None = None, *, limit: int = LIMIT) -> TokenDFA:
    """The texts of low to high words, high included; None is no upper bound.

    Words are what white space (of ASCII) parts: `len(text.encode().split())`. It also parts a word at a token border only where
    there is white space.
    """
    _check_range(low, high)
    return _spelled(_lifted(vocabulary, _counts.words(low, high, limit)), f"a text of {_range(low, high)} words")


def sentence_count(vocabulary: Vocabulary, low: int, high: int | None = None, *, limit: int = LIMIT) -> TokenDFA:
    """The texts of low to high whole sentences, high included; None is no upper bound.

    A sentence ends with a word (see `word_count`) that ends in `.`, `!`, `?` or `…`; closing quotes and brackets may stand behind
    it. No text is left over after the last sentence but white space. So "3.14" ends no sentence, and "Mr." does.
    """
    _check_range(low, high)
    return _spelled(
        _lifted(vocabulary, _counts.sentences(low, high, limit)), f"a text of {_range(low, high)} sentences"
    )


def token_count(vocabulary: Vocabulary, low: int, high: int | None = None, *, limit: int = TABLE_LIMIT) -> TokenDFA:
    """The texts of low to high tokens, high included, the end of sequence not counted; None is no upper bound.

    `limit` is that of `intersection`, in table entries, of which each number of tokens takes two.
    """
    _check_range(low, high)
    last = low if high is None else high
    if 2 * (last + 1) > limit:
        raise AutomatonLimitError(
            f"a count of up to {last} tokens needs {2 * (last + 1)} table entries, more than limit={limit}; ask for fewer tokens, or pass "
            "a larger limit (4 bytes an entry)"
        )
    text = text_tokens(vocabulary)
    following = np.append(np.arange(1, last + 1), last if high is None else -1)
    table = np.stack([following, np.full(last + 1, -1)], axis=1).astype(np.int32)
    tables = Tables((~text).astype(np.int32), table, 0, np.arange(last + 1) >= low)
    return _spelled(TokenDFA.from_tables(tables, vocabulary.eos_token_ids, text, vocabulary), f"{low} tokens of text")


def _lifted(vocabulary: Vocabulary, source: ByteDFA) -> TokenDFA:
    tables = lifted(vocabulary, source, TABLE_LIMIT)
    return TokenDFA.from_tables(tables, vocabulary.eos_token_ids, text_tokens(vocabulary), vocabulary)


def _spelled(dfa: TokenDFA, what: str) -> TokenDFA:
    if dfa.is_empty:
        raise AutomatonError(
            f"the tokens of this vocabulary cannot spell {what}; ask for other text, or check the vocabulary"
        )
    return dfa


def _range(low: int, high: int | None) -> str:
    return f"{low} or more" if high is None else f"{low} to {high}"


def _check_range(low: int, high: int | None) -> None:
    try:
        numbers = [operator.index(low), low if high is None else operator.index(high)]
    except TypeError as error:
        raise AutomatonError(f"a count must be whole numbers, got {low!r} to {high!r}") from error
    if not 0 <= numbers[0] <= numbers[1]:
        raise AutomatonError(
            f"a count from low={low} to high={high} holds no number; wanted 0 ≤ low ≤ high, or high=None for no upper bound"
        )


def _checked_clauses(clauses: Iterable[Phrases]) -> list[Phrases]:
    if isinstance(clauses, str):
        raise AutomatonError(
            f"clauses must be a list of phrases or of lists of alternatives, got {clauses!r}; write [{clauses!r}]"
        )
    checked = list(clauses)
    if not checked:
        raise AutomatonError("there is no clause, so every text would do; give at least one phrase")
    return checked


def _checked_phrases(phrases: Phrases) -> list[str]:
    checked = [phrases] if isinstance(phrases, str) else list(phrases)
    if not checked:
        raise AutomatonError("there is no phrase in a clause, so no text could meet it; give at least one alternative")
    for phrase in checked:
        if not isinstance(phrase, str):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            raise AutomatonError(f"a phrase must be a string, got {type(phrase).__name__} {phrase!r}")
        if not phrase:
            raise AutomatonError("a phrase is empty, and would be in every text; leave it out")
        if any("\ud800" <= character <= "\udfff" for character in phrase):
            raise AutomatonError(f"the phrase {phrase!r} has half of a surrogate pair, which no text in UTF-8 holds")
    return checked
