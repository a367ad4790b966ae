"""Packs token lists into rows of one length, so that a batch has hardly any padding; knows no text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

__all__ = ["PADDING", "pack", "rows_of"]

PADDING = -1
"""Marks places of a row that hold no token."""

_OPEN_ROWS = 64
"""Rows kept open for a document that fits: enough to fill rows to about 98%, few enough to look through."""

_NO_BEGIN_SHARE = 0.3
"""Share of rows whose first document lacks its begin token, so that a bare prompt is no surprise to the model."""


def pack(documents: Iterable[Sequence[int]], length: int) -> list[list[int]]:
    """Whole documents joined to rows of at most `length` tokens, each into the fullest open row it fits.

    A document longer than `length` is cut to its first `length` tokens.
    """
    closed: list[list[int]] = []
    open_rows: list[list[int]] = []
    for document in documents:
        fitting = [row for row in open_rows if len(row) + len(document) <= length]
        if fitting:
            max(fitting, key=len).extend(document)
            continue
        if len(open_rows) == _OPEN_ROWS:
            fullest = max(range(_OPEN_ROWS), key=lambda place: len(open_rows[place]))
            closed.append(open_rows.pop(fullest))
        open_rows.append(list(document[:length]))
    return closed + open_rows


def rows_of(documents: Sequence[Sequence[int]], end: int, length: int, rng: random.Random) -> np.ndarray:
    """Rows `end doc end doc end ...` of exactly `length` int64 tokens, padded with `PADDING`, in random order.

    One `end` both ends a document and begins the next. Some rows lack the leading one.
    """
    packed = pack([[*document, end] for document in documents], length - 1)
    rng.shuffle(packed)
    rows = np.full((len(packed), length), PADDING, dtype=np.int64)
    for place, row in enumerate(packed):
        begun = row if rng.random() < _NO_BEGIN_SHARE else [end, *row]
        rows[place, : len(begun)] = begun
    return rows
