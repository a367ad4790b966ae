"""Borrowed tuples are the same arrays, and nobody's count of holders is changed."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from ctrldecode.kernels._borrow import borrowed


class Room(NamedTuple):
    counts: np.ndarray
    table: np.ndarray
    flags: np.ndarray
    depth: int


@numba.njit  # not kept on disk, since numba does not see when another file changes
def fill(room, times):
    room = borrowed(room)
    for _ in range(times):
        mine = borrowed(room)
        mine.counts[0] += mine.depth
        mine.table[1] += mine.counts
        mine.flags[0] = not mine.flags[0]
    return room.table.sum()


def test_it_writes_where_the_arguments_are():
    room = Room(np.zeros(3, np.int64), np.zeros((2, 3), np.int64), np.zeros(2, np.bool_), 7)
    holders = [sys.getrefcount(array) for array in room[:3]]
    assert fill(room, 3) == 7 + 14 + 21
    assert room.counts.tolist() == [21, 0, 0]
    assert room.table.tolist() == [[0, 0, 0], [42, 0, 0]]
    assert room.flags.tolist() == [True, False]
    assert [sys.getrefcount(array) for array in room[:3]] == holders


def test_in_python_it_is_the_tuple_itself():
    room = Room(np.zeros(1), np.zeros((1, 1)), np.zeros(1, np.bool_), 1)
    assert borrowed(room) is room


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_other_things_that_are_counted_are_refused():
    with pytest.raises(TypingError, match="arrays and numbers can be borrowed"):
        numba.njit(lambda: borrowed(([1, 2], 3)))()
