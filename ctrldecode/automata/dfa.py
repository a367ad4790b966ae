"""`TokenDFA`: a deterministic automaton over token ids, immutable, with its algebra.

It knows ids and, where a vocabulary is given, what they spell. How conditions on text become automata is in `builders.py`,
what a generation does with one in `potential.py`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, final

import numpy as np

from ctrldecode.automata import _checks, _products, _show
from ctrldecode.automata._products import LIMIT
from ctrldecode.automata._tables import UNREACHABLE, Tables, distances, joint, minimal, trimmed
from ctrldecode.errors import AutomatonError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["UNREACHABLE", "TokenDFA", "concatenation", "intersection", "union"]


@final
class TokenDFA:
    """A set of token strings, as a deterministic automaton.

    The strings are the bodies of generations: what comes before the end-of-sequence token. That token, and ids without text
    (special, unused), lead nowhere. Tokens that act alike in every state share a class, so the transition table is Q × C
    with a map from tokens to classes.

    Immutable. What builders and the algebra return is minimal and in canonical order: there, equal sets of strings have
    equal fingerprints.

    Attributes:
        size: V, the number of token ids.
        eos_token_ids: ids that end a text, sorted.
        classes: (V,) int32, the column of each token.
        table: (Q, C) int32, the next state; −1 where no string of the set goes on that way.
        start: the first state.
        accepting: (Q,) bool.
        accept_distance: (Q,) int32, the fewest tokens from a state to an accepting one, the end of sequence not counted;
            `UNREACHABLE` where there is no way.
        text: (V,) bool, the tokens that can stand in a body.
        fingerprint: hex digest of all that decides what is accepted, the same in every process.
        vocabulary: what tokens spell, or None if only ids are known.

    Example:
        An even number of tokens 0, and nothing else:

        >>> even = TokenDFA([[1, -1], [0, -1]], start=0, accepting=[True, False], eos_token_ids=[1])
        >>> even.accepts_tokens([0, 0]), even.accepts_tokens([0])
        (True, False)
        >>> (~even).accepts_tokens([0])
        True
        >>> even.accept_distance.tolist()
        [0, 1]
    """

    size: int
    eos_token_ids: tuple[int, ...]
    classes: NDArray[np.int32]
    table: NDArray[np.int32]
    start: int
    accepting: NDArray[np.bool_]
    accept_distance: NDArray[np.int32]
    text: NDArray[np.bool_]
    fingerprint: str
    vocabulary: Vocabulary | None

    def __init__(
        self,
        transitions: ArrayLike,
        start: int,
        accepting: ArrayLike,
        eos_token_ids: Iterable[int] | int,
        *,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """An automaton of your own; states keep their numbers.

        Args:
            transitions: (Q, V) integers, the next state for each token, −1 for none.
            start: the first state.
            accepting: (Q,) bool, or the numbers of the accepting states.
            eos_token_ids: one or several ids that end a text; their columns do not matter.
            vocabulary: what tokens spell, for `accepts`; ids that are no text get −1.

        Raises:
            InputError: shapes, states or ids do not fit together.
        """
        matrix = _checks.transitions(transitions)
        states, size = matrix.shape
        first_state = _checks.start(start, states)
        ends = _checks.eos(eos_token_ids, size, vocabulary)
        text = _text(size, ends, vocabulary)
        matrix = np.where(text, matrix, np.int32(-1))
        classes, first = joint([*matrix, text])
        table = np.ascontiguousarray(matrix[:, first])
        tables = Tables(classes, table, first_state, _checks.accepting(accepting, states))
        self._fill(tables, ends, text, vocabulary)

    @classmethod
    def from_tables(
        cls, tables: Tables, eos_token_ids: tuple[int, ...], text: NDArray[np.bool_], vocabulary: Vocabulary | None
    ) -> TokenDFA:
        """The minimal automaton of trusted arrays in class form; the parts of this package build with it."""
        dfa = object.__new__(cls)
        table = np.where(text[_members(tables)], tables.table, np.int32(-1))
        dfa._fill(minimal(tables._replace(table=table), text), eos_token_ids, text, vocabulary)
        return dfa

    def _fill(
        self, tables: Tables, ends: tuple[int, ...], text: NDArray[np.bool_], vocabulary: Vocabulary | None
    ) -> None:
        distance = distances(tables.table, tables.accepting)
        arrays = {
            "classes": tables.classes,
            "table": np.ascontiguousarray(trimmed(tables.table, distance)),
            "accepting": tables.accepting,
            "accept_distance": distance,
            "text": text,
        }
        for array in arrays.values():
            array.setflags(write=False)
        values = {"size": len(text), "eos_token_ids": ends, "start": tables.start, "vocabulary": vocabulary}
        self.__dict__.update(arrays | values)
        self.__dict__["fingerprint"] = _fingerprint(self)

    @property
    def tables(self) -> Tables:
        """The arrays of the automaton."""
        return Tables(self.classes, self.table, self.start, self.accepting)

    @property
    def states(self) -> int:
        """Q."""
        return len(self.table)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is accepted."""
        return int(self.accept_distance[self.start]) == UNREACHABLE

    def edges(self) -> NDArray[np.int32]:
        """(M, 2) int32: every pair of states (from, to) with a token that leads from one to the other, sorted."""
        sources, columns = np.nonzero(self.table >= 0)
        pairs = np.stack([sources, self.table[sources, columns]], axis=1)
        return np.unique(pairs, axis=0).astype(np.int32)

    def minimised(self) -> TokenDFA:
        """The same set of strings with the fewest states, in canonical order."""
        return TokenDFA.from_tables(self.tables, self.eos_token_ids, self.text, self.vocabulary)

    def step(self, states: ArrayLike, tokens: ArrayLike) -> NDArray[np.int32]:
        """Next states (B,) int32 of states (B,) after tokens (B,); −1 stays −1.

        Raises:
            InputError: a state or a token is out of range.
        """
        here, ids = np.asarray(states, np.int64), _checks.ids(np.asarray(tokens, np.int64), self.size)
        if here.size and not -1 <= int(here.min()) <= int(here.max()) < self.states:
            raise InputError(f"states must be −1 to {self.states - 1}, got {int(here.min())} to {int(here.max())}")
        return np.where(here < 0, np.int32(-1), self.table[here, self.classes[ids]])

    def accepts_tokens(self, ids: Iterable[int]) -> bool:
        """Whether a body of token ids is accepted; it may be followed by one end-of-sequence token."""
        body = list(ids)
        if body and body[-1] in self.eos_token_ids:
            body.pop()
        columns = self.classes[_checks.ids(np.array(body, np.int64), self.size)].tolist()
        state = self.start
        for column in columns:
            state = int(self.table[state, column])
            if state < 0:
                return False
        return bool(self.accepting[state])

    def accepts(self, text: str | bytes) -> bool:
        """Whether some tokenisation of a text is accepted; for conditions on text alone, all of them agree.

        Raises:
            AutomatonError: the automaton has no vocabulary.
        """
        if self.vocabulary is None:
            raise AutomatonError(
                "this automaton knows token ids only, so it cannot tell what a text is; pass vocabulary=... when it is built, or "
                "ask accepts_tokens(ids)"
            )
        return _show.accepts(
            self, self.vocabulary, text.encode(errors="surrogatepass") if isinstance(text, str) else text
        )

    def to_dot(self) -> str:
        """The automaton in Graphviz's language; an edge shows a few of its tokens and how many they are."""
        return _show.dot(self)

    # What is no automaton gets NotImplemented: Python then names both types in a TypeError of its own.

    def __and__(self, other: TokenDFA) -> TokenDFA:
        return intersection(self, other) if isinstance(other, TokenDFA) else NotImplemented  # pyright: ignore[reportUnnecessaryIsInstance]

    def __or__(self, other: TokenDFA) -> TokenDFA:
        return union(self, other) if isinstance(other, TokenDFA) else NotImplemented  # pyright: ignore[reportUnnecessaryIsInstance]

    def __add__(self, other: TokenDFA) -> TokenDFA:
        return concatenation(self, other) if isinstance(other, TokenDFA) else NotImplemented  # pyright: ignore[reportUnnecessaryIsInstance]

    def __invert__(self) -> TokenDFA:
        tables = _products.complement(self.tables, self.text)
        return TokenDFA.from_tables(tables, self.eos_token_ids, self.text, self.vocabulary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenDFA) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"TokenDFA(states={self.states}, classes={self.table.shape[1]}, edges={len(self.edges())}, size={self.size}, "
            f"fingerprint={self.fingerprint[:12]!r})"
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"TokenDFA is immutable, {name} cannot be set; build another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"TokenDFA is immutable, {name} cannot be deleted")


