"""LALR(1) parse tables, the same that lark builds, in time and space proportional to their size.

A set of terminals is one integer, a bit each, so that tables of many thousand rules stay small. Lookaheads are those of
DeRemer and Pennello 1982, "Efficient computation of LALR(1) look-ahead sets". It knows rules as symbols, not lark.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ctrldecode.errors import GrammarLimitError

__all__ = ["Conflict", "ParseTable", "PlainRules", "bits", "build"]

# An entry takes about 100 bytes; a grammar of Python has some ten thousand.
_MAX_ENTRIES = 10_000_000

PlainRules = Sequence[tuple[str, tuple[tuple[str, Any], ...]]]  # (nonterminal, its symbols)


class Conflict(NamedTuple):
    """Rules that can end before a terminal, where the parser could also read on (one rule) or end another (several)."""

    terminal: int
    rules: tuple[int, ...]


@dataclass(frozen=True)
class ParseTable:
    """States are numbers; state 0 is where parsing begins.

    Attributes:
        shifts: for each state, terminal → next state.
        gotos: for each state, nonterminal → next state.
        reduces: for each state, (set of terminals, rule) for each rule that ends there; the sets are disjoint.
        kernels: for each state, its items that have read something, as (rule, symbols read); the rule after the last one is
            that of the start.
        end_state: the state in which the text is complete.
        reading_on: conflicts that were resolved by reading on, as lark does.
        undecided: conflicts between rules, which lark refuses.
        outranked: conflicts between rules that their priorities decided.
    """

    shifts: list[dict[int, int]]
    gotos: list[dict[str, int]]
    reduces: list[list[tuple[int, int]]]
    kernels: list[list[tuple[int, int]]]
    end_state: int
    reading_on: list[Conflict]
    undecided: list[Conflict]
    outranked: list[Conflict]


def build(rules: PlainRules, priorities: Sequence[int], start: str, terminals: int) -> ParseTable:
    """The tables of a grammar.

    Args:
        rules: (nonterminal, symbols); a symbol is ("t", number) or ("n", name).
        priorities: of the rules; the higher one wins where two could end.
        start: the start rule's name.
        terminals: how many there are; the bit after theirs stands for the end of the text.

    Raises:
        GrammarLimitError: the tables would have more than ten million entries.
    """
    return _Builder([*rules, ("", (("n", start),))], [*priorities, 0], terminals).table()


def bits(number: int) -> list[int]:
    """The places of the bits that are set, ascending."""
    digits = bin(number)[:1:-1]
    places: list[int] = []
    at = digits.find("1")
    while at >= 0:
        places.append(at)
        at = digits.find("1", at + 1)
    return places


class _Builder:
    """An item, a place in a rule, is an offset into `symbols`, where all rules stand one after another.

    A symbol there is a terminal's number, a nonterminal's number counted on from the terminals, or −1 at a rule's end.
    """

    def __init__(self, rules: PlainRules, priorities: Sequence[int], terminals: int) -> None:
        self.priorities, self.terminals = priorities, terminals
        self.names = list(dict.fromkeys(name for name, _ in rules))
        number = {name: terminals + i for i, name in enumerate(self.names)}
        self.symbols: list[int] = []
        self.rule_at: list[int] = []
        self.first: list[int] = []  # item at the beginning of each rule
        self.rules_of: dict[int, list[int]] = defaultdict(list)
        for rule, (name, symbols) in enumerate(rules):
            self.rules_of[number[name]].append(rule)
            self.first.append(len(self.symbols))
            self.symbols += [x if kind == "t" else number[x] for kind, x in symbols] + [-1]
            self.rule_at += [rule] * (len(symbols) + 1)
        self.origin = [number[name] for name, _ in rules]
        self.empty_tail = self._empty_tails()
        self.beginnings = {nonterminal: self._beginnings(own) for nonterminal, own in self.rules_of.items()}

    def table(self) -> ParseTable:
        kernels: list[tuple[int, ...]] = [(self.first[-1],)]
        self.moves: list[dict[int, int]] = []
        self.ended: list[list[int]] = []  # rules that are complete in each state
        self._find_states(kernels)
        self.follow, lookbacks = self._follow(kernels)
        end_state = self.moves[0][self.symbols[self.first[-1]]]
        table = ParseTable(
            [{s: to for s, to in moves.items() if s < self.terminals} for moves in self.moves],
            [
                {self.names[s - self.terminals]: to for s, to in moves.items() if s >= self.terminals}
                for moves in self.moves
            ],
            [],
            [[(self.rule_at[i], i - self.first[self.rule_at[i]]) for i in items] for items in kernels],
            end_state,
            [],
            [],
            [],
        )
        for state in range(len(kernels)):
            table.reduces.append(self._reduces(state, lookbacks, table))
        return table

    def _empty_tails(self) -> list[bool]:
        """For each item, whether all symbols from there to the rule's end can be empty."""
        waits: dict[int, list[int]] = defaultdict(list)
        missing = [0] * len(self.first)
        for item, symbol in enumerate(self.symbols):
            if symbol >= 0:
                missing[self.rule_at[item]] += 1
                waits[symbol].append(self.rule_at[item])
        self.empty: set[int] = set()
        ready = [rule for rule, count in enumerate(missing) if count == 0]
        while ready:
            origin = self.origin[ready.pop()]
            if origin not in self.empty:
                self.empty.add(origin)
                for rule in waits[origin]:
                    missing[rule] -= 1
                    if missing[rule] == 0:
                        ready.append(rule)
        tails = [True] * len(self.symbols)
        for item in range(len(self.symbols) - 2, -1, -1):
            symbol = self.symbols[item]
            tails[item] = symbol < 0 or (symbol in self.empty and tails[item + 1])
        return tails

    def _beginnings(self, rules: list[int]) -> tuple[list[int], list[tuple[int, list[int]]]]:
        """The empty rules among some, and for each first symbol of the others the items behind it."""
        empty = [rule for rule in rules if self.symbols[self.first[rule]] < 0]
        behind: dict[int, list[int]] = defaultdict(list)
        for rule in rules:
            behind[self.symbols[self.first[rule]]].append(self.first[rule] + 1)
        behind.pop(-1, None)
        return empty, list(behind.items())

    def _find_states(self, kernels: list[tuple[int, ...]]) -> None:
        index = {kernels[0]: 0}
        entries = 0
        for kernel in kernels:  # grows
            behind, ended = self._closure(kernel)
            entries += len(behind)
            if entries > _MAX_ENTRIES:
                raise GrammarLimitError(
                    f"the parser's tables would have more than {_MAX_ENTRIES} entries (limit of the LALR parser); deep chains of rules that "
                    'begin with one another make them grow: shorten those, or use parser="earley"'
                )
            moves: dict[int, int] = {}
            for symbol, items in behind.items():
                key = tuple(sorted(items))
                moves[symbol] = index.setdefault(key, len(kernels))
                if moves[symbol] == len(kernels):
                    kernels.append(key)
            self.moves.append(moves)
            self.ended.append(ended)

    def _closure(self, kernel: tuple[int, ...]) -> tuple[dict[int, list[int]], list[int]]:
        """For each symbol that can be read in a state the items behind it, and the rules that can end there."""
        behind: dict[int, list[int]] = {}
        ended = [self.rule_at[item] for item in kernel if self.symbols[item] < 0]
        for item in kernel:
            if self.symbols[item] >= 0:
                behind.setdefault(self.symbols[item], []).append(item + 1)
        waiting = [symbol for symbol in behind if symbol >= self.terminals]
        seen = set(waiting)
        while waiting:
            empty, beginnings = self.beginnings[waiting.pop()]
            ended += empty
            for symbol, items in beginnings:
                behind.setdefault(symbol, []).extend(items)
                if symbol >= self.terminals and symbol not in seen:
                    seen.add(symbol)
                    waiting.append(symbol)
        return behind, ended

    def _follow(self, kernels: list[tuple[int, ...]]) -> tuple[list[int], dict[tuple[int, int], list[int]]]:
        """What can follow each transition on a nonterminal, and the transitions that come after a rule ends in a state."""
        read = _closed(
            [[to for symbol, to in moves.items() if symbol in self.empty] for moves in self.moves],
            [self._shift_bits(state) | (state == self.moves[0][self.symbols[self.first[-1]]]) << self.terminals for state in range(len(kernels))],
        )  # fmt: skip
        values: list[int] = []
        nodes: list[dict[int, int]] = []
        for moves in self.moves:
            nodes.append({symbol: len(values) + i for i, symbol in enumerate(s for s in moves if s >= self.terminals)})
            values += [read[moves[symbol]] for symbol in nodes[-1]]
        includes: list[list[int]] = [[] for _ in values]
        lookbacks: dict[tuple[int, int], list[int]] = defaultdict(list)
        for state, own in enumerate(nodes):
            for symbol, node in own.items():
                for rule in self.rules_of[symbol]:
                    lookbacks[self._walk(state, self.first[rule], node, nodes, includes), rule].append(node)
            for item in kernels[state]:  # lark includes these too, which can only lengthen lookaheads
                node = own.get(self.origin[self.rule_at[item]])
                if node is not None:
                    self._walk(state, item, node, nodes, includes)
        return _closed(includes, values), lookbacks

    def _walk(self, state: int, item: int, node: int, nodes: list[dict[int, int]], includes: list[list[int]]) -> int:
        """Read a rule to its end; what follows it follows its last symbols, too."""
        symbol = self.symbols[item]
        while symbol >= 0:
            if symbol >= self.terminals and self.empty_tail[item + 1]:
                includes[nodes[state][symbol]].append(node)
            state, item = self.moves[state][symbol], item + 1
            symbol = self.symbols[item]
        return state

    def _shift_bits(self, state: int) -> int:
        return sum(1 << symbol for symbol in self.moves[state] if symbol < self.terminals)

    def _reduces(
        self, state: int, lookbacks: dict[tuple[int, int], list[int]], table: ParseTable
    ) -> list[tuple[int, int]]:
        ahead: dict[int, int] = {}
        for rule in self.ended[state]:
            if rule < len(self.first) - 1:
                ahead[rule] = 0
                for node in lookbacks[state, rule]:
                    ahead[rule] |= self.follow[node]
        for terminal in bits(_overlap(ahead.values())) if len(ahead) > 1 else ():
            rivals = sorted((r for r in ahead if ahead[r] >> terminal & 1), key=lambda r: -self.priorities[r])
            decided = self.priorities[rivals[0]] != self.priorities[rivals[1]]
            (table.outranked if decided else table.undecided).append(Conflict(terminal, tuple(sorted(rivals))))
            for rule in rivals[1:]:
                ahead[rule] &= ~(1 << terminal)
        shifted = self._shift_bits(state) if ahead else 0
        for rule, terminals in ahead.items():
            table.reading_on.extend(Conflict(terminal, (rule,)) for terminal in bits(terminals & shifted))
        return [(terminals & ~shifted, rule) for rule, terminals in ahead.items() if terminals & ~shifted]


def _overlap(sets: Iterable[int]) -> int:
    seen = twice = 0
    for one in sets:
        twice |= seen & one
        seen |= one
    return twice


def _closed(edges: list[list[int]], values: list[int]) -> list[int]:
    """The least sets that contain the given ones and, along every edge x → y, that of y: by strong components (Tarjan 1972)."""
    finished = sys.maxsize
    depth = [0] * len(values)
    stack: list[int] = []
    path: list[tuple[int, int, Iterator[int]]] = []

    def enter(node: int) -> None:
        stack.append(node)
        depth[node] = len(stack)
        path.append((node, len(stack), iter(edges[node])))

    for root in range(len(values)):
        if depth[root] == 0:
            enter(root)
        while path:
            node, own, targets = path[-1]
            target = next(targets, None)
            if target is None:
                path.pop()
                while depth[node] == own:
                    member = stack.pop()
                    values[member] = values[node]
                    depth[member] = finished
                target, node = node, path[-1][0] if path else node
            elif depth[target] == 0:
                enter(target)
                continue
            depth[node] = min(depth[node], depth[target])
            values[node] |= values[target]
    return values
