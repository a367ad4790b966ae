"""Lexers of earley mode as deterministic automata: sets of terminals side by side, each cut wherever it can be.

Lark's complete dynamic lexer tries every terminal that the parser expects, at every place and with every length: a text w
is a lexeme of a terminal if and only if `re` matches w from its beginning and takes all of it. (Lark matches, cuts the match
at every length and matches again. A thread of the matcher that is preferred over w's and ends within w would have won on w
alone; so what follows w does not matter.) Ignored terminals are not cut: they match as `re` does where they stand, so after
one of them the threads that live on must never match again, as in lalr mode.

A state is a set of single-terminal states for the parser, one of such states for ignored text, the obligations, and the count
of ignored bytes where that is bounded. What a terminal means to a parser is not known here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.grammar._dfa import NO_CARRY, Carry, Ending, Lexer, LexerAutomaton
from ctrldecode.grammar._states import States

if TYPE_CHECKING:
    from ctrldecode.automata._nfa import Nfa

__all__ = ["SetAutomaton"]


class _State(NamedTuple):
    """What is read of a lexeme, in states of the single terminals; no byte is read where `boundary`."""

    wanted: frozenset[int]
    ignored: frozenset[int]
    carry: Carry
    boundary: bool


class SetAutomaton(States):
    """Deterministic automaton over bytes of sets of terminals; it grows on demand. See `ctrldecode.grammar._machine.Automaton`.

    Attributes:
        delta: (n, 256) int32, the next state or −1; rows up to `len(self)` are valid.
        match: (n,) int32, 0 where a lexeme can end, else −1.
        again: (n,) bool, where an ignored lexeme can end that hands nothing on.
    """

    def __init__(
        self, nfa: Nfa, entries: dict[int, int], *, ignored: frozenset[int], max_ignored: int | None, limit: int
    ) -> None:
        """Start empty.

        Args:
            nfa: the automaton of all terminals.
            entries: the first state of each terminal there.
            ignored: the terminals that may stand between lexemes.
            max_ignored: bound on the bytes of ignored text in a row; None for none.
            limit: the number of states past which building stops with `GrammarLimitError`.
        """
        super().__init__(limit)
        self._ignored, self._max_ignored = ignored, max_ignored
        self._single = LexerAutomaton(nfa, {}, ignored=frozenset(), max_ignored=None, limit=limit)
        self._lexers = {terminal: Lexer((entry,), ()) for terminal, entry in entries.items()}
        self._states: list[_State] = []
        self._index: dict[_State, int] = {}
        self._endings: list[tuple[Ending, ...]] = []
        self._pending: list[int] = []
        self._ending = cache(Ending)

    def __len__(self) -> int:
        return len(self._states)

    def start(self, terminals: frozenset[int], carry: Carry = NO_CARRY) -> int:
        """The state before a lexeme of one of the terminals, or ignored text."""
        wanted, ignored = self._starts(terminals), self._starts(self._ignored)
        state = self._intern(_State(wanted, ignored, carry, boundary=True))
        while self._pending:
            self._fill(self._pending.pop())
        return state

    def is_boundary(self, state: int) -> bool:
        """Whether the state stands before a lexeme, no byte of it read."""
        return self._states[state].boundary

    def is_free(self, state: int) -> bool:
        """Whether the state stands before a lexeme and has been handed nothing."""
        return self._states[state].boundary and self._states[state].carry == NO_CARRY

    def carry(self, state: int) -> Carry:
        """What the state has been handed."""
        return self._states[state].carry

    def endings(self, state: int) -> tuple[Ending, ...]:
        """One ending for all terminals that match, and one for each ignored terminal that does."""
        return self._endings[state]

    def _starts(self, terminals: frozenset[int]) -> frozenset[int]:
        return frozenset(self._single.start(self._lexers[terminal]) for terminal in terminals)

    def _intern(self, state: _State) -> int:
        index = self._index.get(state)
        if index is None:
            index = self._index[state] = len(self._states)
            self.reserve(index)
            self._states.append(state)
            endings = self._endings_of(state)
            self._endings.append(endings)
            self.match[index] = 0 if endings else -1
            self.again[index] = any(ending.ignored and ending.carry == NO_CARRY for ending in endings)
            self._pending.append(index)
        return index

    def _endings_of(self, state: _State) -> tuple[Ending, ...]:
        match, carry = self._single.match, state.carry
        terminals = tuple(sorted(int(match[s]) for s in state.wanted if match[s] >= 0))
        endings = [self._ending(terminals, False, Carry(carry.obligations))] if terminals else []
        if self._max_ignored is None or carry.ignored <= self._max_ignored:
            for s in sorted(s for s in state.ignored if match[s] >= 0):
                obligations = carry.obligations | {s} if self._single.lives(s) else carry.obligations
                endings.append(self._ending((int(match[s]),), True, Carry(obligations, carry.ignored)))
        return tuple(endings)

    def _fill(self, index: int) -> None:
        """All parts advance side by side; an obligation that matches ends the branch, one that dies is met."""
        wanted, ignored, (obligations, count), _ = self._states[index]
        count = 0 if self._max_ignored is None else min(count + 1, self._max_ignored + 1)
        parts = [*wanted, *ignored, *obligations]
        if not wanted and not ignored:
            return
        columns, inverse = np.unique(self._single.delta[parts], axis=1, return_inverse=True)
        targets = np.full(columns.shape[1], -1, np.int32)
        for i in range(columns.shape[1]):
            following = [int(s) for s in columns[:, i]]
            alive = [frozenset(s for s in part if s >= 0) for part in _split(following, len(wanted), len(ignored))]
            if (alive[0] or alive[1]) and all(self._single.match[s] < 0 for s in alive[2]):
                carry = Carry(alive[2], count if alive[1] else 0)
                targets[i] = self._intern(_State(alive[0], alive[1], carry, boundary=False))
        self.delta[index] = targets[inverse.reshape(-1)]


def _split(parts: list[int], first: int, second: int) -> tuple[list[int], list[int], list[int]]:
    return parts[:first], parts[first : first + second], parts[first + second :]
