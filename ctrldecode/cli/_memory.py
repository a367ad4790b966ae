"""Tells errors about memory from others: torch and the loader of libraries have no class of error for them."""

from __future__ import annotations

__all__ = ["is_of_memory"]

_TOLD = ("allocate memory", "out of memory", "failed to map segment", "Unable to allocate")


def is_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it came from or came amid, says that memory is short.

    Example:
        >>> is_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        True
    """
    if isinstance(error, MemoryError) or any(words in str(error) for words in _TOLD):
        return True
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return before is not None and is_of_memory(before)
