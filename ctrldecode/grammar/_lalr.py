"""The machine of lalr mode: LALR tables equal to lark's over lark's contextual lexer, and the search for completions.

A stack is a `Node`. What can still be completed is decided by best-first search over lexemes, and where that does not end
soon, by exact summaries. It does not know tensors.
"""

from __future__ import annotations

import heapq
import math
from functools import cached_property
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ctrldecode.automata._nfa import Nfa
from ctrldecode.grammar._costs import Costs
from ctrldecode.grammar._dfa import NO_CARRY, Carry, Ending, Lexer, LexerAutomaton
from ctrldecode.grammar._explorer import Explorer
from ctrldecode.grammar._lark import NOTHING
from ctrldecode.grammar._machine import Configuration, Edge, Machine
from ctrldecode.grammar._spelling import Spelling
from ctrldecode.grammar._stack import Node
from ctrldecode.grammar._summaries import Summaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctrldecode.grammar._lark import Tables
    from ctrldecode.kernels.tokens import trie as tries

__all__ = ["LalrMachine"]


# Configurations a search may visit before the exact decision takes over; completions of the shipped grammars visit tens.
_PATIENCE = 300


_UNKNOWN: Any = object()  # what a memo does not have

# Bound of the whole cost, order, cost so far, configuration (None: a text is complete), the one before, ways still to try.
_Entry = tuple[
    float,
    int,
    float,
    "Configuration | None",
    "Configuration | None",
    "Iterator[tuple[float, int, Configuration]] | None",
]


