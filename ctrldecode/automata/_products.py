"""Boolean combinations and concatenation of automata as arrays; never a table over all symbols, only over joint classes.

A product is explored from its start, so that only what can be reached is built, and stops at a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata._tables import Tables, joint
from ctrldecode.errors import AutomatonLimitError
from ctrldecode.kernels.tokens import dfa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.automata._tables import I32, Bools

__all__ = ["LIMIT", "complement", "concatenation", "intersection", "union"]

# Entries of one transition table (states × classes), 4 bytes each: 64 MiB, and about ten times that while it is made minimal.
LIMIT = 1 << 24


def complement(tables: Tables, text: Bools) -> Tables:
    """Every string of text symbols that is not accepted.

    Args:
        tables: the automaton.
        text: (V,) bool, the symbols of which strings consist; they share no column with others.
    """
    reads = np.zeros(tables.table.shape[1], np.bool_)
    reads[tables.classes] = text
    states = len(tables.table)
    total = np.append(tables.table, np.full((1, tables.table.shape[1]), -1, np.int32), axis=0)
    total[(total < 0) & reads] = states
    return Tables(tables.classes, total, tables.start, ~np.append(tables.accepting, False))


def intersection(first: Tables, second: Tables, limit: int) -> Tables:
    """The strings that both accept."""
    return _product(first, second, limit, both=True)


def union(first: Tables, second: Tables, limit: int) -> Tables:
    """The strings that either accepts."""
    return _product(first, second, limit, both=False)


def _product(first: Tables, second: Tables, limit: int, *, both: bool) -> Tables:
    classes, members = joint([first.classes, second.classes])
    one, two = first.classes[members], second.classes[members]
    pairs, table = dfa.product(
        first.table, second.table, one, two, first.start, second.start, both, max(1, limit // len(members))
    )
    if not len(pairs):
        raise _too_large(limit, len(members))
    accepts = np.append(first.accepting, False)[pairs[:, 0]], np.append(second.accepting, False)[pairs[:, 1]]
    return Tables(classes, table, 0, accepts[0] & accepts[1] if both else accepts[0] | accepts[1])


def _too_large(limit: int, width: int) -> AutomatonLimitError:
    return AutomatonLimitError(
        f"the combined automaton needs more than limit={limit} table entries ({max(1, limit // width)} states × {width} classes); "
        "use fewer or shorter conditions, or call intersection, union or concatenation with a larger limit (4 bytes an entry)"
    )


def concatenation(first: Tables, second: Tables, limit: int) -> Tables:
    """A string of the first followed by one of the second: subset construction, since the border is not known in advance."""
    classes, members = joint([first.classes, second.classes])
    one, two = first.table[:, first.classes[members]], second.table[:, second.classes[members]]
    most = max(1, limit // len(members))

    def entered(state: int, inner: frozenset[int]) -> tuple[int, frozenset[int]]:
        opens = state >= 0 and bool(first.accepting[state])
        return state, inner | {second.start} if opens else inner

    keys = [entered(first.start, frozenset())]
    index = {keys[0]: 0}
    rows: list[I32] = []
    while len(rows) < len(keys):
        state, inner = keys[len(rows)]
        row = np.empty(len(members), np.int32)
        for (head, *tails), columns in _distinct_columns(_rows(one, two, state, inner)):
            key = entered(head, frozenset(tails) - {-1})
            found = -1
            if head >= 0 or key[1]:
                found = index.setdefault(key, len(keys))
            if found == len(keys):
                keys.append(key)
                if len(keys) > most:
                    raise _too_large(limit, len(members))
            row[columns] = found
        rows.append(row)
    accepting = np.array([bool(second.accepting[list(inner)].any()) for _, inner in keys], np.bool_)
    return Tables(classes, np.stack(rows), 0, accepting)


def _rows(one: I32, two: I32, state: int, inner: frozenset[int]) -> I32:
    """(1 + n, C): where the state of the first, and each one of the second, lead."""
    head = one[state] if state >= 0 else np.full(one.shape[1], -1, np.int32)
    return np.concatenate([head[None], two[sorted(inner)]])


def _distinct_columns(rows: I32) -> list[tuple[list[int], NDArray[np.int64]]]:
    """The distinct columns of a matrix, and where each stands."""
    distinct, inverse = np.unique(rows, axis=1, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    cuts = np.cumsum(np.bincount(inverse.reshape(-1)))[:-1]
    return list(zip(distinct.T.tolist(), np.split(order, cuts), strict=True))
