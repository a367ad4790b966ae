"""Deterministic automata over classes of symbols as plain arrays: distances, trimming, minimisation, canonical order.

A transition table is (Q, C) int32, −1 where nothing is accepted any more; `classes` (V,) int32 maps a symbol to its column.
What the symbols are is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrldecode.kernels.tokens import dfa

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNREACHABLE", "Tables", "distances", "joint", "minimal", "trimmed"]

I32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

# The distance from a state where no accepting one can be reached: large, and 2³⁰ can be added to without overflow.
UNREACHABLE = 1 << 30


class Tables(NamedTuple):
    """An automaton as arrays.

    Attributes:
        classes: (V,) int32, the column of each symbol.
        table: (Q, C) int32, next states, −1 for none.
        start: the first state.
        accepting: (Q,) bool.
    """

    classes: I32
    table: I32
    start: int
    accepting: Bools


def distances(table: I32, accepting: Bools) -> I32:
    """(Q,) int32: the fewest symbols from each state to an accepting one, `UNREACHABLE` where there is none.

    Example:
        >>> distances(np.array([[1, -1], [1, 0], [0, -1]], np.int32), np.array([False, True, False])).tolist()
        [1, 0, 2]
    """
    return dfa.distances(table, accepting, UNREACHABLE)


def trimmed(table: I32, distance: I32) -> I32:
    """The table with −1 wherever it led into, or out of, a state that can never accept."""
    alive = np.append(distance < UNREACHABLE, False)  # the last for −1
    return np.where(alive[table] & alive[:-1, None], table, np.int32(-1))


def minimal(tables: Tables, separate: Bools | None = None) -> Tables:
    """The least automaton of the same language: no dead, unreachable or equivalent states, no equal columns, canonical order.

    Columns are ordered by their first symbol, states by breadth-first search, so equal languages give equal arrays.

    Args:
        tables: any automaton.
        separate: (V,) bool, symbols that never share a column with the others; they do not in `tables` either.
    """
    distance = distances(tables.table, tables.accepting)
    if distance[tables.start] == UNREACHABLE:
        table, start, accepting = np.full((1, tables.table.shape[1]), -1, np.int32), 0, np.zeros(1, np.bool_)
    else:
        table = trimmed(tables.table, distance)
        order = dfa.breadth_first(table, tables.start)
        table, accepting = _renumbered(table, order), tables.accepting[order]
        known = np.stack([distance[order], _to_rejection(table, accepting)], axis=1)
        blocks, members = _refined(table, known)
        table, start, accepting = np.append(blocks, np.int32(-1))[table[members]], int(blocks[0]), accepting[members]
    classes, table = _merged_columns(tables.classes, table, separate)
    order = dfa.breadth_first(table, start)
    return Tables(classes, _renumbered(table, order), 0, accepting[order])


def _renumbered(table: I32, order: I32) -> I32:
    """The table of the states in an order; those that are not in it are gone."""
    places = np.full(len(table) + 1, -1, np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[table[order]]


def _to_rejection(table: I32, accepting: Bools) -> I32:
    """(Q,) the fewest symbols from each state to one that accepts not or, on some symbol that leads anywhere at all, goes on not."""
    live = (table >= 0).any(0)
    return dfa.distances(table, ~accepting | (table[:, live] < 0).any(1), UNREACHABLE)


def _refined(table: I32, known: I32) -> tuple[I32, I32]:
    """The coarsest partition of the states by language: block numbers (Q,), and a member of each block.

    Moore's refinement. It starts from what is `known` (Q, K) of the states, the distances to acceptance and to rejection, which
    equivalent states share: so counters take few rounds, those from below and those from above.
    """
    blocks, members = dfa.group(known)
    while True:
        rows = np.concatenate([blocks[:, None], np.append(blocks, np.int32(-1))[table]], axis=1)
        count = len(members)
        blocks, members = dfa.group(rows)
        if len(members) == count:
            return blocks, members


def joint(classes: Sequence[NDArray[Any]]) -> tuple[I32, I32]:
    """The coarsest partition that refines several partitions (V,) of one set.

    Returns:
        The group of each member (V,), numbered in order of appearance, and the first member of each group.

    Example:
        >>> joint([np.array([7, 7, 3, 7]), np.array([0, 1, 1, 0])])
        (array([0, 1, 2, 0], dtype=int32), array([0, 1, 2], dtype=int32))
    """
    return dfa.group(np.stack(classes, axis=1).astype(np.int32))


def _merged_columns(classes: I32, table: I32, separate: Bools | None) -> tuple[I32, I32]:
    """Classes with equal columns are one; columns that no symbol has are gone."""
    columns, _ = dfa.group(np.ascontiguousarray(table.T))
    keys, first = joint([columns[classes]] if separate is None else [columns[classes], separate])
    return keys, np.ascontiguousarray(table[:, classes[first]])
