"""Deterministic automata over bytes, explored from a start by a step function; they do not know what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from ctrldecode.automata._tables import Tables, joint, minimal
from ctrldecode.errors import AutomatonLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

__all__ = ["LIMIT", "ByteDFA", "byte_classes", "explored"]

K = TypeVar("K", bound="Hashable")

# States over bytes, before tokens come in: each takes a walk of the token trie, about 0.3 ms at 50,000 tokens.
LIMIT = 20_000


class ByteDFA(NamedTuple):
    """A deterministic automaton over bytes.

    Attributes:
        delta: (Q, 256) int32, next states, −1 for none.
        start: the first state.
        accepting: (Q,) bool.
    """

    delta: NDArray[np.int32]
    start: int
    accepting: NDArray[np.bool_]


def byte_classes(columns: Sequence[NDArray[np.integer]]) -> tuple[NDArray[np.int32], list[int]]:
    """Bytes that no given column (256,) tells apart: the class of each (256,), and a member of each class."""
    classes, members = joint(columns)
    return classes, members.tolist()


def explored(
    start: K,
    step: Callable[[K, int], K | None],
    accepts: Callable[[K], bool],
    classes: tuple[NDArray[np.int32], list[int]],
    limit: int = LIMIT,
) -> ByteDFA:
    """The minimal automaton of all states that can be reached.

    Args:
        start: the first state.
        step: the state after a byte, None for none.
        accepts: whether a text may end in a state.
        classes: of bytes that act alike, as `byte_classes` gives them.
        limit: the number of states past which building stops.

    Raises:
        AutomatonLimitError: there are more.
    """
    index: dict[K, int] = {start: 0}
    keys = [start]
    rows: list[list[int]] = []
    while len(rows) < len(keys):
        row: list[int] = []
        for byte in classes[1]:
            after = step(keys[len(rows)], byte)
            if after is not None and after not in index:
                index[after] = len(keys)
                keys.append(after)
            row.append(-1 if after is None else index[after])
        rows.append(row)
        if len(keys) > limit:
            raise AutomatonLimitError(
                f"the condition needs more than limit={limit} states over bytes; shorten counted repeats, ask for fewer alternatives, "
                "or pass a larger limit"
            )
    accepting = np.array([accepts(key) for key in keys], np.bool_)
    found = minimal(Tables(classes[0], np.array(rows, np.int32), 0, accepting))
    return ByteDFA(found.table[:, found.classes], found.start, found.accepting)
