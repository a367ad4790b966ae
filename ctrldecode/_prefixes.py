"""States and statistics found by the content of a token prefix: a bounded store, and a ledger.

It knows of potentials only that a state can be stepped, indexed and joined; it knows nothing of scores or of `generate`.

A prefix is named by a digest of its ids, of the block of the row (which of several constraints it has) and of the generation
it belongs to, since the same ids behind a longer prompt are another state.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ctrldecode.core.potential import cat, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctrldecode.core.potential import Potential

__all__ = ["Ledger", "PrefixStore", "prefix_keys", "state_bytes"]

# 128 bits: among 2^40 prefixes, a chance of 2^-49 that any two collide.
DIGEST_BYTES = 16
# Deep enough for the cache of a class LM in a product in per_row in a product. Deeper nesting (a parser's linked stack) is shared
# between rows, so that following it would count it many times over, and cost more than it tells.
DEPTH = 8
# Reached at a time where only the last is wanted: each may hold logits over the vocabulary.
MOST_STATES = 64
# Python objects are not measured; this is the order of magnitude of one small tuple.
OBJECT_BYTES = 64


def prefix_keys(row: NDArray[np.int64], start: int, salt: bytes) -> list[bytes]:
    """Digests of row[:start], row[:start + 1], ..., row, in that order.

    Args:
        row: (L,) token ids.
        start: length of the shortest prefix, at most L.
        salt: at most 16 bytes that name the generation and the block.

    Example:
        >>> keys = prefix_keys(np.array([5, 6, 7]), 1, b"")
        >>> len(keys), keys[1] == prefix_keys(np.array([5, 6]), 2, b"")[0]
        (3, True)
    """
    data = row.astype("<i8", copy=False).tobytes()
    digest = hashlib.blake2b(data[: 8 * start], digest_size=DIGEST_BYTES, salt=salt)
    keys = [digest.digest()]
    for position in range(start, len(row)):
        digest.update(data[8 * position : 8 * position + 8])
        keys.append(digest.digest())
    return keys


class Place(NamedTuple):
    """Where a row's state is: the number of a batch in the store, and the row in it."""

    batch: int
    row: int


class _Batch(NamedTuple):
    state: Any
    keys: tuple[bytes, ...]
    size: int  # bytes


