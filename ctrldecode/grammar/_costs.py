"""What it costs, in tokens, to complete a parser stack, and with which terminal the cheapest way begins.

The costs know the grammar only, not how its terminals are lexed beside one another: they are lower bounds of the true ones.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

from ctrldecode.grammar._derivations import best
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
        self._values = object()  # under it stacks remember F, and under `self` what remains
        self._nonterminal: dict[str, Plan] = {}
        best(tables.rules, self._sequence, _IMPOSSIBLE, self._nonterminal)
        self._rest = [self._suffixes(symbols) for _, symbols in (*tables.rules, (_ROOT, (("n", tables.start),)))]
        self._names = [*(name for name, _ in tables.rules), _ROOT]
        self._items = [[(self._names[r], dot, self._rest[r][dot]) for r, dot in kernel] for kernel in tables.kernels]
        self._steps = [self._goto_steps(state) for state in range(len(tables.gotos))]

    def remaining(self, node: Node) -> Plan:
        """Cheapest way to complete a stack; of infinite cost if no text does."""
        if self not in node.memo:
            ways = (
                _then(rest, self._finish(node.pop(depth)).get(name, _IMPOSSIBLE))
                for name, depth, rest in self._items[node.state]
            )
            node.memo[self] = min(ways, default=_IMPOSSIBLE)
        return node.memo[self]

    def _finish(self, node: Node) -> dict[str, Plan]:
        waiting: list[Node] = []
        below: Node | None = node
        while below is not None and self._values not in below.memo:
            waiting.append(below)
            below = below.below
        for unsolved in reversed(waiting):
            unsolved.memo[self._values] = self._solve(unsolved)
        return node.memo[self._values]

    def _solve(self, node: Node) -> dict[str, Plan]:
        values: dict[str, Plan] = {_ROOT: (0.0, NOTHING)} if node.below is None else {}
        below, here = self._steps[node.state]
        for name, parent, depth, rest in below:
            value = _then(rest, node.pop(depth).memo[self._values].get(parent, _IMPOSSIBLE))
            values[name] = min(value, values.get(name, _IMPOSSIBLE))
        return _shortest(values, here) if here else values

    def _sequence(self, symbols: Sequence[tuple[str, Any]]) -> Plan:
        return self._suffixes(symbols)[0]

    def _suffixes(self, symbols: Sequence[tuple[str, Any]]) -> list[Plan]:
        """The plans for what is left of a sequence, from each of its places on."""
        plans: list[Plan] = [(0.0, NOTHING)]
        for kind, x in reversed(symbols):
            first = (self._terminal_cost[x], x) if kind == "t" else self._nonterminal.get(x, _IMPOSSIBLE)
            plans.append(_then(first, plans[-1]))
        return plans[::-1]

    def _goto_steps(self, state: int) -> tuple[list[tuple[str, str, int, Plan]], dict[str, list[tuple[str, Plan]]]]:
        """The items B → γ A · β of the states that nonterminals A lead to.

        Returns:
            (A, B, |γ|, plan for β) where γ is not empty; and where it is, (A, plan for β) by B.
        """
        below: list[tuple[str, str, int, Plan]] = []
        here: dict[str, list[tuple[str, Plan]]] = {}
        for name, target in self._tables.gotos[state].items():
            for parent, dot, rest in self._items[target]:
                if dot > 1:
                    below.append((name, parent, dot - 1, rest))
                elif dot == 1:
                    here.setdefault(parent, []).append((name, rest))
        return below, here


def _shortest(values: dict[str, Plan], steps: Mapping[str, list[tuple[str, Plan]]]) -> dict[str, Plan]:
    """The least plans, given some to begin with and steps that lead from one name to another (Dijkstra 1959)."""
    heap = [(plan, name) for name, plan in values.items()]
    heapq.heapify(heap)
    while heap:
        plan, name = heapq.heappop(heap)
        if plan == values[name]:
            for other, rest in steps.get(name, ()):
                value = _then(rest, plan)
                if value[0] < values.get(other, _IMPOSSIBLE)[0]:
                    values[other] = value
                    heapq.heappush(heap, (value, other))
    return values
