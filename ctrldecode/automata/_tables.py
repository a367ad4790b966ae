"""Deterministic automata over classes of symbols as plain arrays: distances, trimming, minimisation, canonical order.

A transition table is (Q, C) int32, −1 where nothing is accepted any more; `classes` (V,) int32 maps a symbol to its column.
What the symbols are is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, dijkstra

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNREACHABLE", "Tables", "distances", "group", "joint", "minimal", "trimmed"]

I32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

# The distance from a state where no accepting one can be reached: large, and 2³⁰ can be added to without overflow.
UNREACHABLE = 1 << 30
# Random odd 64-bit numbers tell columns and rows apart; a collision costs a repetition, since the outcome is checked.
_SEED = 20260101


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
    found = np.full(len(table), UNREACHABLE, np.int32)
    sources = np.flatnonzero(accepting)
    if len(sources):
        far: NDArray[np.float64] = dijkstra(_edges(table).T, unweighted=True, indices=sources, min_only=True)
        near = np.isfinite(far)
        found[near] = far[near].astype(np.int32)
    return found


def _edges(table: I32) -> csr_matrix:
    """(Q, Q) adjacency."""
    rows, columns = np.nonzero(table >= 0)
    ones = np.ones(len(rows), np.int32)
    return csr_matrix((ones, (rows, table[rows, columns])), shape=(len(table), len(table)))


def trimmed(table: I32, distance: I32) -> I32:
    """The table with −1 wherever it led into, or out of, a state that can never accept."""
    alive = np.append(distance < UNREACHABLE, False)  # the last for −1
    return np.where(alive[table] & alive[:-1, None], table, np.int32(-1))


def minimal(tables: Tables, separate: Bools | None = None) -> Tables:
    """The least automaton of the same language: no dead, unreachable or equivalent states, no equal columns, canonical order.

    Moore's partition refinement, on hashes of rows; it starts from the distances to acceptance, which equivalent states
    share. Columns are ordered by their first symbol, states by breadth-first search, so equal languages give equal arrays.

    Args:
        tables: any automaton.
        separate: (V,) bool, symbols that never share a column with the others.
    """
    distance = distances(tables.table, tables.accepting)
    table = trimmed(tables.table, distance)
    if distance[tables.start] == UNREACHABLE:
        table, start, accepting = np.full((1, table.shape[1]), -1, np.int32), 0, np.zeros(1, np.bool_)
    else:
        order = _reachable(table, tables.start)
        table, accepting = _renumbered(table, order), tables.accepting[order]
        blocks = _refined(table, distance[order])
        _, first = np.unique(blocks, return_index=True)
        table, start, accepting = np.append(blocks, -1)[table[first]], int(blocks[0]), accepting[first]
    classes, table = _merged_columns(tables.classes, table.astype(np.int32), separate)
    order = _breadth_first(table, start)
    return Tables(classes, _renumbered(table, order), 0, accepting[order])


def _reachable(table: I32, start: int) -> NDArray[np.int64]:
    return np.asarray(breadth_first_order(_edges(table), start, return_predecessors=False), np.int64)


def _breadth_first(table: I32, start: int) -> NDArray[np.int64]:
    """All states, which must be reachable, by breadth-first search that takes columns in their order."""
    seen = np.zeros(len(table) + 1, np.bool_)
    seen[[start, -1]] = True
    order = [np.array([start])]
    while len(order[-1]):
        targets = table[order[-1]].reshape(-1)
        targets = targets[~seen[targets]]
        _, first = np.unique(targets, return_index=True)
        order.append(targets[np.sort(first)])
        seen[order[-1]] = True
    return np.concatenate(order)


def _renumbered(table: I32, order: NDArray[np.int64]) -> I32:
    places = np.full(len(table) + 1, -1, np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[table[order]]


def _refined(table: I32, distance: I32) -> NDArray[np.int64]:
    """The coarsest partition of the states by language, as block numbers (Q,)."""
    rng = np.random.default_rng(_SEED)
    blocks = np.unique(distance, return_inverse=True)[1].reshape(-1)
    while True:
        refined = _split(table, blocks, rng)
        if refined.max() == blocks.max():
            _, first = np.unique(blocks, return_index=True)
            padded = np.append(blocks, -1)
            if np.array_equal(padded[table], padded[table[first[blocks]]]):
                return blocks
        blocks = refined


def _split(table: I32, blocks: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Blocks told apart further by the blocks that their rows lead to."""
    names = _random(rng, int(blocks.max()) + 2)  # one a block, the last for −1
    weights = _random(rng, table.shape[1])
    hashes = names[np.append(blocks, -1)][table] @ weights + names[blocks] * _random(rng, 1)
    return np.unique(hashes, return_inverse=True)[1].reshape(-1)


def _random(rng: np.random.Generator, count: int) -> NDArray[np.uint64]:
    return rng.integers(0, 1 << 64, count, np.uint64) | np.uint64(1)


def group(columns: NDArray[np.integer]) -> tuple[I32, NDArray[np.int64]]:
    """Equal columns of a matrix (Q, N): the group of each (N,) int32, and the first member of each group, both in order.

    Example:
        >>> group(np.array([[1, 2, 1, 0], [1, 1, 1, 1]]))
        (array([0, 1, 0, 2], dtype=int32), array([0, 1, 3]))
    """
    rng = np.random.default_rng(_SEED)
    while True:
        weights = _random(rng, len(columns))
        hashes = np.zeros(columns.shape[1], np.uint64)
        for weight, row in zip(weights, columns, strict=True):
            hashes += weight * row.astype(np.uint64)
        groups, first = _in_order(hashes)
        if np.array_equal(columns, columns[:, first[groups]]):
            return groups, first


def _in_order(keys: NDArray[np.generic]) -> tuple[I32, NDArray[np.int64]]:
    """Groups of equal keys, numbered by their first members."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[inverse.reshape(-1)], first[order].astype(np.int64)


def joint(classes: Sequence[NDArray[np.integer]]) -> tuple[I32, NDArray[np.int64]]:
    """The coarsest partition that refines several partitions (V,) of one set; groups and first members as in `group`."""
    keys, first = _in_order(classes[0])
    for other in classes[1:]:
        keys, first = _in_order(keys.astype(np.int64) * (int(other.max(initial=0)) + 1) + other)
    return keys, first


def _merged_columns(classes: I32, table: I32, separate: Bools | None) -> tuple[I32, I32]:
    """Symbols by equal columns; columns that no symbol has are gone."""
    columns, _ = group(table)
    symbols = columns[classes]
    keys, first = joint([symbols] if separate is None else [symbols, separate.astype(np.int32)])
    return keys, np.ascontiguousarray(table[:, classes[first]])
