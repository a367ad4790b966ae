"""The machine of earley mode: any context-free grammar, ambiguous and left-recursive ones too.

A stack is a `Column`, an Earley set. The columns after all lexemes that end at one place of a text are joined into one, as
in Earley's algorithm, so the number of configurations is bounded by the length of the text. It does not know tensors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ctrldecode.automata._nfa import Nfa
from ctrldecode.grammar._columns import Column, Columns, Items
from ctrldecode.grammar._dfa import NO_CARRY, Carry, Ending
from ctrldecode.grammar._machine import Configuration, Machine
from ctrldecode.grammar._obliged import Obliged
from ctrldecode.grammar._sets import SetAutomaton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ctrldecode.grammar._lark import Rules
    from ctrldecode.kernels.tokens import trie as tries

__all__ = ["EarleyMachine"]


class EarleyMachine(Machine[SetAutomaton]):
    """Configurations whose stacks are Earley sets; the language is that of lark's `dynamic_complete` lexer."""

    joins = True

    def __init__(
        self, rules: Rules, trie: tries.Trie, *, max_ignored: int | None, max_lexer_states: int, max_search: int
    ) -> None:
        """Compile the terminals.

        Args:
            rules: the grammar.
            trie: the vocabulary's tokens.
            max_ignored: bound on the bytes of ignored text in a row; None for none.
            max_lexer_states: the number of lexer states past which `GrammarLimitError` is raised.
            max_search: the same for the pairs of a symbol and obligations that the exact decision looks at.
        """
        super().__init__(rules.terminals, rules.ignored, trie)
        nfa = Nfa()
        entries = {t.number: nfa.add_pattern(t.pattern, t.number, t.name) for t in rules.terminals}
        self.automaton = SetAutomaton(
            nfa, entries, ignored=rules.ignored, max_ignored=max_ignored, limit=max_lexer_states
        )
        starts = [self.automaton.start(frozenset({t.number})) for t in rules.terminals]
        self._items = Items(rules.rules, rules.start, self.terminal_costs(starts))
        self._obliged = Obliged(self, self._items, max_search)
        self._columns = Columns(self._items)
        self._starts: dict[tuple[frozenset[int], Carry], int] = {}

    def start(self) -> Configuration:
        """The empty text; see `Machine.start`."""
        self._columns = Columns(self._items)
        return self._before_lexeme(self._columns.root, NO_CARRY)

    def ends(self, configuration: Configuration) -> Iterator[tuple[Ending, Configuration]]:
        """See `Machine.ends`."""
        for ending in self.automaton.endings(configuration.lexer):
            yield ending, self._follow(configuration.node, ending)

    def join(self, configurations: Iterable[Configuration]) -> Iterable[Configuration]:
        """See `Machine.join`: one column for all before a lexeme, up to what they carry, and one for each state inside one.

        What may follow several columns is what may follow any of their items, wherever they began.
        """
        groups: dict[tuple[int | Carry, bool], list[Configuration]] = {}
        for here in configurations:
            place = self.automaton.carry(here.lexer) if self.automaton.is_boundary(here.lexer) else here.lexer
            groups.setdefault((place, here.node.is_root), []).append(here)
        for (place, _), group in groups.items():
            if len(group) == 1:
                yield group[0]
                continue
            column = self._columns.union(here.node for here in group)
            yield Configuration(column, place) if isinstance(place, int) else self._before_lexeme(column, place)

    def accepts(self, configuration: Configuration) -> bool:
        """See `Machine.accepts`."""
        return self.automaton.is_boundary(configuration.lexer) and configuration.node.accepts

    def expected(self, configuration: Configuration) -> tuple[int, ...]:
        """See `Machine.expected`."""
        return tuple(sorted({t for edge in self.edges(configuration.lexer) for t in edge.ending.terminals}))

    def cost(self, configuration: Configuration) -> float:
        """See `Machine.cost`. Terminals do not hinder one another in this mode, so only obligations need a search."""
        memo, lexer = configuration.node.memo, configuration.lexer
        if lexer not in memo:
            memo[lexer] = self._cost(configuration)
        return memo[lexer]

    def _cost(self, configuration: Configuration) -> float:
        node, lexer = configuration
        if self.automaton.is_boundary(lexer):
            carry = self.automaton.carry(lexer)
            return self._obliged.cost(node, carry) if carry.obligations else node.remaining
        ways = (edge.tokens + self.cost(self._follow(node, edge.ending)) for edge in self.edges(lexer))
        return min(ways, default=math.inf)

    def _follow(self, node: Column, ending: Ending) -> Configuration:
        if ending.ignored:
            return self._before_lexeme(node, ending.carry)
        after = node.memo.get(ending.terminals)
        if after is None:
            after = node.memo[ending.terminals] = self._columns.scan(node, ending.terminals)
        return self._before_lexeme(after, ending.carry)

    def _before_lexeme(self, column: Column, carry: Carry) -> Configuration:
        return Configuration(column, self.lexer_before(column.terminals, carry))

    def lexer_before(self, terminals: frozenset[int], carry: Carry) -> int:
        """The lexer state before a lexeme of one of the terminals."""
        key = (terminals, carry)
        lexer = self._starts.get(key)
        if lexer is None:
            lexer = self._starts[key] = self.automaton.start(terminals, carry)
        return lexer
