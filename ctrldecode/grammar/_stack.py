"""Parser stacks as persistent, shared nodes, and what it costs to finish from one.

Nodes are hash-consed: equal stacks under one root are one object, so whatever is remembered on a node is found again. The
cost is counted in tokens and knows the grammar only, not how its terminals are lexed beside one another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ctrldecode.grammar._lark import Tables

__all__ = ["Costs", "Node"]


# Reductions in a row, beyond the number of parser states, that do not consume the stack before they count as endless.
_PATIENCE = 1000


class Node:
    """A stack of parser states: the top, and the node below. Compare by identity.

    Attributes:
        state: the parser state on top.
        below: the rest of the stack, None at the bottom.
        memo: what others remember about this stack, by their own keys.
    """

    __slots__ = ("_above", "_shifted", "_tables", "below", "finish", "memo", "state")

    def __init__(self, tables: Tables, state: int, below: Node | None = None) -> None:
        self.state, self.below = state, below
        self._tables = tables
        self._above: dict[int, Node] = {}
        self._shifted: dict[int, Node | None] = {}
        self.finish: dict[str, float] | None = None
        self.memo: dict[Any, Any] = {}

    def push(self, state: int) -> Node:
        """This stack with one more state."""
        node = self._above.get(state)
        if node is None:
            node = self._above[state] = Node(self._tables, state, self)
        return node

    def pop(self, count: int) -> Node:
        """This stack without its `count` top states."""
        node = self
        for _ in range(count):
            node = node.below or node
        return node

    def shift(self, terminal: int) -> Node | None:
        """The stack after all reductions that the terminal asks for and its shift; None if the parser refuses it."""
        if terminal not in self._shifted:
            node = self._reduce(terminal)
            state = self._tables.shifts[node.state].get(terminal) if node else None
            self._shifted[terminal] = None if node is None or state is None else node.push(state)
        return self._shifted[terminal]

    def accepts_end(self) -> bool:
        """Whether the text may end here."""
        if "end" not in self.memo:
            node = self._reduce(-1)
            self.memo["end"] = node is not None and node.state == self._tables.end_state
        return self.memo["end"]

    def _reduce(self, terminal: int) -> Node | None:
        """All reductions before a terminal; None if they never end, as tables of ambiguous grammars may have it."""
        node: Node = self
        reduces, gotos = self._tables.reduces, self._tables.gotos
        height = lowest = idle = 0
        patience = _PATIENCE + len(gotos)
        while terminal in reduces[node.state]:
            count, nonterminal = reduces[node.state][terminal]
            rest = node.pop(count)
            state = gotos[rest.state].get(nonterminal)
            height += 1 - count
            idle = 0 if height < lowest else idle + 1
            lowest = min(lowest, height)
            if state is None or idle > patience:
                return None
            node = rest.push(state)
            if terminal == -1 and state == self._tables.end_state:  # lark stops here, even if it could reduce on
                break
        return node


class Costs:
    """Least number of tokens that complete a stack, counting the cheapest text of each terminal by itself.

    F(n, A) is the cost after nonterminal A was recognised on top of stack n: the minimum over items B → γ A · β of the
    state reached by A, of the cost of β plus F(n popped by |γ|, B). Items with an empty γ stay at n, so the values of one
    node are a small shortest-path problem; those of the nodes below are known by then.
    """

    def __init__(self, tables: Tables, terminal_cost: Sequence[float]) -> None:
        self._tables, self._terminal_cost = tables, terminal_cost
        self._nonterminal_cost = self._nonterminals()
        self._items = self._kernels()
        self._steps = [self._goto_steps(state) for state in range(len(tables.gotos))]

    def least(self) -> float:
        """Cost of the cheapest text of the language."""
        return self._nonterminal_cost.get(self._tables.start, math.inf)

    def remaining(self, node: Node) -> float:
        """Cost to complete a stack; infinite if no text does."""
        if "remaining" not in node.memo:
            options = [
                rest + self._finish(node.pop(depth)).get(name, math.inf)
                for name, depth, rest in self._items[node.state]
            ]
            node.memo["remaining"] = min(options, default=math.inf)
        return node.memo["remaining"]

    def _finish(self, node: Node) -> dict[str, float]:
        waiting: list[Node] = []
        below: Node | None = node
        while below is not None and below.finish is None:
            waiting.append(below)
            below = below.below
        for waiting_node in reversed(waiting):
            waiting_node.finish = self._solve(waiting_node)
        return node.finish or {}

    def _solve(self, node: Node) -> dict[str, float]:
        values = {self._root: 0.0} if node.below is None else {}
        here: list[tuple[str, str, float]] = []
        for name, parent, depth, rest in self._steps[node.state]:
            if depth == 0:
                here.append((name, parent, rest))
                continue
            value = rest + (node.pop(depth).finish or {}).get(parent, math.inf)
            values[name] = min(value, values.get(name, math.inf))
        changed = True
        while changed:
            changed = False
            for name, parent, rest in here:
                value = rest + values.get(parent, math.inf)
                if value < values.get(name, math.inf):
                    values[name], changed = value, True
        return values

    @property
    def _root(self) -> str:
        return "$root"

    def _cost(self, symbols: Sequence[tuple[str, Any]]) -> float:
        return sum(
            self._terminal_cost[x] if kind == "t" else self._nonterminal_cost.get(x, math.inf) for kind, x in symbols
        )

    def _nonterminals(self) -> dict[str, float]:
        self._nonterminal_cost = costs = {}
        changed = True
        while changed:
            changed = False
            for name, symbols in self._tables.rules:
                value = self._cost(symbols)
                if value < costs.get(name, math.inf):
                    costs[name], changed = value, True
        return costs

    def _kernels(self) -> list[list[tuple[str, int, float]]]:
        """For each parser state, its kernel items as (nonterminal, symbols read, cost of the symbols to come)."""
        by_name: dict[str, list[int]] = {}
        for i, (name, _) in enumerate(self._tables.rules):
            by_name.setdefault(name, []).append(i)
        rules = [*self._tables.rules, (self._root, (("n", self._tables.start),))]
        kernels: list[set[tuple[int, int]]] = [set() for _ in self._tables.gotos]
        kernels[self._tables.start_state].add((len(rules) - 1, 0))
        waiting = [self._tables.start_state]
        while waiting:
            state = waiting.pop()
            for target, item in self._advance(state, kernels[state], rules, by_name):
                if item not in kernels[target]:
                    kernels[target].add(item)
                    waiting.append(target)
        return [[(rules[r][0], dot, self._cost(rules[r][1][dot:])) for r, dot in sorted(items)] for items in kernels]

    def _advance(
        self, state: int, kernel: set[tuple[int, int]], rules: Sequence[Any], by_name: Mapping[str, list[int]]
    ) -> list[tuple[int, tuple[int, int]]]:
        closure, waiting = set(kernel), list(kernel)
        while waiting:
            rule, dot = waiting.pop()
            symbols = rules[rule][1]
            if dot < len(symbols) and symbols[dot][0] == "n":
                new = {(r, 0) for r in by_name.get(symbols[dot][1], [])} - closure
                closure |= new
                waiting.extend(new)
        moves: list[tuple[int, tuple[int, int]]] = []
        for rule, dot in closure:
            symbols = rules[rule][1]
            if dot < len(symbols):
                kind, x = symbols[dot]
                target = (self._tables.shifts if kind == "t" else self._tables.gotos)[state].get(x)
                if target is not None:
                    moves.append((target, (rule, dot + 1)))
        return moves

    def _goto_steps(self, state: int) -> list[tuple[str, str, int, float]]:
        """(A, B, |γ|, cost of β) for items B → γ A · β of the states that nonterminals lead to."""
        return [
            (name, parent, dot - 1, rest)
            for name, target in self._tables.gotos[state].items()
            for parent, dot, rest in self._items[target]
            if dot >= 1
        ]
