"""A lock that can be copied, for what learns while it is asked. It knows nothing of what it guards."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Lock"]


class Lock:
    """A re-entrant lock; a copy of it is another lock, which nobody holds."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = threading.RLock()

    def __enter__(self) -> None:
        self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[Any, ...]]:
        """Copies and pickles hold nothing."""
        return Lock, ()
