"""Numbers of words and sentences as automata over bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctrldecode.automata._bytes import ByteDFA, byte_classes, explored

__all__ = ["CLOSERS", "TERMINATORS", "WHITE", "sentences", "words"]

WHITE = b" \t\n\r\v\f"  # what `bytes.split` splits at
TERMINATORS = ".!?…"
CLOSERS = "\"')]”’"  # may stand behind a terminator

# Where a text stands: before a word (and, if sentences are counted, before a sentence), in one, behind one that ends its
# sentence, or between two words of one sentence.
_BETWEEN, _INSIDE, _ENDED, _PAUSED = range(4)


class _Count(NamedTuple):
    """A number so far, where the text stands, and the bytes of a character that are read, as far as they matter."""

    done: int = 0
    where: int = _BETWEEN
    partial: bytes = b""


def words(low: int, high: int | None, limit: int) -> ByteDFA:
    """The texts with so many words: runs of bytes that are not white space."""

    def step(state: _Count, byte: int) -> _Count | None:
        if byte in WHITE:
            return _Count(state.done)
        return _counted(state.done, state.where == _BETWEEN, _INSIDE, low, high)

    def accepts(state: _Count) -> bool:
        return state.done >= low

    return explored(_Count(), step, accepts, byte_classes([_marked(WHITE)]), limit)


def sentences(low: int, high: int | None, limit: int) -> ByteDFA:
    """The texts of so many sentences, each ended by a word that ends in a terminator, closers behind it allowed."""
    ends = {character.encode() for character in TERMINATORS}
    kept = ends | {character.encode() for character in CLOSERS}  # what leaves a sentence ended
    partials = {form[:cut] for form in kept for cut in range(1, len(form))}

    def step(state: _Count, byte: int) -> _Count | None:
        if byte in WHITE:
            ended = state.where == _ENDED and not state.partial
            whole = ended or state.where == _BETWEEN
            return _counted(state.done, ended, _BETWEEN if whole else _PAUSED, low, high)
        read = state.partial + bytes([byte])
        where = _ENDED if state.where == _ENDED else _INSIDE
        if read in partials:
            return _Count(state.done, where, read)
        if read in ends or (read in kept and where == _ENDED):
            return _Count(state.done, _ENDED)
        if state.partial:  # another character than those that matter, or a broken one
            return step(_Count(state.done, _INSIDE), byte)
        return _Count(state.done, _INSIDE)

    def accepts(state: _Count) -> bool:
        ended = state.where == _ENDED and not state.partial
        whole = ended or state.where == _BETWEEN
        number = state.done + ended
        return whole and number >= low and (high is None or number <= high)

    return explored(
        _Count(), step, accepts, byte_classes([_marked(WHITE), _marked(b"".join(kept), distinct=True)]), limit
    )


def _counted(done: int, one_more: bool, where: int, low: int, high: int | None) -> _Count | None:
    """One more, or not; None past the upper bound, and no further than to the lower one where there is no upper."""
    number = done + one_more
    if high is None:
        return _Count(min(number, low), where)
    return _Count(number, where) if number <= high else None


def _marked(which: bytes, *, distinct: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """(256,) numbers that set the given bytes apart from the others, and if asked from one another."""
    found = np.zeros(256, np.int32)
    for byte in which:
        found[byte] = byte + 1 if distinct else 1
    return found
