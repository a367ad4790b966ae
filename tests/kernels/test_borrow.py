"""Borrowed tuples are the same arrays, found by their addresses, and nobody's count of holders is changed."""

from __future__ import annotations

import copy
import sys
from typing import NamedTuple

import numba
import numpy as np
import pytest

from ctrldecode.kernels._borrow import Count, Flags, Lender, Line, Table, borrowed


class Room(NamedTuple):
    counts: Count
    table: Table
    depth: int
    flags: Flags


class Other(NamedTuple):
    line: Line


@numba.njit  # not kept on disk, since numba does not see when another file changes
def fill(lent, times):
    room, other = borrowed(lent, 1, Room), borrowed(lent, 0, Other)
    for _ in range(times):
        mine = borrowed(lent, 1, Room)
        mine.counts[0] += mine.depth
        mine.table[1] += mine.counts
        mine.flags[0] = not mine.flags[0]
    return room.table.sum() + other.line[-1] + len(other.line) * 1000


def made() -> Room:
    return Room(np.zeros(3, np.int64), np.zeros((2, 3), np.int32), 7, np.zeros(2, np.bool_))


def test_it_writes_where_the_arrays_are():
    room, other = made(), Other(np.array([1, 2], np.int32))
    lender = Lender(Other, Room)
    lent = lender.lend(other, room)
    holders = [sys.getrefcount(array) for array in (room.counts, room.table, room.flags, other.line)]
    assert fill(lent, 3) == 7 + 14 + 21 + 2 + 2000
    assert room.counts.tolist() == [21, 0, 0]
    assert room.table.tolist() == [[0, 0, 0], [42, 0, 0]]
    assert room.flags.tolist() == [True, False]
    assert [sys.getrefcount(array) for array in (room.counts, room.table, room.flags, other.line)] == holders


def test_a_tuple_that_is_another_takes_the_place_of_the_first():
    lender, room = Lender(Other, Room), made()
    lender.lend(Other(np.array([1, 2], np.int32)), room)
    assert fill(lender.lend(Other(np.array([1, 2, 3], np.int32)), room), 0) == 3003
    assert fill(lender.lend(Other(np.array([4], np.int32)), made()._replace(depth=1)), 1) == 1 + 4 + 1000


def test_a_copy_has_lent_nothing():
    """Else it would write into the arrays of the first."""
    lender, room, other = Lender(Other, Room), made(), Other(np.array([1], np.int32))
    lender.lend(other, room)
    copied, theirs, mine = copy.deepcopy((lender, room, other))
    assert fill(copied.lend(mine, theirs), 1) == 7 + 1 + 1000
    assert room.counts.tolist() == [0, 0, 0]
    assert theirs.counts.tolist() == [7, 0, 0]


def test_in_python_it_is_the_same():
    room, other = made(), Other(np.zeros(0, np.int32))
    found = borrowed(Lender(Other, Room).lend(other, room), 1, Room)
    found.table[1, 2] = 5
    found.flags[1] = True
    assert room.table.tolist() == [[0, 0, 0], [0, 0, 5]]
    assert room.flags.tolist() == [False, True]
    assert found.depth == 7
    assert len(found.counts) == 3


@pytest.mark.parametrize(
    "line",
    [np.zeros(2, np.int64), np.zeros((2, 2), np.int32), np.zeros(4, np.int32)[::2]],
    ids=["type", "shape", "steps"],
)
def test_what_is_not_as_declared_is_refused(line):
    with pytest.raises(TypeError, match="a kernel borrows arrays of 1 dimensions of int32"):
        Lender(Other).lend(Other(line))


def test_what_is_refused_changes_nothing():
    """Else the table would have addresses of arrays that nobody holds."""
    lender, room, other = Lender(Other, Room), made(), Other(np.array([1, 2], np.int32))
    lender.lend(other, room)
    with pytest.raises(TypeError, match="contiguous"):
        lender.lend(Other(np.array([3], np.int32)), room._replace(counts=np.zeros(6, np.int64)[::2]))
    assert fill(lender.lend(other, room), 0) == 2 + 2000
