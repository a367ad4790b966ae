"""Tuples of arrays that kernels read from one table of addresses, and whose holders are not counted.

A kernel that is handed arrays takes them apart one by one, 0.14 µs each, which for the fifty of a grammar is as long as a mask takes. And numba
counts who holds an array, by an atomic addition and another for each array of a tuple that a function gets; where functions are
short, that is most of their time. The table's owner holds the arrays as long as the kernel runs, so nobody needs to count.
"""

from __future__ import annotations

import ctypes
from functools import cache
from itertools import accumulate
from operator import is_
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
from numba import from_dtype
from numba.core import cgutils, types
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Count", "Flags", "Lender", "Line", "Table", "borrowed"]

# What fields of tuples that are lent are declared as, beside `int`.
Line = Annotated[NDArray[np.int32], 1]
Table = Annotated[NDArray[np.int32], 2]
Flags = Annotated[NDArray[np.bool_], 1]
Count = Annotated[NDArray[np.int64], 1]

T = TypeVar("T", bound=tuple[Any, ...])
_I64 = NDArray[np.int64]


class _Field(NamedTuple):
    """How a field is declared; a number has no type."""

    dtype: np.dtype[Any] | None
    ndim: int


class Lender:
    """Keeps some tuples of arrays and a table of their addresses, as long as they are lent. A copy has lent nothing."""

    def __init__(self, *kinds: type[tuple[Any, ...]]) -> None:
        """Begin with none.

        Args:
            kinds: the named tuples, in the order of the table.
        """
        self._fields = [_fields(kind) for kind in kinds]
        self._kinds = kinds
        self._places = [0, *accumulate(map(len, self._fields))]
        self._held: Sequence[tuple[Any, ...] | None] = [None] * len(kinds)
        self._table = np.zeros((self._places[-1], 3), np.int64)

    def __reduce__(self) -> tuple[type[Lender], tuple[Any, ...]]:
        """Addresses are of this process and these arrays."""
        return Lender, self._kinds

    def lend(self, *tuples: tuple[Any, ...]) -> _I64:
        """The table (K, 3) for `borrowed`, valid until the next call: address and shape of each array; numbers as they are.

        Raises:
            TypeError: an array is not as it was declared, or its rows are not one after another in memory.
        """
        if all(map(is_, tuples, self._held)):
            return self._table
        new = [i for i, (one, held) in enumerate(zip(tuples, self._held, strict=True)) if one is not held]
        rows = [list(map(_row, self._fields[i], tuples[i])) for i in new]  # all, before any takes a place
        for i, own in zip(new, rows, strict=True):
            self._table[self._places[i] : self._places[i + 1]] = own
        self._held = tuples
        return self._table


def _row(field: _Field, value: Any) -> tuple[int, int, int]:
    if field.dtype is None:
        return int(value), 0, 0
    if value.dtype != field.dtype or value.ndim != field.ndim or not value.flags.c_contiguous:
        raise TypeError(
            f"a kernel borrows arrays of {field.ndim} dimensions of {field.dtype}, contiguous, got {value.ndim} of {value.dtype}; convert it"
        )
    return value.ctypes.data, value.shape[0], value.shape[1] if field.ndim > 1 else 1


@cache
def _fields(kind: type[tuple[Any, ...]]) -> list[_Field]:
    hints = get_type_hints(kind, include_extras=True)
    return [_Field(None, 0) if hint is int else _declared(*get_args(hint)) for hint in hints.values()]


def _declared(array: Any, ndim: int) -> _Field:
    return _Field(np.dtype(get_args(get_args(array)[1])[0]), ndim)


def borrowed(table: _I64, place: int, kind: type[T]) -> T:
    """A tuple that was lent, by the number of its first row; within a kernel its arrays are uncounted."""
    return kind(*map(_read, _fields(kind), table[place:].tolist()))


def _read(field: _Field, row: Sequence[int]) -> Any:
    if field.dtype is None:
        return row[0]
    shape = row[1 : 1 + field.ndim]
    memory = (ctypes.c_byte * (int(np.prod(shape)) * field.dtype.itemsize)).from_address(row[0])
    return np.ctypeslib.as_array(memory).view(field.dtype).reshape(shape)


@overload(borrowed)
def _borrowed(table: _I64, place: int, kind: type[T]) -> Callable[[_I64, int, type[T]], T]:  # noqa: ARG001  numba reads the names
    def call(table: _I64, place: int, kind: type[T]) -> T:
        return _uncounted(table, place, kind)  # pyright: ignore[reportCallIssue]  an intrinsic is called without its first argument

    return call


@intrinsic
def _uncounted(_: Any, table: Any, place: Any, kind: Any) -> Any:
    """The tuple with arrays that have no `meminfo`, the place where numba counts."""
    fields = _fields(kind.instance_class)
    parts = [types.int64 if f.dtype is None else types.Array(from_dtype(f.dtype), f.ndim, "C") for f in fields]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows: Any = make_array(table)(context, builder, arguments[0]).data
        first = builder.mul(builder.sext(arguments[1], cgutils.intp_t), cgutils.intp_t(3))
        made: list[Any] = []
        for i, part in enumerate(parts):
            address, *shape = (
                builder.load(builder.gep(rows, [builder.add(first, cgutils.intp_t(3 * i + j))])) for j in range(3)
            )
            made.append(_array(context, builder, part, address, shape) if isinstance(part, types.Array) else address)
        return context.make_tuple(builder, signature.return_type, made)

    return types.NamedTuple(parts, kind.instance_class)(table, place, kind), generate


def _array(context: Any, builder: Any, kind: Any, address: Any, shape: list[Any]) -> Any:
    array: Any = make_array(kind)(context, builder)
    data = context.get_data_type(kind.dtype)
    size = cgutils.intp_t(context.get_abi_sizeof(data))
    strides = [builder.mul(size, shape[1]), size] if kind.ndim > 1 else [size]
    populate_array(
        array,
        data=builder.inttoptr(address, data.as_pointer()),
        shape=shape[: kind.ndim],
        strides=strides,
        itemsize=size,
        meminfo=None,
    )
    return array._getvalue()  # noqa: SLF001  numba's own way to read what it wraps