def intersection(first: TokenDFA, *others: TokenDFA, limit: int = LIMIT) -> TokenDFA:
    """The strings that all the automata accept: `&` with a limit of your choice.

    Args:
        first: an automaton.
        *others: more of them, over the same tokens.
        limit: entries (states × classes) of a transition table past which building stops.

    Raises:
        AutomatonLimitError: the product is larger than `limit`.
        InputError: the automata do not have the same tokens.
    """
    return _combined(_products.intersection, first, others, limit)


def union(first: TokenDFA, *others: TokenDFA, limit: int = LIMIT) -> TokenDFA:
    """The strings that any of the automata accepts: `|` with a limit of your choice; see `intersection`."""
    return _combined(_products.union, first, others, limit)


def concatenation(first: TokenDFA, *others: TokenDFA, limit: int = LIMIT) -> TokenDFA:
    """A string of the first, then one of the second, and so on: `+` with a limit of your choice; see `intersection`."""
    return _combined(_products.concatenation, first, others, limit)


def _combined(
    operation: Callable[[Tables, Tables, int], Tables], first: TokenDFA, others: tuple[TokenDFA, ...], limit: int
) -> TokenDFA:
    for other in others:
        text, vocabulary = _common(first, other)
        tables = operation(first.tables, other.tables, limit)
        first = TokenDFA.from_tables(tables, first.eos_token_ids, text, vocabulary)
    return first


