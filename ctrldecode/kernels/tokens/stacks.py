"""Stacks of an LALR parser in flat arrays: shifts, reductions, and what it costs to complete a stack.

Equal stacks are one number, the place of their top in a pool; what was computed for one is found again. Arrays in, arrays
out: neither terminals nor lexers are known here. The functions are compiled into the kernels that call them; numba does not
see when a function of another file changes, so whoever edits this file touches its callers, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from ctrldecode.kernels._borrow import Line, Table  # noqa: TC001  read at run time

__all__ = [
    "END",
    "FULL",
    "NEVER",
    "NONE",
    "Parser",
    "Pool",
    "at_most",
    "empty_pool",
    "known_at_most",
    "note",
    "push",
    "recalled",
    "remaining",
    "shift",
]

I32 = NDArray[np.int32]

NONE, FULL = -1, -2  # the parser refuses; the pool has no room
END = -1  # the terminal that stands for the end of the text
NEVER = 1 << 29  # a cost that is infinite; two of them can be added
# Reductions in a row, beyond the number of parser states, that do not consume the stack before they count as endless.
_PATIENCE = 1000
# Shifts that are remembered, 12 bytes each: masks of one text ask for the same ones, and a few thousand stay in the processor's cache.
_SHIFTS = 4096
# Columns of a pool's nodes.
STATE, BELOW, VALUES, NEXT, MOST = range(5)


class Parser(NamedTuple):
    """LALR tables of S states over T terminals, with costs in bytes. A symbol is a terminal, or T + a nonterminal.

    Attributes:
        row: (S + 1,) the first move of each state.
        symbol: (M,) what each move reads, ascending within a state; of equal ones the first counts.
        target: (M,) the next state, or −1 − rule where a rule ends before the terminal.
        goto: (S,) the first move of each state that reads a nonterminal.
        rule: (R, 2) how many symbols a rule pops, and the symbol it makes.
        step_row: (S + 1,) the first step of each state.
        step_here: (S,) the first of its steps within the state.
        step: (K, 4) for each item B → γ A · β of the state that A leads to: which goto of the state A is, B, |γ|, and the cost of β. Steps of empty γ
            are within the state, come last, and have for B which goto of the state it is.
        item_row: (S + 1,) the first item of each state.
        item: (I, 3) for each item B → γ · β: B, |γ|, and the cost of β.
        rest: (S,) the least cost of β among the items of each state.
        leave: (S,) the most, over all gotos of each state, that it costs to reach a rule that ends further down.
        lexer: (S,) the lexer of each state.
        root: (1,) the symbol that stands for the whole text.
    """

    row: Line
    symbol: Line
    target: Line
    goto: Line
    rule: Table
    step_row: Line
    step_here: Line
    step: Table
    item_row: Line
    item: Table
    rest: Line
    leave: Line
    lexer: Line
    root: Line


class Pool(NamedTuple):
    """Room for stacks.

    Attributes:
        nodes: (N, 5) int32. STATE on top, BELOW the rest (−1 at the bottom), VALUES where its costs begin (−1 before they are
            known), NEXT the next node in its bucket, MOST a bound on the costs (−1 before it is known).
        buckets: (2^k,) the first node of each bucket.
        values: costs after each goto of a node's state.
        used: (2,) nodes and values so far.
        shifted: (2^k, 3) the last shifts: stack, terminal, and the stack after it or NONE. Where two have one place, the later counts.
    """

    nodes: Table
    buckets: Line
    values: Line
    used: Line
    shifted: Table


def empty_pool(size: int) -> Pool:
    """Room for some stacks."""
    buckets = 1 << max(4, (size - 1).bit_length() - 1)
    return Pool(np.empty((size, 5), np.int32), np.full(buckets, -1, np.int32), np.empty(8 * size, np.int32), np.zeros(2, np.int32), np.full((_SHIFTS, 3), NONE, np.int32))  # fmt: skip


@register_jitable
def push(nodes: I32, buckets: I32, used: I32, below: int, state: int) -> int:
    """The stack with one more state, or FULL. The bottom is pushed on NONE."""
    bucket = (below * 73856093 + state * 19349663) & (len(buckets) - 1)
    node = buckets[bucket]
    while node >= 0:
        if nodes[node, STATE] == state and nodes[node, BELOW] == below:
            return node
        node = nodes[node, NEXT]
    node = used[0]
    if node == len(nodes):
        return FULL
    used[0] += 1
    nodes[node, STATE], nodes[node, BELOW], nodes[node, VALUES], nodes[node, MOST] = state, below, -1, -1
    nodes[node, NEXT] = buckets[bucket]
    buckets[bucket] = node
    return node


@register_jitable
def _pop(nodes: I32, node: int, count: int) -> int:
    for _ in range(count):
        below = nodes[node, BELOW]
        node = below if below >= 0 else node
    return node


@register_jitable
def _move(row: I32, symbol: I32, state: int, wanted: int) -> int:
    """The move of a state by a symbol, or NONE."""
    low, end = row[state], row[state + 1]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if symbol[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < end and symbol[low] == wanted else NONE


@register_jitable
def recalled(shifted: I32, node: int, terminal: int) -> int:
    """What a shift gave; FULL if it is not remembered."""
    row = shifted[_place(shifted, node, terminal)]
    return row[2] if row[0] == node and row[1] == terminal else FULL


@register_jitable
def note(shifted: I32, node: int, terminal: int, after: int) -> None:
    """Remember what a shift gave; FULL is nothing to remember."""
    row = shifted[_place(shifted, node, terminal)]
    row[0], row[1], row[2] = node, terminal, after


@register_jitable
def _place(shifted: I32, node: int, terminal: int) -> int:
    return (node * 73 + terminal) & (len(shifted) - 1)


@register_jitable
def shift(
    row: I32, symbol: I32, target: I32, rule: I32, nodes: I32, buckets: I32, used: I32, node: int, terminal: int
) -> int:
    """The stack after all reductions that a terminal asks for and its shift; NONE if the parser refuses it; or FULL.

    It takes arrays of a `Parser` and a `Pool`, since to hand over a tuple costs more than most shifts.
    """
    height = lowest = idle = 0
    while idle <= _PATIENCE + len(row):
        move = _move(row, symbol, nodes[node, STATE], terminal)
        if move == NONE:
            return NONE
        if target[move] >= 0:
            return push(nodes, buckets, used, node, target[move])
        ended = -1 - target[move]
        rest = _pop(nodes, node, rule[ended, 0])
        move = _move(row, symbol, nodes[rest, STATE], rule[ended, 1])
        if move == NONE:
            return NONE
        height += 1 - rule[ended, 0]
        idle = 0 if height < lowest else idle + 1
        lowest = min(lowest, height)
        node = push(nodes, buckets, used, rest, target[move])
        if node == FULL:
            return FULL
    return NONE


@register_jitable
def remaining(parser: Parser, pool: Pool, node: int) -> int:
    """Cost of the cheapest way to complete a stack; NEVER if there is none; or FULL."""
    row, symbol, goto, root, item = parser.row, parser.symbol, parser.goto, parser.root[0], parser.item
    nodes, values = pool.nodes, pool.values
    state = nodes[node, STATE]
    best = NEVER
    for i in range(parser.item_row[state], parser.item_row[state + 1]):
        below = _pop(nodes, node, item[i, 1])
        if nodes[below, VALUES] < 0 and not _solve(parser, pool, below):
            return FULL
        best = min(best, item[i, 2] + _value(row, symbol, goto, root, nodes, values, below, item[i, 0]))
    return best


@register_jitable
def known_at_most(nodes: I32, rest: I32, node: int) -> int:
    """What `at_most` tells, if the stack below was asked for before; else NEVER. It takes arrays, see `shift`."""
    below = nodes[node, BELOW]
    most = 0 if below < 0 else int(nodes[below, MOST])
    return NEVER if most < 0 else min(NEVER, most + int(rest[nodes[node, STATE]]))


@register_jitable
def at_most(parser: Parser, pool: Pool, node: int) -> int:
    """A bound on `remaining`, from a number for each state on the stack; NEVER where these tell none.

    Each rule that ends pops one state or more, and what the states below may cost grows with the height.
    """
    nodes, leave = pool.nodes, parser.leave
    top, below, height = nodes[node, STATE], nodes[node, BELOW], 0
    here = below
    while here >= 0 and nodes[here, MOST] < 0:
        here, height = nodes[here, BELOW], height + 1
    total = 0 if here < 0 else int(nodes[here, MOST])
    if height:
        waiting = np.empty(height, np.int32)
        here = below
        for i in range(height):
            waiting[i], here = here, nodes[here, BELOW]
        for i in range(height - 1, -1, -1):
            total = min(NEVER, total + int(leave[nodes[waiting[i], STATE]]))
            nodes[waiting[i], MOST] = total
    return min(NEVER, total + int(parser.rest[top]))


@register_jitable
def _value(row: I32, symbol: I32, goto: I32, root: int, nodes: I32, values: I32, node: int, wanted: int) -> int:
    """Cost of completing a stack, whose costs are known, after a nonterminal was recognised on it."""
    if wanted == root:
        return 0 if nodes[node, BELOW] < 0 else NEVER
    state = nodes[node, STATE]
    move = _move(row, symbol, state, wanted)
    return NEVER if move == NONE else int(values[nodes[node, VALUES] + move - goto[state]])


@register_jitable
def _solve(parser: Parser, pool: Pool, top: int) -> bool:
    """Find the costs of a stack and of all below it; False if there is no room."""
    row, symbol, goto, root, step = parser.row, parser.symbol, parser.goto, parser.root[0], parser.step
    nodes, values, used = pool.nodes, pool.values, pool.used
    count, node = 0, top
    while node >= 0 and nodes[node, VALUES] < 0:
        count, node = count + 1, nodes[node, BELOW]
    waiting = np.empty(count, np.int32)
    node = top
    for i in range(count - 1, -1, -1):
        waiting[i], node = node, nodes[node, BELOW]
    for node in waiting:
        state = nodes[node, STATE]
        own = used[1]
        gotos = row[state + 1] - goto[state]
        if own + gotos > len(values):
            return False
        used[1] += gotos
        nodes[node, VALUES] = own
        values[own : own + gotos] = NEVER
        here = parser.step_here[state]
        for i in range(parser.step_row[state], here):
            below = _pop(nodes, int(node), step[i, 2])
            value = step[i, 3] + _value(row, symbol, goto, root, nodes, values, below, step[i, 1])
            values[own + step[i, 0]] = min(value, values[own + step[i, 0]])
        better = True
        while better:
            better = False
            for i in range(here, parser.step_row[state + 1]):
                value = step[i, 3] + values[own + step[i, 1]]
                if value < values[own + step[i, 0]]:
                    values[own + step[i, 0]] = value
                    better = True
    return True
