"""Tuples of arrays whose holders are not counted, for kernels that hand them from function to function.

numba counts who holds an array, by an atomic addition and another for each array of a tuple that a function gets; where functions are
short, that is most of their time. Arguments of a kernel are held by its caller as long as it runs, so nobody needs to count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["borrowed"]

T = TypeVar("T", bound=tuple[Any, ...])


def borrowed(arrays: T) -> T:
    """The same tuple, its arrays uncounted within a kernel: for arguments, not for what the kernel has made."""
    return arrays


@overload(borrowed)
def _borrowed(arrays: T) -> Callable[[T], T]:  # noqa: ARG001  numba reads the name
    def call(arrays: T) -> T:
        return _uncounted(arrays)  # pyright: ignore[reportCallIssue]  an intrinsic is called without its first argument

    return call


@intrinsic
def _uncounted(_: Any, arrays: Any) -> Any:
    """The tuple with arrays that have no `meminfo`, the place where numba counts; what else it holds must be numbers."""
    if not all(isinstance(kind, types.Array | types.Number | types.Boolean) for kind in arrays):
        raise TypingError(f"arrays and numbers can be borrowed, not {arrays}")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts: list[Any] = []
        for i, kind in enumerate(signature.return_type):
            part: Any = builder.extract_value(arguments[0], i)
            if isinstance(kind, types.Array):
                array: Any = make_array(kind)(context, builder, part)
                array.meminfo = context.get_constant_null(types.MemInfoPointer(types.voidptr))
                array.parent = context.get_constant_null(types.pyobject)
                part = array._getvalue()  # noqa: SLF001  numba's own way to read what it wraps
            parts.append(part)
        return context.make_tuple(builder, signature.return_type, parts)

    return arrays(arrays), generate
