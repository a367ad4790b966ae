"""Indexing and joining of states: immutable records with the batch on axis 0.

A record is a tensor or array (batch on axis 0), a list (one item a row), None, `Groups` of rows of a record, or a tuple, named
tuple or frozen dataclass of records. It does not know what the records mean.
"""

from __future__ import annotations

import dataclasses
from functools import cache, singledispatch
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ctrldecode.errors import PotentialError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Groups", "align", "cat", "marks", "take", "written"]

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Groups(Generic[R]):
    """Rows of a record that belong together, `width` side by side: `take` and `cat` move whole groups.

    Example:
        >>> pairs = Groups((torch.tensor([1, 2, 3, 4]), ["a", "b", "c", "d"]), 2)
        >>> take(pairs, [1]).rows
        (tensor([3, 4]), ['c', 'd'])
    """

    rows: R
    width: int


# Written once: a union of types is made anew wherever it is evaluated, which adds up over the leaves of a cache.
_ARRAYS = (Tensor, np.ndarray)
_LEAVES = (*_ARRAYS, list, Groups)


def take(state: R, rows: Tensor | Sequence[int]) -> R:
    """The rows of a state by index, in order, repeats allowed: beams, SMC ancestors, branching.

    Example:
        >>> take((torch.tensor([10, 11, 12]), ["a", "b", "c"]), [2, 0, 0])
        (tensor([12, 10, 10]), ['c', 'a', 'a'])
    """
    index = torch.as_tensor(rows, dtype=torch.long)
    positions: list[int] = index.tolist()

    def leaf(items: list[Any]) -> Any:
        (item,) = items
        if isinstance(item, Tensor):
            return item.index_select(0, index.to(item.device))
        if isinstance(item, Groups):
            members = (index[:, None] * item.width + torch.arange(item.width)).flatten()
            return Groups(take(item.rows, members), item.width)
        return item[positions] if isinstance(item, np.ndarray) else [item[i] for i in positions]

    return _map(leaf, [state])


def cat(states: Sequence[R]) -> R:
    """One state with the rows of several, in order; all must have the same structure and trailing shapes.

    Example:
        >>> cat([(torch.tensor([1]), ["a"]), (torch.tensor([2, 3]), ["b", "c"])])
        (tensor([1, 2, 3]), ['a', 'b', 'c'])
    """

    def leaf(items: list[Any]) -> Any:
        if isinstance(items[0], Tensor):
            return torch.cat(items)
        if isinstance(items[0], Groups):
            return Groups(cat([item.rows for item in items]), items[0].width)
        return np.concatenate(items) if isinstance(items[0], np.ndarray) else [row for item in items for row in item]

    return states[0] if len(states) == 1 else _map(leaf, list(states), align)


@singledispatch
def align(first: Any, records: list[Any]) -> list[Any]:  # noqa: ARG001  dispatch is by the first argument
    """Records with trailing shapes that are equal, so that `cat` can join them.

    A state whose shapes depend on how it came about, such as a cache of keys and values, registers what to do for its class.
    """
    return records


def marks(state: Any) -> list[Any]:
    """What shows later whether a leaf was written to in place: the version of a tensor, a copy of an array, the items of a list."""
    found: list[Any] = []

    def leaf(items: list[Any]) -> Any:
        (item,) = items
        if isinstance(item, Tensor):
            found.append(0 if item.is_inference() else item._version)  # noqa: SLF001  autograd's counter of writes has no other name
        elif isinstance(item, Groups):
            found.extend(marks(item.rows))
        else:
            found.append(item.copy())
        return item

    _map(leaf, [state])
    return found


def written(before: list[Any], after: list[Any]) -> bool:
    """Whether a leaf was written to between two calls of `marks` on one state, be it with what stood there."""

    def differs(old: Any, new: Any) -> bool:
        if isinstance(old, np.ndarray):
            return old.tobytes() != new.tobytes()
        if isinstance(old, list):
            return len(old) != len(new) or any(a is not b for a, b in zip(old, new, strict=True))  # type: ignore[reportUnknownVariableType]
        return bool(old != new)

    return any(map(differs, before, after))


@cache
def _fields(kind: type[Any]) -> tuple[str, ...] | None:
    """Names of the fields of a dataclass; None of another class. Asking a class takes longer than reading its fields."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _map(leaf: Callable[[list[Any]], Any], records: list[Any], prepare: Callable[..., list[Any]] | None = None) -> Any:
    """Apply `leaf` to the corresponding leaves of records of one structure, each set of records prepared before."""
    first = records[0]
    records = records if prepare is None else prepare(first, records)
    if first is None:
        return None
    if isinstance(first, _LEAVES):
        return leaf(records)
    if isinstance(first, tuple):
        parts = [_map(leaf, list(column), prepare) for column in zip(*records, strict=True)]
        return tuple(parts) if type(first) is tuple else type(first)(*parts)  # named tuples take fields, not a tuple
    if (names := _fields(type(first))) is not None:
        return type(first)(
            **{name: _map(leaf, [getattr(record, name) for record in records], prepare) for name in names}
        )
    raise PotentialError(
        f"a state may hold tensors, arrays, lists, tuples and dataclasses with the batch on axis 0; got {type(first).__name__}"
    )
