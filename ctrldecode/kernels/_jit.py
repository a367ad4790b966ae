"""numba with the on-disk cache, a word on stderr when a compilation takes a while, and Ctrl-C after it, not within.

Python's signal handlers also run inside callbacks of the compiler, where an exception is lost and leaves a kernel half-made.
"""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
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

_DELAYED = (signal.SIGTERM, signal.SIGINT)  # if both come, the exception of the first is the last that is raised


def jit(function: F) -> F:
    """Compile with numba on first use, cached on disk; says so on stderr if that takes noticeable time.

    Sums may be reordered, so that they use vector registers; nothing else of the arithmetic is loosened.
    """
    dispatcher: Any = numba.njit(cache=True, nogil=True, fastmath={"reassoc"})(function)
    if dispatcher is function:  # NUMBA_DISABLE_JIT, for debuggers and coverage
        return function
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
    with ExitStack() as afterwards:  # which goes on where a handler raises
        for number in _DELAYED:
            handler = signal.getsignal(number)
            if callable(handler):  # not the system's own, nor one that was set outside Python
                afterwards.enter_context(_delayed(number, handler))
        yield


@contextmanager
def _delayed(number: signal.Signals, handler: Callable[..., Any]) -> Generator[None]:
    came: list[int] = []
    try:
        signal.signal(number, lambda *_: came.append(number))
        yield
    finally:
        signal.signal(number, handler)
        # Called, not raised anew: the system has told an event loop of the signal already.
        for _ in came:
            handler(number, inspect.currentframe())


@cache  # once a process
def _say() -> None:
    sys.stderr.write(
        "ctrldecode: preparing kernels (compiled once for this machine, later read from the cache on disk) ...\n"
    )