class PrefixStore:
    """Batch states by prefix, least recently used first out; the newest batch, the anchor and pinned ones stay.

    Args:
        max_bytes: bound on the sum of the states' tensors; pinned ones are not counted.
        max_batches: bound on the number of states, for those whose size cannot be measured (Python objects).
    """

    def __init__(self, max_bytes: int, max_batches: int) -> None:
        self.max_bytes = max_bytes
        self.max_batches = max_batches
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._pinned: dict[int, _Batch] = {}
        self._places: dict[bytes, Place] = {}
        self._bytes = 0
        self._serial = 0
        self._anchor = 0

    def __len__(self) -> int:
        return len(self._batches) + len(self._pinned)

    def holds(self, states: int, size: int) -> bool:
        """Whether so many more states of `size` bytes each can be kept at a time."""
        return states <= self.max_batches and states * size <= self.max_bytes

    def put(self, keys: Sequence[bytes], state: Any, *, pinned: bool = False) -> int:
        """Keep a state, one key a row; returns the number of the batch."""
        self._serial += 1
        batch = _Batch(state, tuple(keys), state_bytes(state))
        for row, key in enumerate(keys):
            self._places[key] = Place(self._serial, row)
        if pinned:
            self._pinned[self._serial] = batch
        else:
            self._batches[self._serial] = batch
            self._bytes += batch.size
            self._evict()
        return self._serial

    def unpin(self, number: int) -> None:
        """Forget a pinned batch."""
        self._forget(number, self._pinned.pop(number))

    def anchor(self, number: int) -> None:
        """Keep a batch, in place of the last one that was named here: states that were evicted are stepped from it again."""
        self._anchor = number

    def find(self, key: bytes) -> Place | None:
        """Where the state after a prefix is, or None."""
        return self._places.get(key)

    def gather(self, places: Sequence[Place]) -> Any:
        """One state with the rows at the places, in order; no copy if that is a batch as it was put."""
        rows: dict[int, list[int]] = {}  # batch -> rows of it, in order of first use
        for place in places:
            rows.setdefault(place.batch, []).append(place.row)
        if len(rows) == 1:
            (number,) = rows
            return self._rows(number, rows[number])
        parts = cat([self._rows(number, wanted) for number, wanted in rows.items()])
        order = [index for number in rows for index, place in enumerate(places) if place.batch == number]
        return take(parts, np.argsort(order).tolist())

    def replay(self, potential: Potential[Any], ids: Tensor, keys: Sequence[Sequence[bytes]]) -> Any:
        """State of every row at the full length, each from its longest stored prefix, stepped together.

        Args:
            potential: what steps the states.
            ids: (B, L) token ids.
            keys: per row, the digests of its prefixes from the prompt to L; that of the prompt is stored.
        """
        length = ids.shape[1]
        starts: dict[int, list[tuple[int, Place]]] = {}  # length of the prefix -> rows that start there
        for row, own in enumerate(keys):
            back, place = next((i, p) for i, key in enumerate(reversed(own)) if (p := self.find(key)) is not None)
            starts.setdefault(length - back, []).append((row, place))
        state: Any = None
        order: list[int] = []
        for at in range(min(starts), length + 1):
            fresh = starts.get(at, [])
            if fresh:
                part = self.gather([place for _, place in fresh])
                state = part if not order else cat([state, part])
                order += [row for row, _ in fresh]
            if at == length:
                break
            if potential.parallel and len(order) == len(ids):
                for piece in ids[order, at:].split(MOST_STATES, dim=1):
                    state = potential.step_all(state, piece)[-1]
                break
            state = potential.step(state, ids[order, at])
        return take(state, np.argsort(order).tolist())

    def _rows(self, number: int, rows: list[int]) -> Any:
        if number in self._batches:
            self._batches.move_to_end(number)
        batch = self._pinned.get(number) or self._batches[number]
        return batch.state if rows == list(range(len(batch.keys))) else take(batch.state, rows)

    def _evict(self) -> None:
        for number in [number for number in self._batches if number not in (self._anchor, self._serial)]:
            if self._bytes <= self.max_bytes and len(self._batches) <= self.max_batches:
                return
            batch = self._batches.pop(number)
            self._bytes -= batch.size
            self._forget(number, batch)

    def _forget(self, number: int, batch: _Batch) -> None:
        for key in batch.keys:
            place = self._places.get(key)
            if place is not None and place.batch == number:
                del self._places[key]


class Ledger:
    """A row of numbers for every prefix that was seen, first in, first out; what is written again is new again.

    Args:
        max_entries: how many prefixes are kept.
    """

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._entries: OrderedDict[bytes, tuple[NDArray[np.float64], int]] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def put(self, keys: Sequence[bytes], values: NDArray[np.float64]) -> None:
        """Keep values (B, n), one key a row."""
        for row, key in enumerate(keys):
            self._entries[key] = (values, row)
            self._entries.move_to_end(key)
        while len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)

    def get(self, key: bytes) -> NDArray[np.float64] | None:
        """The numbers (n,) of a prefix, or None if it was not seen or is forgotten."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0][entry[1]]


def state_bytes(state: Any, depth: int = DEPTH) -> int:
    """Bytes of the tensors and arrays of a state, and a guess for its Python objects."""
    if isinstance(state, Tensor | np.ndarray):
        return int(state.nbytes)
    if depth == 0 or isinstance(state, int | float | str | bytes | None):
        return OBJECT_BYTES
    if isinstance(state, tuple | list):
        return OBJECT_BYTES + sum(state_bytes(item, depth - 1) for item in state)
    if dataclasses.is_dataclass(state):
        return OBJECT_BYTES + sum(
            state_bytes(getattr(state, field.name), depth - 1) for field in dataclasses.fields(state)
        )
    return OBJECT_BYTES
