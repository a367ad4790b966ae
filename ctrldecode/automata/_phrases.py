"""Phrases in a text, at the borders of words or anywhere, as automata over bytes.

It is one reading of the text from left to right, for a row of clauses that must be met in order, each by any of its phrases.
What has been met as early as possible leaves the most room for the rest, so one clause is open at a time. A phrase that must
end where a word ends has been met only once the next character is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from re import _parser  # type: ignore[attr-defined]  # the names of its items
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.automata._bytes import ByteDFA, byte_classes, explored
from ctrldecode.automata._charset import char_ranges
from ctrldecode.automata._words import SEPARATOR, WORD, is_word, separators, statuses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ctrldecode.automata._charset import Ranges

__all__ = ["ending", "in_order"]

# A continuation byte of UTF-8.
_CONTINUES = range(0x80, 0xC0)


def in_order(clauses: Sequence[Sequence[str]], *, boundaries: bool, ignore_case: bool, limit: int) -> ByteDFA:
    """The texts in which a phrase of every clause stands, one behind the other, without overlap.

    Args:
        clauses: for each clause its phrases.
        boundaries: whether a phrase that begins (ends) with a character of a word must begin (end) where a word does.
        ignore_case: whether letters stand for their other case as well.
        limit: states past which building stops.
    """
    parting = separators("".join(phrase for clause in clauses for phrase in clause)) if boundaries else ()
    status = statuses(parting) if boundaries else np.zeros((1, 256), np.int32)
    readers = [_Reader.of(clause, parting if boundaries else None, ignore_case=ignore_case) for clause in clauses]
    machine = _Machine(readers, status.tolist())
    classes = byte_classes([*status, *(reader.tells_apart() for reader in readers)])
    return explored(_State(), machine.step, machine.accepts, classes, limit)


def ending(text: str, limit: int) -> ByteDFA:
    """The texts that end with a given one (Knuth, Morris, Pratt 1977, as a subset construction)."""
    reader = _Reader.of([text], None, ignore_case=False)

    def step(places: frozenset[int], byte: int) -> frozenset[int]:
        return frozenset(reader.read(places | {0}, byte))

    def accepts(places: frozenset[int]) -> bool:
        return any(place in reader.ends for place in places)

    return explored(frozenset[int](), step, accepts, byte_classes([reader.tells_apart()]), limit)


@dataclass
class _Reader:
    """The phrases of one clause as a trie of bytes; case makes it a graph, with several ways to one node.

    Attributes:
        edges: for each node, where each byte leads; 0 is the root of phrases that begin anywhere, 1 of those that begin
            where a word may.
        ends: nodes at which a phrase ends, and whether a word must end there.
    """

    edges: list[dict[int, list[int]]] = field(default_factory=lambda: [{}, {}])
    ends: dict[int, bool] = field(default_factory=dict[int, bool])

    @classmethod
    def of(cls, phrases: Iterable[str], parting: Ranges | None, *, ignore_case: bool) -> _Reader:
        reader = cls()
        known: dict[tuple[int, str], int] = {}
        for phrase in phrases:
            node = 0 if parting is None or not is_word(phrase[0], parting) else 1
            for character in phrase:
                variants = _variants(character) if ignore_case else character
                if (node, variants) not in known:
                    known[node, variants] = reader._add(node, variants)
                node = known[node, variants]
            reader.ends[node] = parting is not None and is_word(phrase[-1], parting)
        return reader

    def _add(self, node: int, variants: str) -> int:
        """A node behind any of some characters."""
        self.edges.append({})
        after = len(self.edges) - 1
        for character in variants:
            here = node
            *inner, last = character.encode()
            for byte in inner:
                self.edges.append({})
                self.edges[here].setdefault(byte, []).append(len(self.edges) - 1)
                here = len(self.edges) - 1
            self.edges[here].setdefault(last, []).append(after)
        return after

    def read(self, places: Iterable[int], byte: int) -> set[int]:
        """Where a byte leads from some nodes."""
        return {after for place in places for after in self.edges[place].get(byte, ())}

    def tells_apart(self) -> NDArray[np.int32]:
        """(256,) a number of its own for each byte that some edge reads, 0 for the others."""
        found = np.zeros(256, np.int32)
        for byte in {byte for edge in self.edges for byte in edge}:
            found[byte] = byte + 1
        return found


def _variants(character: str) -> str:
    """The characters that equal one but for case, as `re.IGNORECASE` has it."""
    ranges = char_ranges(_parser.LITERAL, ord(character), re.IGNORECASE | re.UNICODE)
    return "".join(chr(code) for low, high in ranges for code in range(low, high + 1))


class _State(NamedTuple):
    """Where a reading stands.

    Attributes:
        met: clauses that are met.
        status: see `_words`.
        open: nodes of phrases of the next clause that are being read.
        pending: whether a phrase of that clause has been read and must end a word; the next character tells.
        beyond: while pending, nodes of the clause after it.
    """

    met: int = 0
    status: int = SEPARATOR
    open: frozenset[int] = frozenset()
    pending: bool = False
    beyond: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Machine:
    readers: Sequence[_Reader]
    status: list[list[int]]

    def accepts(self, state: _State) -> bool:
        return state.met + state.pending == len(self.readers)

    def step(self, state: _State, byte: int) -> _State:
        if state.met == len(self.readers):
            return state
        status = self.status[state.status][byte]
        inside = self._read(state.met, state.open, state.status, byte)
        beyond = self._read(state.met + 1, state.beyond, state.status, byte) if state.pending else set[int]()
        met, pending = state.met, state.pending
        if pending:
            ended = self._kind(state.status, status, byte)
            if ended == SEPARATOR:
                met, inside, beyond = met + 1, beyond, set[int]()
            elif ended == WORD:
                beyond = set[int]()
            pending = ended not in {SEPARATOR, WORD}
        return self._closed(_State(met, status, frozenset(inside), pending, frozenset(beyond)))

    def _read(self, clause: int, places: frozenset[int], status: int, byte: int) -> set[int]:
        """The nodes of a clause after a byte, phrases that begin with it among them."""
        if clause == len(self.readers):
            return set()
        roots = (0,) if status == WORD else (0, 1)
        return self.readers[clause].read([*places, *roots], byte)

    def _kind(self, before: int, after: int, byte: int) -> int:
        """What the character behind a pending phrase is after a byte of it; it may be broken off, or still undecided."""
        if before not in {SEPARATOR, WORD} and byte not in _CONTINUES:
            return SEPARATOR
        return after

    def _closed(self, state: _State) -> _State:
        """The state with what has been read to its end taken account of."""
        if state.met == len(self.readers):
            return _State(state.met)
        reader = self.readers[state.met]
        ends = [reader.ends[place] for place in state.open if place in reader.ends]
        if not all(ends):
            return self._closed(_State(state.met + 1, state.status))
        going_on = frozenset(place for place in state.open if reader.edges[place])
        return state._replace(open=going_on, pending=state.pending or bool(ends))
