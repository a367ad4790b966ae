"""What Ctrl-C, or a request of the system to end, does to a command: what is open is closed, and no part of a file stays."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Terminated", "exiting", "heeding_signals", "interruptible", "losing_none"]

_SOON = 0.05  # seconds after which a signal that was lost, or must wait, comes again
_coming: set[int] = set()
_FRAGILE = ("torch",)  # what must not be interrupted while it is imported


class Terminated(BaseException):
    """SIGTERM: a scheduler, or the system, wants the process to end; unlike Ctrl-C, no command goes on with what it has."""


@contextmanager
def heeding_signals() -> Generator[None]:
    """Let SIGTERM raise `Terminated` in the block, as Ctrl-C raises KeyboardInterrupt; only the main thread hears signals.

    While torch is imported both wait: an exception in a callback of its compiled parts ends the process by SIGABRT, which one of 125
    interrupts of the first seconds met. Processes of torchrun keep the system's way: where one waits for the others, no
    handler would be run.
    """
    if threading.current_thread() is not threading.main_thread() or "RANK" in os.environ:
        yield
        return
    before: dict[int, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raise)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell, or a caller, wants it otherwise
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def losing_none() -> Generator[None]:
    """Let a signal come again whose exception was lost in the block.

    A handler runs wherever Python is, be it in a destructor or a callback, where an exception is only told on standard error. While
    transformers compiles its regular expressions, whose parts have destructors, two of 44 interrupts went that way.
    """
    before = sys.unraisablehook
    sys.unraisablehook = partial(_again, before)
    try:
        yield
    finally:
        sys.unraisablehook = before


def _again(default: Callable[[Any], object], lost: Any) -> None:
    number = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        default(lost)
    else:
        _send_later(number)


def _send_later(number: int) -> None:
    """Let a signal come again, once however often it came."""
    if number not in _coming:
        _coming.add(number)
        later = threading.Timer(_SOON, _send, (number,))
        later.daemon = True
        later.start()


def _send(number: int) -> None:
    _coming.discard(number)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


def exiting() -> None:
    """Let the process exit with the code that it gives after an interrupt that was dealt with.

    An interrupt within `exec` of a string, as of dataclasses, is noted by CPython as one that nobody dealt with: whatever code is
    given, `python -m` then kills itself by SIGINT. The next string that is run takes the note back (`run_eval_code_obj`).
    """
    exec("")  # noqa: S102 - it runs nothing


@contextmanager
def interruptible(kept: Callable[[], str]) -> Generator[None]:
    """A long command that can be gone on with: say so where it is interrupted.

    Args:
        kept: the message, asked for once the block was stopped.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)(kept()) from None


def _raise(number: int, *_: object) -> None:
    if any(_is_imported_now(name) for name in _FRAGILE):
        _send_later(number)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise Terminated


def _is_imported_now(name: str) -> bool:
    """By the mark that importlib sets on a module's spec, which has no public name."""
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)
