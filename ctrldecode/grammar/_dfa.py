"""Lexers as deterministic automata: ordered threads, keyword trackers, obligations.

A lexer of lark is one ordered choice of terminals, matched leftmost-first. Its deterministic state is the ORDERED list of
live threads, cut after the first one that matches: threads behind it can never be preferred again, threads before it may
still win with a longer text. While they live, a match is only pending. A reader of the text therefore guesses: "the lexeme
ends here", with the OBLIGATION that the threads still alive never match again before they die; if they do, the guess was
wrong and its branch is dropped. One state of this automaton is a pair (lexer state, set of obligations).

It knows terminals by number only; what a terminal means to a parser is not known here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.errors import GrammarLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctrldecode.grammar._nfa import Nfa

__all__ = ["Lexer", "LexerAutomaton"]

Threads = tuple[int, ...]


@dataclass(frozen=True)
class Lexer:
    """An ordered choice of terminals.

    Attributes:
        entries: the first NFA state of each terminal, in the order of preference.
        keywords: the first NFA states of the keywords that replace a match of some terminal (lark's `unless`).
    """

    entries: tuple[int, ...]
    keywords: tuple[int, ...]


class LexerAutomaton:
    """Deterministic automaton over bytes of all lexers of one grammar; it grows on demand.

    Attributes:
        delta: (n, 256) int32, the next state or −1; rows up to `len(self)` are valid.
        match: (n,) int32, the terminal whose match ends in the state, or −1.
    """

    def __init__(self, nfa: Nfa, unless: dict[int, tuple[int, ...]], limit: int) -> None:
        """Start empty.

        Args:
            nfa: the automaton of all terminals.
            unless: for a terminal, the keyword terminals that take over a match of equal text, in order of preference.
            limit: the number of states past which building stops with `GrammarLimitError`.
        """
        self._nfa, self._unless, self._limit = nfa, unless, limit
        self._index: dict[object, int] = {}
        self._threads: list[tuple[Threads, frozenset[int]]] = []  # of plain states
        self._parts: list[tuple[int, frozenset[int]]] = []  # (plain state, obligations) of every state
        self._boundary: list[bool] = []
        self._closures: dict[int, Threads] = {}
        self._pending: list[int] = []  # states whose rows are not filled yet
        self.delta = np.full((64, 256), -1, np.int32)
        self.match = np.full(64, -1, np.int32)
        self._successors: list[list[tuple[int, int]] | None] = []

    def __len__(self) -> int:
        return len(self._parts)

    def start(self, lexer: Lexer, obligations: frozenset[int] = frozenset()) -> int:
        """The state before a lexeme; it is distinct from every state inside one."""
        key = (lexer, obligations)
        if key not in self._index:
            plain = self._plain_start(lexer)
            self._index[key] = plain if not obligations else self._pair(plain, obligations)
            self._close()
        return self._index[key]

    def is_boundary(self, state: int) -> bool:
        """Whether the state stands before a lexeme, no byte of it read."""
        return self._boundary[self._parts[state][0]]

    def obligations_after_match(self, state: int) -> frozenset[int]:
        """What must never match again if the lexeme is taken to end in this matching state."""
        plain, obligations = self._parts[state]
        return obligations | {plain} if self._lives(plain) else obligations

    def successors(self, state: int) -> list[tuple[int, int]]:
        """The distinct next states, each with the lowest byte that leads there."""
        found = self._successors[state]
        if found is None:
            row = self.delta[state]
            targets, first = np.unique(row, return_index=True)
            found = [(int(b), int(t)) for t, b in zip(targets, first, strict=True) if t >= 0]
            self._successors[state] = found
        return found

    def _lives(self, plain: int) -> bool:
        return bool((self.delta[plain] >= 0).any())

    def _plain_start(self, lexer: Lexer) -> int:
        threads = self._merge(state for entry in lexer.entries for state in self._closure(entry))
        trackers = frozenset(state for entry in lexer.keywords for state in self._closure(entry))
        return self._plain(threads, trackers, boundary=True)

    def _plain(self, threads: Threads, trackers: frozenset[int], *, boundary: bool = False) -> int:
        key = (boundary, threads, trackers)
        if key not in self._index:
            state = self._new(len(self), frozenset(), boundary=boundary)
            self._threads[state] = (threads, trackers)
            self._index[key] = state
            self.match[state] = self._matched(threads, trackers)
        return self._index[key]

    def _pair(self, plain: int, obligations: frozenset[int]) -> int:
        if not obligations:
            return plain
        key = (plain, obligations)
        if key not in self._index:
            state = self._index[key] = self._new(plain, obligations, boundary=False)
            self.match[state] = self.match[plain]
        return self._index[key]

    def _new(self, plain: int, obligations: frozenset[int], *, boundary: bool) -> int:
        state = len(self)
        if state >= self._limit:
            raise GrammarLimitError(
                f"the terminals need more than {self._limit} lexer states (limit max_lexer_states); simplify terminals that overlap or "
                "repeat a bounded number of times, or raise the limit"
            )
        if state >= len(self.match):
            self.delta = np.concatenate([self.delta, np.full_like(self.delta, -1)])
            self.match = np.concatenate([self.match, np.full_like(self.match, -1)])
        self._parts.append((plain, obligations))
        self._threads.append(((), frozenset()))
        self._boundary.append(boundary)
        self._successors.append(None)
        self._pending.append(state)
        return state

    def _close(self) -> None:
        """Fill the rows of all states reached so far, and of those that they reach. Plain states come before pairs."""
        while self._pending:
            state = self._pending.pop()
            plain, obligations = self._parts[state]
            if obligations:
                self._fill_pair(state, plain, obligations)
            else:
                self._fill_plain(state)

    def _fill_plain(self, state: int) -> None:
        threads, trackers = self._threads[state]
        edges = sorted({edge for t in threads for low, high, _ in self._nfa.reads[t] for edge in (low, high + 1)})
        for low, high in itertools.pairwise(edges):
            following = self._read(threads, low)
            if following:
                self._fill_span(state, low, high, following, trackers)

    def _fill_span(self, state: int, low: int, high: int, following: Threads, trackers: frozenset[int]) -> None:
        owners = {self._nfa.owner[t] for t in following}
        wanted = {keyword for owner in owners for keyword in self._unless.get(owner, ())}
        cuts = {edge for t in trackers for a, b, _ in self._nfa.reads[t] for edge in (a, b + 1) if low < edge < high}
        bounds = [low, *sorted(cuts), high]
        for a, b in itertools.pairwise(bounds):
            kept = (
                frozenset(t for t in self._read(tuple(trackers), a) if self._nfa.owner[t] in wanted)
                if trackers
                else trackers
            )
            target = self._plain(following, kept)
            self.delta[state, a:b] = target  # looked up anew: building the target may have moved the array

    def _fill_pair(self, state: int, plain: int, obligations: frozenset[int]) -> None:
        """Obligations advance beside the lexer; one that matches ends the branch, one that dies is met."""
        self._require(plain, *obligations)
        columns = np.unique(self.delta[[plain, *obligations]], axis=1, return_inverse=True)
        combos, inverse = columns
        targets = np.full(combos.shape[1], -1, np.int32)
        for i in range(combos.shape[1]):
            following, *others = (int(x) for x in combos[:, i])
            alive = [other for other in others if other >= 0]
            if following >= 0 and all(self.match[other] < 0 for other in alive):
                targets[i] = self._pair(following, frozenset(alive))
        self.delta[state] = targets[inverse.reshape(-1)]

    def _require(self, *plain: int) -> None:
        """Rows of plain states that still wait are filled first, since a pair reads them."""
        for state in plain:
            if state in self._pending:
                self._pending.remove(state)
                self._fill_plain(state)

    def _read(self, threads: Threads, byte: int) -> Threads:
        targets = (target for t in threads for low, high, target in self._nfa.reads[t] if low <= byte <= high)
        return self._merge(state for target in targets for state in self._closure(target))

    def _merge(self, states: Iterable[int]) -> Threads:
        """Keep the first of equal threads, and nothing behind a match."""
        kept: dict[int, None] = {}
        for state in states:
            kept[state] = None
            if self._nfa.matches[state] >= 0:
                break
        return tuple(kept)

    def _closure(self, state: int) -> Threads:
        """Reading and matching states reached without input, in order of preference."""
        if state not in self._closures:
            order: dict[int, None] = {}
            seen: set[int] = set()
            stack = [state]
            while stack:
                top = stack.pop()
                if top in seen:
                    continue
                seen.add(top)
                choices = self._nfa.choices[top]
                if choices:
                    stack.extend(reversed(choices))
                else:
                    order[top] = None
            self._closures[state] = tuple(order)
        return self._closures[state]

    def _matched(self, threads: Threads, trackers: frozenset[int]) -> int:
        label = self._nfa.matches[threads[-1]] if threads else -1
        complete = {self._nfa.matches[t] for t in trackers}
        return next((keyword for keyword in self._unless.get(label, ()) if keyword in complete), label)
