"""numba with the on-disk cache, and a word on stderr when the first compilation takes a while."""

from __future__ import annotations

import sys
import threading
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["jit"]

F = TypeVar("F", bound="Callable[..., Any]")

# The first kernel read from the cache takes 0.4 s, since numba starts up; the first one compiled takes well over a second.
# Past this delay it is a compilation, or a machine so busy that a word is welcome all the same.
_NOTICE_AFTER_SECONDS = 0.8


def jit(function: F) -> F:
    """Compile with numba on first use, cached on disk; says so on stderr if that takes noticeable time.

    Sums may be reordered, so that they use vector registers; nothing else of the arithmetic is loosened.
    """
    compiled: Any = numba.njit(cache=True, nogil=True, fastmath={"reassoc"})(function)
    called = False

    @wraps(function)
    def call(*args: Any) -> Any:
        nonlocal called
        if called:
            return compiled(*args)
        called = True
        notice = threading.Timer(_NOTICE_AFTER_SECONDS, _say)
        notice.daemon = True
        notice.start()
        try:
            return compiled(*args)
        finally:
            notice.cancel()

    return call  # type: ignore[return-value]


@cache  # once a process
def _say() -> None:
    sys.stderr.write(
        "ctrldecode: preparing kernels (compiled once for this machine, later read from the cache on disk) ...\n"
    )
