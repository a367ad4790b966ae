"""Lexers as deterministic automata: ordered threads, keyword trackers, obligations.

A lexer of lark is one ordered choice of terminals, matched leftmost-first. Its deterministic state is the ORDERED list of
live threads, cut after the first one that matches: threads behind it can never be preferred again, threads before it may
still win with a longer text. While they live, a match is only pending. A reader of the text therefore guesses: "the lexeme
ends here", with the OBLIGATION that the threads still alive never match again before they die; if they do, the guess was
wrong and its branch is dropped. One state of this automaton is a pair (lexer state, set of obligations).

A third part of a state counts the bytes of ignored text since the last lexeme that the parser saw, where a bound on it was
asked for. It knows terminals by number only; what a terminal means to a parser is not known here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.grammar._states import States

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ctrldecode.automata._nfa import Nfa

__all__ = ["NO_CARRY", "Carry", "Ending", "Lexer", "LexerAutomaton"]

Threads = tuple[int, ...]


class Carry(NamedTuple):
    """What a lexeme hands to the next one: obligations, and the bytes of ignored text so far (0 without a bound)."""

    obligations: frozenset[int] = frozenset()
    ignored: int = 0


NO_CARRY = Carry()


@dataclass(frozen=True, eq=False)
class Ending:
    """A way in which a lexeme can be taken to end; one object for equal ones of an automaton, compared by identity.

    Attributes:
        terminals: what it is then, for the parser; one in lalr mode, one or more in earley mode.
        ignored: whether the parser does not see it.
        carry: what it hands to the next lexeme.
    """

    terminals: tuple[int, ...]
    ignored: bool
    carry: Carry


@dataclass(frozen=True)
class Lexer:
    """An ordered choice of terminals.

    Attributes:
        entries: the first NFA state of each terminal, in the order of preference.
        keywords: the first NFA states of the keywords that replace a match of some terminal (lark's `unless`).
    """

    entries: tuple[int, ...]
    keywords: tuple[int, ...]


class LexerAutomaton(States):
    """Deterministic automaton over bytes of all lexers of one grammar; it grows on demand.

    Attributes:
        delta: (n, 256) int32, the next state or −1; rows up to `len(self)` are valid.
        match: (n,) int32, the terminal whose match ends in the state, or −1.
        again: (n,) bool, where an ignored lexeme can end that hands nothing on.
    """

    def __init__(
        self,
        nfa: Nfa,
        unless: dict[int, tuple[int, ...]],
        *,
        ignored: frozenset[int],
        max_ignored: int | None,
        limit: int,
    ) -> None:
        """Start empty.

        Args:
            nfa: the automaton of all terminals.
            unless: for a terminal, the keyword terminals that take over a match of equal text, in order of preference.
            ignored: the terminals that the parser does not see.
            max_ignored: bound on the bytes of ignored text in a row; None for none.
            limit: the number of states past which building stops with `GrammarLimitError`.
        """
        super().__init__(limit)
        self._nfa, self._unless = nfa, unless
        self._ignored, self._max_ignored = ignored, max_ignored
        self._index: dict[object, int] = {}
        self._threads: dict[int, tuple[Threads, frozenset[int]]] = {}  # of plain states
        self._parts: list[tuple[int, Carry]] = []  # (plain state, what it carries) of every state
        self._boundary: list[bool] = []
        self._closures: dict[int, Threads] = {}
        self._pending: list[int] = []  # states whose rows are not filled yet
        self._ignorable: dict[int, bool] = {}  # plain states from which an ignored terminal can still match
        self._endings: dict[int, tuple[Ending, ...]] = {}
        self._ending = cache(Ending)
        self._judged = 0  # states before this one have their place in `again`

    def __len__(self) -> int:
        return len(self._parts)

    def start(self, lexer: Lexer, carry: Carry = NO_CARRY) -> int:
        """The state before a lexeme; it is distinct from every state inside one.

        Raises:
            GrammarLimitError: it needs more states than there may be; the automaton is as it was, and the states that it has can be used.
        """
        key = (lexer, carry)
        if key not in self._index:
            before = len(self)
            try:
                self._index[key] = self._build(lexer, carry)
            except BaseException:  # Ctrl-C comes at any time, too
                self._forget_since(before)
                raise
        return self._index[key]

    def _build(self, lexer: Lexer, carry: Carry) -> int:
        plain = self._plain_start(lexer)
        self._close()
        state = self._carrying(plain, carry)
        self._close()
        while self._judged < len(self):  # to find the endings of a state may add others
            free = any(ending.ignored and ending.carry == NO_CARRY for ending in self.endings(self._judged))
            self.again[self._judged] = free
            self._judged += 1
        return state

    def _forget_since(self, first: int) -> None:
        """Take back the states from one on: their rows are not complete, and no others lead to them."""
        del self._parts[first:], self._boundary[first:]
        self._pending.clear()
        self._index = {key: state for key, state in self._index.items() if state < first}
        for known in (self._threads, self._ignorable, self._endings):
            for state in [state for state in known if state >= first]:
                del known[state]
        self.delta[first:], self.match[first:], self.again[first:] = -1, -1, False
        self._judged = first

    def spans(self) -> Iterator[tuple[int, int]]:
        """The first and the last of the bytes that some terminal reads at a place."""
        return ((low, high) for reads in self._nfa.reads for low, high, _ in reads)

    def plain(self, state: int) -> int:
        """The state without what it carries."""
        return self._parts[state][0]

    def carry(self, state: int) -> Carry:
        """What a state carries; the count of ignored bytes is left out where none is needed."""
        return self._parts[state][1]

    def is_boundary(self, state: int) -> bool:
        """Whether the state stands before a lexeme, no byte of it read."""
        return self._boundary[self._parts[state][0]]

    def is_free(self, state: int) -> bool:
        """Whether the state stands before a lexeme and has been handed nothing."""
        return self.is_boundary(state) and self._parts[state][1] == NO_CARRY

    def endings(self, state: int) -> tuple[Ending, ...]:
        """How the lexeme can be taken to end in a state; its threads that live on must then not match again."""
        known = self._endings.get(state)
        if known is None:
            known = self._endings[state] = self._find_endings(state, int(self.match[state]))
        return known

    def _find_endings(self, state: int, terminal: int) -> tuple[Ending, ...]:
        if terminal < 0:
            return ()
        plain, carry = self._parts[state]
        obligations = carry.obligations | self.obligations(plain)
        ignored = terminal in self._ignored
        return (self._ending((terminal,), ignored, Carry(obligations, carry.ignored if ignored else 0)),)

    def obligations(self, plain: int) -> frozenset[int]:
        """What a lexeme that ends in a plain state leaves, if a longer one may match.

        It is the state that matches after the same bytes, and does not tell keywords apart; so equal obligations are one.
        """
        if not self.lives(plain):
            return frozenset()
        threads, trackers = self._threads[plain]
        if trackers:
            plain = self._plain(threads, frozenset())
            self._close()
        return frozenset({plain})

    def lives(self, plain: int) -> bool:
        """Whether any byte leads on."""
        return bool((self.delta[plain] >= 0).any())

    def _plain_start(self, lexer: Lexer) -> int:
        threads = self._merge(state for entry in lexer.entries for state in self._closure(entry))
        trackers = frozenset(state for entry in lexer.keywords for state in self._closure(entry))
        return self._plain(threads, trackers, boundary=True)

    def _plain(self, threads: Threads, trackers: frozenset[int], *, boundary: bool = False) -> int:
        key = (boundary, threads, trackers)
        if key not in self._index:
            state = self._new(len(self), NO_CARRY, boundary=boundary)
            self._threads[state] = (threads, trackers)
            self._index[key] = state
            self.match[state] = self._matched(threads, trackers)
        return self._index[key]

    def _carrying(self, plain: int, carry: Carry) -> int:
        """The state of a plain one that carries something; the plain one itself where there is nothing to carry."""
        if carry.ignored and not self._may_be_ignored(plain):
            carry = Carry(carry.obligations)
        if carry == NO_CARRY and (self._max_ignored is None or not self._may_be_ignored(plain)):
            return plain
        key = (plain, carry)
        if key not in self._index:
            state = self._index[key] = self._new(plain, carry, boundary=False)
            terminal = int(self.match[plain])
            too_long = terminal in self._ignored and carry.ignored > (self._max_ignored or 0)
            self.match[state] = -1 if self._max_ignored is not None and too_long else terminal
        return self._index[key]

    def _may_be_ignored(self, plain: int) -> bool:
        """Whether an ignored terminal matches in a plain state or in one that it leads to; all their rows are filled."""
        if self._max_ignored is None:
            return False
        if plain not in self._ignorable:
            reached, waiting = {plain}, [plain]
            while waiting:
                new = {int(s) for s in np.unique(self.delta[waiting.pop()]) if s >= 0} - reached
                reached |= new
                waiting.extend(new)
            self._ignorable[plain] = any(int(self.match[state]) in self._ignored for state in reached)
        return self._ignorable[plain]

    def _new(self, plain: int, carry: Carry, *, boundary: bool) -> int:
        state = len(self)
        self.reserve(state)
        self._parts.append((plain, carry))
        self._boundary.append(boundary)
        self._pending.append(state)
        return state

    def _close(self) -> None:
        """Fill the rows of all states reached so far, and of those that they reach."""
        while self._pending:
            state = self._pending.pop()
            plain, carry = self._parts[state]
            if state == plain:
                self._fill_plain(state)
            else:
                self._fill_carrying(state, plain, carry)

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
                frozenset(t for t in self._targets(trackers, a) if self._nfa.owner[t] in wanted)
                if trackers
                else trackers
            )
            target = self._plain(following, kept)
            self.delta[state, a:b] = target  # looked up anew: building the target may have moved the array

    def _fill_carrying(self, state: int, plain: int, carry: Carry) -> None:
        """Obligations advance beside the lexer; one that matches ends the branch, one that dies is met."""
        ignored = 0 if self._max_ignored is None else min(carry.ignored + 1, self._max_ignored + 1)
        combinations, inverse = np.unique(self.delta[[plain, *carry.obligations]], axis=1, return_inverse=True)
        targets = np.full(combinations.shape[1], -1, np.int32)
        for i in range(combinations.shape[1]):
            following, *others = (int(x) for x in combinations[:, i])
            alive = [other for other in others if other >= 0]
            if following >= 0 and all(self.match[other] < 0 for other in alive):
                targets[i] = self._carrying(following, Carry(frozenset(alive), ignored))
        self.delta[state] = targets[inverse.reshape(-1)]

    def _read(self, threads: Threads, byte: int) -> Threads:
        return self._merge(self._targets(threads, byte))

    def _targets(self, threads: Iterable[int], byte: int) -> Iterator[int]:
        """Where threads lead by a byte; all of them, for trackers of keywords do not outdo one another."""
        targets = (target for t in threads for low, high, target in self._nfa.reads[t] if low <= byte <= high)
        return (state for target in targets for state in self._closure(target))

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
