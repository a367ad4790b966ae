"""What it costs, in tokens, to complete a parser stack, and with which terminal the cheapest way begins.

The costs know the grammar only, not how its terminals are lexed beside one another: they are lower bounds of the true ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ctrldecode.grammar._lark import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ctrldecode.grammar._lark import Tables
    from ctrldecode.grammar._stack import Node

__all__ = ["Costs", "Plan"]

# Cost in tokens, and the first terminal of the cheapest way (NOTHING where it has none, so that what follows decides).
Plan = tuple[float, int]

_ROOT = "$root"
_IMPOSSIBLE: Plan = (math.inf, NOTHING)


def _then(first: Plan, second: Plan) -> Plan:
    return first[0] + second[0], second[1] if first[1] == NOTHING else first[1]


class Costs:
    """Least number of tokens that complete a stack, counting the cheapest text of each terminal by itself.

    F(n, A) is the cost after nonterminal A was recognised on top of stack n: the minimum over items B → γ A · β of the
    state reached by A, of the cost of β plus F(n popped by |γ|, B). Items with an empty γ stay at n, so the values of one
    node are a small shortest-path problem; those of the nodes below are known by then.
    """

    def __init__(self, tables: Tables, terminal_cost: Sequence[float]) -> None:
        self._tables, self._terminal_cost = tables, terminal_cost
        self._nonterminal: dict[str, Plan] = {}
        self._solve_nonterminals()
        self._items = self._kernels()
        self._steps = [self._goto_steps(state) for state in range(len(tables.gotos))]

    def remaining(self, node: Node) -> Plan:
        """Cheapest way to complete a stack; of infinite cost if no text does."""
        if "remaining" not in node.memo:
            ways = (
                _then(rest, self._finish(node.pop(depth)).get(name, _IMPOSSIBLE))
                for name, depth, rest in self._items[node.state]
            )
            node.memo["remaining"] = min(ways, default=_IMPOSSIBLE)
        return node.memo["remaining"]

    def _finish(self, node: Node) -> dict[str, Plan]:
        waiting: list[Node] = []
        below: Node | None = node
        while below is not None and below.finish is None:
            waiting.append(below)
            below = below.below
        for unsolved in reversed(waiting):
            unsolved.finish = self._solve(unsolved)
        return node.finish

    def _solve(self, node: Node) -> dict[str, Plan]:
        values: dict[str, Plan] = {_ROOT: (0.0, NOTHING)} if node.below is None else {}
        here: list[tuple[str, str, Plan]] = []
        for name, parent, depth, rest in self._steps[node.state]:
            if depth == 0:
                here.append((name, parent, rest))
                continue
            value = _then(rest, node.pop(depth).finish.get(parent, _IMPOSSIBLE))
            values[name] = min(value, values.get(name, _IMPOSSIBLE))
        changed = True
        while changed:
            changed = False
            for name, parent, rest in here:
                value = _then(rest, values.get(parent, _IMPOSSIBLE))
                if value[0] < values.get(name, _IMPOSSIBLE)[0]:
                    values[name], changed = value, True
        return values

    def _sequence(self, symbols: Sequence[tuple[str, Any]]) -> Plan:
        plan: Plan = (0.0, NOTHING)
        for kind, x in symbols:
            plan = _then(plan, (self._terminal_cost[x], x) if kind == "t" else self._nonterminal.get(x, _IMPOSSIBLE))
        return plan

    def _solve_nonterminals(self) -> None:
        changed = True
        while changed:
            changed = False
            for name, symbols in self._tables.rules:
                value = self._sequence(symbols)
                if value[0] < self._nonterminal.get(name, _IMPOSSIBLE)[0]:
                    self._nonterminal[name], changed = value, True

    def _kernels(self) -> list[list[tuple[str, int, Plan]]]:
        """For each parser state, its kernel items as (nonterminal, symbols read, plan for the symbols to come)."""
        by_name: dict[str, list[int]] = {}
        for i, (name, _) in enumerate(self._tables.rules):
            by_name.setdefault(name, []).append(i)
        rules = [*self._tables.rules, (_ROOT, (("n", self._tables.start),))]
        kernels: list[set[tuple[int, int]]] = [set() for _ in self._tables.gotos]
        kernels[self._tables.start_state].add((len(rules) - 1, 0))
        waiting = [self._tables.start_state]
        while waiting:
            state = waiting.pop()
            for target, item in self._advance(state, kernels[state], rules, by_name):
                if item not in kernels[target]:
                    kernels[target].add(item)
                    waiting.append(target)
        return [
            [(rules[r][0], dot, self._sequence(rules[r][1][dot:])) for r, dot in sorted(items)] for items in kernels
        ]

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

    def _goto_steps(self, state: int) -> list[tuple[str, str, int, Plan]]:
        """(A, B, |γ|, plan for β) for items B → γ A · β of the states that nonterminals lead to."""
        return [
            (name, parent, dot - 1, rest)
            for name, target in self._tables.gotos[state].items()
            for parent, dot, rest in self._items[target]
            if dot >= 1
        ]
