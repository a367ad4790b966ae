"""numba with the on-disk cache, a word on stderr when a compilation takes a while, and Ctrl-C after it, not within.

Python's signal handlers also run inside callbacks of the compiler, where an exception is lost and leaves a kernel half-made.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["jit"]

F = TypeVar("F", bound="Callable[..., Any]")

# The first kernel read from the cache takes 0.4 s, since numba starts up; the first one compiled takes well over a second.
# Past this delay it is a compilation, or a machine so busy that a word is welcome all the same.
_NOTICE_AFTER_SECONDS = 0.8

_DELAYED = (signal.SIGINT, signal.SIGTERM)


def jit(function: F) -> F:
    """Compile with numba on first use, cached on disk; says so on stderr if that takes noticeable time.

    Sums may be reordered, so that they use vector registers; nothing else of the arithmetic is loosened.
    """
    dispatcher: Any = numba.njit(cache=True, nogil=True, fastmath={"reassoc"})(function)
    compile_ = dispatcher.compile  # asked by the dispatcher for every new signature

    def undisturbed(signature: Any) -> Any:
        with _noticed(), _signals_delayed():
            return compile_(signature)

    dispatcher.compile = undisturbed
    return dispatcher


@contextmanager
def _noticed() -> Generator[None]:
    notice = threading.Timer(_NOTICE_AFTER_SECONDS, _say)
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


@contextmanager
def _signals_delayed() -> Generator[None]:
    """Signals that have a handler in Python come after the block; handlers run in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    for number in _DELAYED:
        handler = signal.getsignal(number)
        if callable(handler):  # not the system's own, nor one that was set outside Python
            before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@cache  # once a process
def _say() -> None:
    sys.stderr.write(
        "ctrldecode: preparing kernels (compiled once for this machine, later read from the cache on disk) ...\n"
    )