class LalrMachine(Machine[LexerAutomaton]):
    """Configurations whose stacks are those of lark's LALR parser."""

    def __init__(
        self, tables: Tables, trie: tries.Trie, *, max_ignored: int | None, max_lexer_states: int, max_search: int
    ) -> None:
        """Compile the terminals.

        Args:
            tables: the grammar.
            trie: the vocabulary's tokens.
            max_ignored: bound on the bytes of ignored text in a row; None for none.
            max_lexer_states: the number of lexer states past which `GrammarLimitError` is raised.
            max_search: the same for the frames that the exact decision summarises.
        """
        super().__init__(tables.terminals, tables.ignored, trie)
        self.tables = tables
        self._summaries = Summaries(self, max_search)
        nfa = Nfa()
        entries = {t.number: nfa.add_pattern(t.pattern, t.number, t.name) for t in tables.terminals}
        self.automaton: LexerAutomaton = LexerAutomaton(
            nfa, dict(tables.unless), ignored=tables.ignored, max_ignored=max_ignored, limit=max_lexer_states
        )
        made = {  # states that share a lexer share its order, too
            id(order): Lexer(tuple(entries[t] for t in order), tuple(entries[t] for t in keywords))
            for order, keywords in zip(tables.lexers, tables.keywords, strict=True)
        }
        self.lexers: list[Lexer] = list(made.values())
        place = {key: i for i, key in enumerate(made)}
        self.lexer_of: list[int] = [place[id(order)] for order in tables.lexers]
        self._groups: dict[int, dict[int, list[Edge]]] = {}
        self._starts: dict[tuple[int, Carry], int] = {}
        self.spelling: Spelling = Spelling(self, max_ignored)

    @cached_property
    def costs(self) -> Costs:
        """Lower bounds of the costs of stacks."""
        return Costs(self.tables, self.terminal_costs(map(self.automaton.start, self.lexers)))

    @cached_property
    def _words(self) -> Costs:
        """Costs of stacks along the words of terminals, in bytes."""
        return Costs(self.tables, [self.spelling.cost.get(t.number, math.inf) for t in self.terminals])

    def explorer(self, size: int, limit: int) -> Explorer:
        """See `Machine.explorer`."""
        return Explorer(self, size, limit)

    def lives(self, configuration: Configuration) -> bool:
        """See `Machine.lives`; a search only where spelling does not tell."""
        node, lexer = configuration
        if self.automaton.is_boundary(lexer):
            following = [(node, self.automaton.carry(lexer))]
        else:
            ways = ((self._node_after(node, e.terminals[0]), e.carry) for e, _ in self.spelling.edges(lexer))
            following = [(after, carry) for after, carry in ways if after is not None]
            if not following and self.spelling.whole:
                return False
        return any(self._is_safe(after, carry) for after, carry in following) or self.cost(configuration) < math.inf

    def _is_safe(self, node: Node, carry: Carry) -> bool:
        if self.spelling.slack(self.lexer_of[node.state], carry) is None:
            return False
        return not self.spelling.partial or self._words.remaining(node)[0] < math.inf

    def start(self) -> Configuration:
        """The empty text; see `Machine.start`."""
        return self._before_lexeme(Node(self.tables, self.tables.start_state), NO_CARRY)

    def ends(self, configuration: Configuration) -> Iterator[tuple[Ending, Configuration]]:
        """See `Machine.ends`."""
        for ending in self.automaton.endings(configuration.lexer):
            after = self._follow(configuration.node, ending)
            if after is not None:
                yield ending, after

    def accepts(self, configuration: Configuration) -> bool:
        """See `Machine.accepts`."""
        return self.automaton.is_boundary(configuration.lexer) and configuration.node.accepts_end()

    def expected(self, configuration: Configuration) -> tuple[int, ...]:
        """See `Machine.expected`."""
        possible = self._edges_by_terminal(configuration.lexer)
        return tuple(sorted(t for t in possible if self._node_after(configuration.node, t) is not None))

    def cost(self, configuration: Configuration) -> float:
        """The least number of tokens that complete a text from here; see `Machine.cost`.

        Best-first search over whole lexemes with the parser's own cost as the bound, which is admissible, so the result
        is the minimum (Hart, Nilsson and Raphael 1968). Where that is not soon at an end, since lexemes that the parser wants
        next to each other cannot be told apart, the exact summaries of `Summaries` decide. Results are remembered on the
        stack nodes.

        Raises:
            GrammarLimitError: the summaries passed `max_search` frames.
        """
        known = configuration.node.memo.get(configuration.lexer)
        if known is None:
            known = self._descend(configuration)
        return self._search(configuration) if known is None else known

    def _descend(self, source: Configuration) -> float | None:
        """The cost where the parser's plan attains the bound at every lexeme, as it nearly always does; else None."""
        here, path = source, list[tuple[Configuration, int]]()
        while True:
            node, lexer = here
            known = 0.0 if self.accepts(here) else node.memo.get(lexer)
            if known is not None:
                break
            after = self._tight(here)
            if after is None:
                return None
            path.append((here, after[0]))
            here = after[1]
        if path and known > self.costs.remaining(node)[0]:  # the bound was not attained after all
            return None
        for (node, lexer), tokens in reversed(path):
            known += tokens
            node.memo[lexer] = known
        return known

    def _tight(self, here: Configuration) -> tuple[int, Configuration] | None:
        """A lexeme after which the bound of the rest adds up to the least bound of all, if one is seen at once."""
        node, lexer = here
        groups = self._edges_by_terminal(lexer)
        if self.automaton.is_boundary(lexer):
            least, hint = self.costs.remaining(node)
            for edge in groups.get(hint, ()) if least < math.inf else ():
                after = self._follow(node, edge.ending)
                if after is not None and edge.tokens + self.costs.remaining(after.node)[0] <= least:
                    return edge.tokens, after
            return None
        best: tuple[float, Edge] | None = None
        for terminal, edges in groups.items():
            above = self._node_after(node, terminal)
            rest = math.inf if above is None else self.costs.remaining(above)[0]
            if rest < math.inf and (best is None or edges[0].tokens + rest < best[0]):
                best = (edges[0].tokens + rest, edges[0])
        after = None if best is None else self._follow(node, best[1].ending)
        return None if best is None or after is None else (best[1].tokens, after)

    def _search(self, source: Configuration) -> float:
        order = count(0, -1)  # of equal bounds, the last one found goes first: depth before breadth
        heap: list[_Entry] = [(0.0, next(order), 0.0, source, None, None)]
        parents: dict[Configuration, tuple[Configuration | None, float]] = {}
        while heap:
            bound, _, spent, here, parent, ways = heapq.heappop(heap)
            if here is None:
                return self._remember(parent, parents, bound)
            if ways is None:
                if here in parents:
                    continue
                parents[here] = (parent, spent)
                if len(parents) > _PATIENCE:
                    source.node.memo[source.lexer] = self._summaries.cost(source)
                    return source.node.memo[source.lexer]
                known = 0.0 if self.accepts(here) else here.node.memo.get(here.lexer)
                if known is not None:
                    if known < math.inf:
                        heapq.heappush(heap, (spent + known, next(order), spent, None, here, None))
                    continue
                ways = self._ways(here)
            way = next(ways, None)
            if way is not None:  # take one way, and leave the others, which are no shorter, for later
                least, tokens, after = way
                heapq.heappush(heap, (spent + least, next(order), spent, here, parent, ways))
                if after not in parents:
                    heapq.heappush(heap, (spent + least, next(order), spent + tokens, after, here, None))
        for dead in parents:
            dead.node.memo[dead.lexer] = math.inf
        return math.inf

    def _ways(self, here: Configuration) -> Iterator[tuple[float, int, Configuration]]:
        """Configurations after this lexeme with a lower bound of the whole cost and the lexeme's tokens, cheapest first.

        Before a lexeme the parser's own plan names a terminal; where that attains the parser's bound, nothing is cheaper, and
        the other terminals need not be tried at all.
        """
        groups = self._edges_by_terminal(here.lexer)
        least, hint = self.costs.remaining(here.node) if self.automaton.is_boundary(here.lexer) else (math.inf, NOTHING)
        tight: set[Edge] = set()
        for edge in groups.get(hint, ()):
            after = self._follow(here.node, edge.ending)
            if after is not None and edge.tokens + self.costs.remaining(after.node)[0] <= least:
                tight.add(edge)
                yield least, edge.tokens, after
        others: list[tuple[float, int, Edge]] = []
        for terminal, edges in groups.items():
            node = self._node_after(here.node, terminal)
            rest = math.inf if node is None else self.costs.remaining(node)[0]
            if rest < math.inf:
                others.extend((edge.tokens + rest, i, edge) for i, edge in enumerate(edges) if edge not in tight)
        for bound, _, edge in sorted(others, key=itemgetter(0, 1)):
            after = self._follow(here.node, edge.ending)
            if after is not None:
                yield bound, edge.tokens, after

    def _remember(
        self, last: Configuration | None, parents: dict[Configuration, tuple[Configuration | None, float]], total: float
    ) -> float:
        while last is not None:
            parent, spent = parents[last]
            last.node.memo[last.lexer] = total - spent
            last = parent
        return total

    def _node_after(self, node: Node, terminal: int) -> Node | None:
        return node if terminal in self.tables.ignored else node.shift(terminal)

    def _follow(self, node: Node, ending: Ending) -> Configuration | None:
        found = node.memo.get(ending, _UNKNOWN)
        if found is _UNKNOWN:
            after = node if ending.ignored else node.shift(ending.terminals[0])
            found = node.memo[ending] = None if after is None else self._before_lexeme(after, ending.carry)
        return found

    def _before_lexeme(self, node: Node, carry: Carry) -> Configuration:
        return Configuration(node, self.lexer_before(node.state, carry))

    def lexer_before(self, state: int, carry: Carry) -> int:
        """The lexer state before a lexeme, in a parser state."""
        key = (state, carry)
        lexer = self._starts.get(key)
        if lexer is None:
            lexer = self._starts[key] = self.automaton.start(self.lexers[self.lexer_of[state]], carry)
        return lexer

    def _edges_by_terminal(self, lexer: int) -> dict[int, list[Edge]]:
        groups = self._groups.get(lexer)
        if groups is None:
            groups = self._groups[lexer] = {}
            for edge in self.edges(lexer):
                groups.setdefault(edge.ending.terminals[0], []).append(edge)
        return groups
