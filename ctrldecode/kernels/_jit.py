"""numba with the on-disk cache, and a word on stderr when the first compilation takes a while."""

from __future__ import annotations

import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["jit"]

F = TypeVar("F", bound="Callable[..., Any]")

# Loading a kernel from the cache takes some 50 ms, compiling one takes seconds. Past this delay it is a compilation.
_NOTICE_AFTER_SECONDS = 1.5


def jit(function: F) -> F:
    """Compile with numba on first use, cached on disk; says so on stderr if that takes noticeable time."""
    compiled: Any = numba.njit(cache=True, nogil=True)(function)

    @wraps(function)
    def call(*args: Any) -> Any:
        if compiled.signatures:
            return compiled(*args)
        notice = threading.Timer(_NOTICE_AFTER_SECONDS, _say, [function.__name__])
        notice.daemon = True
        notice.start()
        try:
            return compiled(*args)
        finally:
            notice.cancel()

    return call  # type: ignore[return-value]


def _say(name: str) -> None:
    pass