def _common(first: TokenDFA, second: TokenDFA) -> tuple[NDArray[np.bool_], Vocabulary | None]:
    """The text tokens and the vocabulary of two automata over the same tokens."""
    if (first.size, first.eos_token_ids) != (second.size, second.eos_token_ids):
        raise InputError(
            f"automata can be combined only over the same tokens; got {first.size} ids with ends of sequence {first.eos_token_ids}, "
            f"and {second.size} with {second.eos_token_ids}: build both from one Vocabulary"
        )
    if first.vocabulary and second.vocabulary and first.vocabulary != second.vocabulary:
        raise InputError(
            "automata can be combined only over the same vocabulary; got two whose tokens spell different bytes: build both from "
            "one Vocabulary"
        )
    return first.text & second.text, first.vocabulary or second.vocabulary


def _members(tables: Tables) -> NDArray[np.int64]:
    """(C,) one token of each class."""
    found = np.zeros(tables.table.shape[1], np.int64)
    found[tables.classes] = np.arange(len(tables.classes))
    return found


def _text(size: int, ends: tuple[int, ...], vocabulary: Vocabulary | None) -> NDArray[np.bool_]:
    return ~np.isin(np.arange(size), ends) if vocabulary is None else text_tokens(vocabulary)


@lru_cache(maxsize=4)  # as many as there are tries
def text_tokens(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(V,) the tokens that are text."""
    return np.array([token is not None for token in vocabulary.tokens], np.bool_)


def _fingerprint(dfa: TokenDFA) -> str:
    """SHA-256 of the shape, the ends of sequence, the start and the arrays."""
    digest = hashlib.sha256(repr((dfa.table.shape, dfa.size, dfa.eos_token_ids, dfa.start)).encode())
    for array in (dfa.classes, dfa.table, dfa.accepting, dfa.text):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
