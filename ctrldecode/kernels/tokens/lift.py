"""Compiled walks of the token trie for automata: next states of every token, tokens that stand in a text.

Arrays in, arrays out: no tokenizer and no condition on text is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.kernels._jit import jit
from ctrldecode.kernels.tokens.trie import BYTE, DEPTH, FIRST, SKIP

if TYPE_CHECKING:
    from ctrldecode.kernels.tokens.trie import I32, U8

__all__ = ["lift", "spelled"]


@jit
def lift(trie: I32, ids: I32, longest: int, delta: I32, starts: I32, size: int) -> I32:
    """The states in which a byte automaton is after each whole token, from several states in one walk of the trie.

    Args:
        trie: the table of a `Trie`.
        ids: its token ids.
        longest: its greatest depth.
        delta: (Q, 256) int32 next states, −1 for none.
        starts: (N,) the states before a token.
        size: V.

    Returns:
        (V, N) int32, −1 for ids that the trie does not have.
    """
    count = len(starts)
    found = np.full((size, count), -1, np.int32)
    stack = np.empty((longest + 1, count), np.int32)
    stack[0] = starts
    for node in range(1, trie.shape[1] - 1):
        depth, byte = trie[DEPTH, node], trie[BYTE, node]
        for i in range(count):
            state = stack[depth - 1, i]
            stack[depth, i] = delta[state, byte] if state >= 0 else -1
        for t in range(trie[FIRST, node], trie[FIRST, node + 1]):
            found[ids[t]] = stack[depth]
    return found


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
