"""Compiled walks for token automata: next states of every token, and products of two automata.

Arrays in, arrays out: no tokenizer and no condition on text is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba.extending import register_jitable

from ctrldecode.kernels._jit import jit
from ctrldecode.kernels.tokens.trie import BYTE, DEPTH, FIRST, SKIP

if TYPE_CHECKING:
    from ctrldecode.kernels.tokens.trie import I32, U8

__all__ = ["lift", "product", "spelled"]


@jit
def lift(trie: I32, ids: I32, longest: int, delta: I32, starts: I32, out: I32) -> None:
    """The states in which a byte automaton is after each whole token, from several states in one walk of the trie.

    Args:
        trie: the table of a `Trie`.
        ids: its token ids.
        longest: its greatest depth.
        delta: (Q, 256) int32 next states, −1 for none.
        starts: (N,) the states before a token.
        out: (N, V) int32, filled at the ids of the trie's tokens and left alone elsewhere.
    """
    count = len(starts)
    stack = np.empty((longest + 1, count), np.int32)
    stack[0] = starts
    for node in range(1, trie.shape[1] - 1):
        depth, byte = trie[DEPTH, node], trie[BYTE, node]
        for i in range(count):
            state = stack[depth - 1, i]
            stack[depth, i] = delta[state, byte] if state >= 0 else -1
        for t in range(trie[FIRST, node], trie[FIRST, node + 1]):
            for i in range(count):
                out[i, ids[t]] = stack[depth, i]


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


@jit
def spelled(trie: I32, data: U8, at: int) -> I32:
    """The nodes of a trie at which a token ends that stands in data (n,) uint8 from a place on, shortest first."""
    found = np.empty(len(data) - at, np.int32)
    count = 0
    node = 0
    while at < len(data):
        child, end = node + 1, trie[SKIP, node]
        while child < end and trie[BYTE, child] != data[at]:
            child = trie[SKIP, child]
        if child >= end:
            break
        node = child
        at += 1
        if trie[FIRST, node + 1] > trie[FIRST, node]:
            found[count] = node
            count += 1
    return found[:count]


@register_jitable
def _slot(slots: I32, pairs: I32, base: int, a: int, b: int) -> int:
    """Where the number of a pair stands, or would stand, in a table of open addresses whose length is a power of two."""
    code = ((a + 1) * base + b + 1) * 0x9E3779B1  # Fibonacci hashing (Knuth, volume 3, section 6.4)
    slot = ((code >> 16) ^ code) & (len(slots) - 1)
    while slots[slot] >= 0 and (pairs[slots[slot], 0] != a or pairs[slots[slot], 1] != b):
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@register_jitable
def _longer(array: I32, room: int) -> I32:
    grown = np.empty((room, array.shape[1]), np.int32)
    grown[: len(array)] = array
    return grown
