"""Where all that the parser still wants can surely be spelled, lexeme by lexeme, and with how many bytes.

Whether a text can be completed is a question to parser and lexers together. It is the parser's alone where every terminal that it
may want can be spelled after what the lexeme before it left as obligations. Each terminal of a lexer gets one short word; words leave few
pairs of lexer and carry behind. Terminals that cannot be written after one of these, not even behind a word of ignored text, are given up:
what can be completed without them can be completed. It does not know stacks or tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.grammar._dfa import NO_CARRY, Carry, Ending
from ctrldecode.grammar._lark import NOTHING
from ctrldecode.kernels.tokens import trie as tries
from ctrldecode.kernels.tokens.spell import spell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ctrldecode.grammar._lalr import LalrMachine

__all__ = ["Spelling"]

_Pair = tuple[int, Carry]  # a lexer, and what it is handed


class _Word(NamedTuple):
    """A short text of a terminal, and what it leaves."""

    text: bytes
    obligations: frozenset[int]


class Spelling:
    """Words of all lexers of one grammar.

    Attributes:
        bytes: those that are tokens, so that texts can be spelled with them.
        whole: whether these are all bytes of all terminals.
        cost: for each terminal, the bytes that suffice for it wherever the parser may come to want it, along words; those that cannot be
            written everywhere are missing.
    """

    def __init__(self, machine: LalrMachine, max_ignored: int | None) -> None:
        """Find the words and judge the pairs that they leave; `max_ignored` bounds the bytes of ignored text in a row."""
        self._machine, self._automaton, self._max_ignored = machine, machine.automaton, max_ignored
        tables, lexer_of = machine.tables, machine.lexer_of
        self.bytes: tries.U8 = tries.single_bytes(machine.trie)
        used = np.zeros(257, np.int64)
        for low, high in machine.automaton.spans():
            used[low] += 1
            used[high + 1] -= 1
        self.whole: bool = bool(np.isin(np.flatnonzero(np.cumsum(used)), self.bytes).all())
        self._wanted: list[frozenset[int]] = [frozenset()] * len(machine.lexers)
        self._next: dict[int, set[int]] = {}  # terminal → lexers of the states that its shift leads to
        for state, lexer in enumerate(lexer_of):
            self._wanted[lexer] |= (tables.shifts[state].keys() | tables.reduces[state].keys()) - {NOTHING}
            for terminal, target in tables.shifts[state].items():
                self._next.setdefault(terminal, set()).add(lexer_of[target])
        self._words: dict[int, dict[int, _Word]] = {}
        self._left: dict[tuple[frozenset[int], bytes], frozenset[int] | None] = {}
        self._edges: dict[int, list[tuple[Ending, int]]] = {}
        self._slack: dict[_Pair, int | None] = {}
        self._safe: frozenset[_Pair] = frozenset()
        self._given_up: set[int] = set()
        self.cost: dict[int, int] = {}
        if tables.faithful:
            self._judge((lexer_of[tables.start_state], NO_CARRY))

    @property
    def partial(self) -> bool:
        """Whether some terminals have no cost, so that the parser may want what they are needed for."""
        return bool(self._given_up)

    def slack(self, lexer: int, carry: Carry) -> int | None:
        """Bytes by which the costs of terminals may fall short before a lexeme; None where it is not safe."""
        pair = (lexer, carry)
        if pair not in self._slack:
            self._slack[pair] = self._find_slack(pair) if self._safe else None
        return self._slack[pair]

    def _find_slack(self, pair: _Pair) -> int | None:
        if pair in self._safe:
            return 0
        slack = 0
        for terminal, cost in self._costs(pair).items():
            if terminal not in self.cost:  # then no completion that counts has it
                continue
            if cost is None or not self._safe.issuperset(self._after(pair[0], terminal)):
                return None
            slack = max(slack, cost - self.cost[terminal])
        return slack

    def edges(self, state: int) -> list[tuple[Ending, int]]:
        """Every way to end the lexeme with one more byte or more, and the least number of bytes for it; the least first."""
        if state not in self._edges:
            order, length, _, _ = spell(self._automaton.delta, state, len(self._automaton), self.bytes)
            least: dict[Ending, int] = {}
            for reached in order[self._automaton.match[order] >= 0].tolist():
                for ending in self._automaton.endings(reached):
                    least.setdefault(ending, int(length[reached]))
            self._edges[state] = list(least.items())
        return self._edges[state]

    def _judge(self, first: _Pair) -> None:
        """Do without terminals that cannot be written somewhere along words, until all others can be."""
        while True:
            costs = self._along_words(first)
            missing = {terminal for own in costs.values() for terminal, cost in own.items() if cost is None}
            if not missing:
                break
            self._given_up |= missing
        self._safe = frozenset(costs)
        for own in costs.values():
            for terminal, cost in own.items():
                self.cost[terminal] = max(cost or 0, self.cost.get(terminal, 0))

    def _along_words(self, first: _Pair) -> dict[_Pair, dict[int, int | None]]:
        """The pairs that words lead to from a first one, and what terminals cost there."""
        costs: dict[_Pair, dict[int, int | None]] = {}
        waiting = [first]
        while waiting:
            pair = waiting.pop()
            if pair not in costs:
                costs[pair] = self._costs(pair)
                waiting += [a for t, cost in costs[pair].items() if cost is not None for a in self._after(pair[0], t)]
        return costs

    def _after(self, lexer: int, terminal: int) -> list[_Pair]:
        """What may stand after a word of a terminal."""
        carry = Carry(self._words[lexer][terminal].obligations)
        return [(after, carry) for after in self._next.get(terminal, ())]

    def _costs(self, pair: _Pair) -> dict[int, int | None]:
        """Bytes that spell each terminal that is wanted; None where it cannot be spelled."""
        lexer, carry = pair
        if lexer not in self._words:
            start = self._automaton.start(self._machine.lexers[lexer])
            self._words[lexer] = self._find_words(self._automaton.plain(start))
        words, costs = self._words[lexer], dict[int, int | None]()
        gaps = [(0, carry.obligations), *self._gaps(words, carry)]
        for terminal in self._wanted[lexer] - self._given_up:
            word = None if terminal in self._machine.tables.ignored else words.get(terminal)
            lengths = [gap + len(word.text) for gap, owed in gaps if self._met(owed, word.text)] if word else []
            costs[terminal] = min(lengths, default=None)
        return costs

    def _gaps(self, words: Mapping[int, _Word], carry: Carry) -> list[tuple[int, frozenset[int]]]:
        """Lengths of ignored words that can be written first, and the obligations after them."""
        gaps: list[tuple[int, frozenset[int]]] = []
        for terminal in self._machine.tables.ignored & words.keys():
            text, owed = words[terminal]
            left = self._remaining(carry.obligations, text)
            fits = self._max_ignored is None or carry.ignored + len(text) <= self._max_ignored
            if left is not None and fits:
                gaps.append((len(text), left | owed))
        return gaps

    def _met(self, obligations: frozenset[int], text: bytes) -> bool:
        """Whether obligations are met within a text."""
        return not obligations or self._remaining(obligations, text) == frozenset()

    def _remaining(self, obligations: frozenset[int], text: bytes) -> frozenset[int] | None:
        """The obligations that live on after a text; None if one is broken."""
        key = (obligations, text)
        if key not in self._left:
            delta, match = self._automaton.delta, self._automaton.match
            alive, broken = list(obligations), False
            for byte in text:
                alive = [state for here in alive if (state := int(delta[here, byte])) >= 0]
                broken |= any(match[state] >= 0 for state in alive)
            self._left[key] = None if broken else frozenset(alive)
        return self._left[key]

    def _find_words(self, start: int) -> dict[int, _Word]:
        """A shortest word of each terminal."""
        automaton = self._automaton
        order, _, before, last = spell(automaton.delta, start, len(automaton), self.bytes)
        words: dict[int, _Word] = {}
        for end in order[automaton.match[order] >= 0].tolist():
            terminal = int(automaton.match[end])
            if terminal not in words:
                text, state = [int(last[end])], int(before[end])
                while state != start:
                    text, state = [int(last[state]), *text], int(before[state])
                words[terminal] = _Word(bytes(text), automaton.obligations(end))
        return words
