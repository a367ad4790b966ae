"""Compiled graph work of token automata: equal rows, products, distances, orders.

Arrays in, arrays out: a transition table is (Q, C) int32, −1 where nothing follows. What its columns stand for is not known
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba.extending import register_jitable

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.kernels.tokens.trie import I32

__all__ = ["breadth_first", "distances", "group", "product"]

# Multiplier of multiplicative hashing: 2³² over the golden ratio (Knuth, volume 3, section 6.4).
_GOLDEN = 0x9E3779B1


@jit
def group(rows: I32) -> tuple[I32, I32]:
    """Equal rows of a matrix (N, K): the group of each (N,), numbered in order of appearance, and each group's first row."""
    count, width = rows.shape
    room = 64
    while room < 2 * count:
        room *= 2
    slots = np.full(room, -1, np.int32)  # open addressing
    groups = np.empty(count, np.int32)
    members = np.empty(count, np.int32)
    found = 0
    for row in range(count):
        code = 0
        for k in range(width):
            code = (code ^ rows[row, k]) * _GOLDEN
            code ^= code >> 15
        slot = code & (room - 1)
        while slots[slot] >= 0 and not _equal(rows, row, int(members[slots[slot]])):
            slot = (slot + 1) & (room - 1)
        if slots[slot] < 0:
            slots[slot] = found
            members[found] = row
            found += 1
        groups[row] = slots[slot]
    return groups, members[:found].copy()


@register_jitable
def _equal(rows: I32, a: int, b: int) -> bool:
    for k in range(rows.shape[1]):  # noqa: SIM110  compiled
        if rows[a, k] != rows[b, k]:
            return False
    return True


@jit
def breadth_first(table: I32, start: int) -> I32:
    """All states that can be reached, by breadth-first search that takes columns in their order."""
    seen = np.zeros(len(table), np.bool_)
    order = np.empty(len(table), np.int32)
    seen[start] = True
    order[0] = start
    count, done = 1, 0
    while done < count:
        for target in table[order[done]]:
            if target >= 0 and not seen[target]:
                seen[target] = True
                order[count] = target
                count += 1
        done += 1
    return order[:count].copy()


@jit
def distances(table: I32, accepting: NDArray[np.bool_], unreachable: int) -> I32:
    """(Q,) the least number of steps from each state to an accepting one, `unreachable` where there is no way."""
    states = len(table)
    ends = np.zeros(states + 1, np.int64)  # of the sources of each state, cumulated below
    last = np.full(states, -1, np.int32)  # the last source counted of each state, so that parallel edges count once
    for source in range(states):
        for target in table[source]:
            if target >= 0 and last[target] != source:
                last[target] = source
                ends[target + 1] += 1
    ends = np.cumsum(ends)
    sources = np.empty(ends[states], np.int32)
    places = ends[:-1].copy()
    last[:] = -1
    for source in range(states):
        for target in table[source]:
            if target >= 0 and last[target] != source:
                last[target] = source
                sources[places[target]] = source
                places[target] += 1
    found = np.full(states, unreachable, np.int32)
    queue = np.empty(states, np.int32)
    count, done = 0, 0
    for state in range(states):
        if accepting[state]:
            found[state] = 0
            queue[count] = state
            count += 1
    while done < count:
        state = queue[done]
        done += 1
        for i in range(ends[state], ends[state + 1]):
            if found[sources[i]] == unreachable:
                found[sources[i]] = found[state] + 1
                queue[count] = sources[i]
                count += 1
    return found


@jit
def product(
    first: I32, second: I32, one: I32, two: I32, start_one: int, start_two: int, both: bool, limit: int
) -> tuple[I32, I32]:
    """The pairs of states of two automata that can be reached together, in breadth-first order.

    Args:
        first: (Q1, C1) int32 next states, −1 for none.
        second: (Q2, C2) likewise.
        one: (C,) the column of `first` for each joint class.
        two: (C,) that of `second`.
        start_one: the first automaton's start.
        start_two: the second's.
        both: whether a pair is dead as soon as one of its states is; else only when both are.
        limit: the number of pairs past which nothing is returned.

    Returns:
        pairs (Q, 2) int32 with −1 for a dead state, and table (Q, C) int32; both empty past the limit.
    """
    width = len(one)
    base = len(second) + 1
    room = 256
    pairs = np.empty((room, 2), np.int32)
    table = np.empty((room, width), np.int32)
    slots = np.full(4 * room, -1, np.int32)  # open addressing: where a pair's number stands
    pairs[0, 0], pairs[0, 1] = start_one, start_two
    count, done = 1, 0
    slots[_slot(slots, pairs, base, start_one, start_two)] = 0
    while done < count:
        a, b = int(pairs[done, 0]), int(pairs[done, 1])
        for c in range(width):
            x = int(first[a, one[c]]) if a >= 0 else -1
            y = int(second[b, two[c]]) if b >= 0 else -1
            if (x < 0 and y < 0) or (both and (x < 0 or y < 0)):
                table[done, c] = -1
                continue
            slot = _slot(slots, pairs, base, x, y)
            if slots[slot] < 0:
                if count == limit:
                    return pairs[:0].copy(), table[:0].copy()
                if count == room:
                    room *= 2
                    pairs, table = _longer(pairs, room), _longer(table, room)
                    slots = np.full(4 * room, -1, np.int32)
                    for known in range(count):
                        slots[_slot(slots, pairs, base, int(pairs[known, 0]), int(pairs[known, 1]))] = known
                    slot = _slot(slots, pairs, base, x, y)
                slots[slot] = count
                pairs[count, 0], pairs[count, 1] = x, y
                count += 1
            table[done, c] = slots[slot]
        done += 1
    return pairs[:count].copy(), table[:count].copy()


@register_jitable
def _slot(slots: I32, pairs: I32, base: int, a: int, b: int) -> int:
    """Where the number of a pair stands, or would stand, in a table of open addresses whose length is a power of two."""
    code = ((a + 1) * base + b + 1) * _GOLDEN
    slot = ((code >> 16) ^ code) & (len(slots) - 1)
    while slots[slot] >= 0 and (pairs[slots[slot], 0] != a or pairs[slots[slot], 1] != b):
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@register_jitable
def _longer(array: I32, room: int) -> I32:
    grown = np.empty((room, array.shape[1]), np.int32)
    grown[: len(array)] = array
    return grown
