"""Long commands that can be gone on with: what is said when Ctrl-C, or a request of the system to end, stops them."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Terminated", "interruptible"]


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler, or the system, wants the process to end."""


@contextmanager
def interruptible(kept: Callable[[], str]) -> Generator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what it has open is closed, and say what can be gone on with.

    Processes of torchrun keep the system's way: where one waits for the others, no handler would be run.

    Args:
        kept: the message, asked for once the block was stopped.
    """
    ours = threading.current_thread() is threading.main_thread() and "RANK" not in os.environ
    before: Any = signal.signal(signal.SIGTERM, _terminate) if ours else None
    try:
        yield
    except KeyboardInterrupt as stop:
        raise type(stop)(kept()) from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated
