"""LALR tables as the arrays of `kernels.tokens.stacks`. It knows nothing of stacks or lexer states."""

from __future__ import annotations

from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ctrldecode.grammar._derivations import best
from ctrldecode.grammar._lark import NOTHING
from ctrldecode.kernels.tokens.stacks import NEVER, Parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ctrldecode.grammar._derivations import Symbol
    from ctrldecode.grammar._lark import Tables

__all__ = ["parser", "with_costs"]


def parser(tables: Tables, lexer_of: Sequence[int]) -> Parser:
    """The moves of a parser; its costs are empty, so that stacks cannot be asked for theirs.

    Where the text is complete its end is shifted, and comes before a reduction there, since lark stops.
    """
    names = {name: len(tables.terminals) + i for i, name in enumerate(dict.fromkeys(name for name, _ in tables.rules))}
    rules: dict[tuple[int, str], int] = {}
    rows: dict[int, list[int]] = {}  # by the identity of a row of reductions: states share them
    states, symbols, targets = [tables.end_state], [NOTHING], [tables.end_state]
    for state, (shifts, reduces, gotos) in enumerate(zip(tables.shifts, tables.reduces, tables.gotos, strict=True)):
        if id(reduces) not in rows:
            rows[id(reduces)] = [-1 - rules.setdefault(rule, len(rules)) for rule in reduces.values()]
        symbols += [*shifts, *reduces, *(names[name] for name in gotos)]
        targets += [*shifts.values(), *rows[id(reduces)], *gotos.values()]
        states += [state] * (len(symbols) - len(states))
    state, symbol = np.array(states, np.int64), np.array(symbols, np.int32)
    order = np.lexsort((symbol, state))
    row = np.searchsorted(state[order], np.arange(len(tables.shifts) + 1)).astype(np.int32)
    goto = row[1:] - np.array([len(gotos) for gotos in tables.gotos], np.int32)
    made = [(popped, names[name]) for popped, name in rules]
    none = np.zeros(len(row), np.int32)
    return Parser(
        row, symbol[order], np.array(targets, np.int32)[order], goto, _table(made, 2), none, none, _table([], 4), none, _table([], 3), none, none,
        np.array(lexer_of, np.int32), np.array([len(tables.terminals) + len(names)], np.int32),
    )  # fmt: skip


def with_costs(moves: Parser, tables: Tables, cost: Mapping[int, int]) -> Parser:
    """The same with costs of completions, given those of the terminals."""
    names = list(dict.fromkeys(name for name, _ in tables.rules))
    number = {name: len(tables.terminals) + i for i, name in enumerate(names)}
    rests = _rests(tables, cost)
    origins = [*(number[name] for name, _ in tables.rules), int(moves.root[0])]
    items = [[(origins[rule], dot, rests[rule][dot]) for rule, dot in kernel] for kernel in tables.kernels]
    steps: list[list[tuple[int, int, int, int]]] = []
    lower: list[int] = []
    leave: list[int] = []
    for gotos in tables.gotos:
        ordered = sorted((number[name], target) for name, target in gotos.items())
        places = {name: place for place, (name, _) in enumerate(ordered)}
        below, here = list[tuple[int, int, int, int]](), list[tuple[int, int, int, int]]()
        for place, (_, target) in enumerate(ordered):
            for parent, dot, rest in items[target]:
                if dot == 1 and parent in places:
                    here.append((place, places[parent], 0, rest))
                else:  # the root is a symbol of no goto
                    below.append((place, parent, dot - 1, rest))
        steps.append([*below, *here])
        lower.append(len(below))
        leave.append(_leaving(len(ordered), below, here))
    row = _offsets(steps)
    return moves._replace(
        step_row=row,
        step_here=row[:-1] + np.array(lower, np.int32),
        step=_table(chain.from_iterable(steps), 4),
        item_row=_offsets(items),
        item=_table(chain.from_iterable(items), 3),
        rest=np.array([min((rest for _, _, rest in own), default=NEVER) for own in items], np.int32),
        leave=np.array(leave, np.int32),
    )


def _leaving(gotos: int, below: Sequence[tuple[int, int, int, int]], here: Sequence[tuple[int, int, int, int]]) -> int:
    """The most that it costs, after any goto of a state, to reach a rule that ends further down, by steps within the state and one below."""
    cost = [NEVER] * gotos
    for place, _, _, rest in below:
        cost[place] = min(cost[place], rest)
    better = True
    while better:
        better = False
        for place, parent, _, rest in here:
            if rest + cost[parent] < cost[place]:
                cost[place], better = rest + cost[parent], True
    return max(cost, default=0)


def _rests(tables: Tables, cost: Mapping[int, int]) -> list[list[int]]:
    """Costs of what is left of each rule, and of the whole text, from each of its places on."""
    least: dict[str, int] = {}

    def of_symbol(symbol: Symbol) -> int:
        kind, x = symbol
        return cost.get(x, NEVER) if kind == "t" else least.get(x, NEVER)

    best(tables.rules, lambda symbols: min(NEVER, sum(map(of_symbol, symbols))), NEVER, least)
    whole = [*(symbols for _, symbols in tables.rules), (("n", tables.start),)]
    return [
        [min(NEVER, rest) for rest in accumulate(map(of_symbol, reversed(symbols)), initial=0)][::-1]
        for symbols in whole
    ]


def _offsets(rows: Sequence[Sequence[Any]]) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, rows)]).astype(np.int32)


def _table(rows: Iterable[Sequence[int]], columns: int) -> NDArray[np.int32]:
    return np.array(list(rows), np.int32).reshape(-1, columns)
