"""Shortest texts of an automaton over bytes; arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctrldecode.kernels._jit import jit

__all__ = ["spell"]

I32 = NDArray[np.int32]


@jit
def spell(delta: I32, start: int, count: int, bytes_: NDArray[np.uint8]) -> tuple[I32, I32, I32, NDArray[np.uint8]]:
    """Breadth-first search from a state.

    Args:
        delta: (n, 256) next states, −1 for none.
        start: the state.
        count: how many states there are.
        bytes_: the bytes that texts may be made of.

    Returns:
        The states that one byte or more lead to, nearest first; and for each state the length of the shortest text that leads there
        (0 where none does), the state before its last byte, and that byte.
    """
    order = np.empty(count, np.int32)
    length = np.zeros(count, np.int32)
    before = np.zeros(count, np.int32)
    last = np.zeros(count, np.uint8)
    found, done, here = 0, -1, start
    while done < found:
        distance = 0 if done < 0 else length[here]
        for byte in bytes_:
            state = delta[here, byte]
            if state >= 0 and length[state] == 0:
                length[state], before[state], last[state] = distance + 1, here, byte
                order[found] = state
                found += 1
        done += 1
        if done < found:
            here = order[done]
    return order[:found], length, before, last
