"""Checks of what users give to a `TokenDFA`, with errors that say what was wanted."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["accepting", "eos", "ids", "start", "transitions"]


def transitions(given: ArrayLike) -> NDArray[np.int32]:
    """(Q, V) next states, −1 for none."""
    matrix = np.asarray(given)
    if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.integer):
        raise InputError(
            f"transitions must be a (Q, V) array of integers with at least one state and one token, got shape {matrix.shape} "
            f"of {matrix.dtype}"
        )
    if not -1 <= int(matrix.min()) <= int(matrix.max()) < len(matrix):
        row, token = np.argwhere((matrix < -1) | (matrix >= len(matrix)))[0]
        raise InputError(
            f"transitions[{row}, {token}] is {matrix[row, token]}, which is no state: wanted 0 to {len(matrix) - 1}, or −1 for none"
        )
    return matrix.astype(np.int32)


def start(given: object, states: int) -> int:
    """A state as a number."""
    if not isinstance(given, (int, np.integer)) or not 0 <= given < states:
        raise InputError(f"start must be a state, 0 to {states - 1}, got {given!r}")
    return int(given)


def accepting(given: ArrayLike, states: int) -> NDArray[np.bool_]:
    """(Q,) which states accept, from booleans or from their numbers."""
    array = np.asarray(given)
    if array.dtype == np.bool_ and array.shape == (states,):
        return array.copy()
    numbers = np.issubdtype(array.dtype, np.integer) or not array.size
    if array.ndim == 1 and numbers and bool(((array >= 0) & (array < states)).all()):
        return np.isin(np.arange(states), array)
    raise InputError(
        f"accepting must be ({states},) booleans or a list of states 0 to {states - 1}, got shape {array.shape} of {array.dtype}"
    )


def eos(given: Iterable[int] | int, size: int, vocabulary: Vocabulary | None) -> tuple[int, ...]:
    """The ends of sequence, sorted; a vocabulary must have the same."""
    try:
        ends = tuple(sorted({operator.index(token) for token in (given if isinstance(given, Iterable) else (given,))}))
    except TypeError as error:
        raise InputError(f"eos_token_ids must be token ids, got {given!r}") from error
    if not ends or ends[0] < 0 or ends[-1] >= size:
        raise InputError(f"eos_token_ids must be one or more ids 0 to {size - 1}, got {ends}")
    if vocabulary is not None and (vocabulary.size, vocabulary.eos_token_ids) != (size, ends):
        raise InputError(
            f"the vocabulary has {vocabulary.size} ids and ends of sequence {vocabulary.eos_token_ids}, the transitions {size} and "
            f"{ends}; give both the same"
        )
    return ends


def ids(given: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Token ids that are in range."""
    if given.size and not 0 <= int(given.min()) <= int(given.max()) < size:
        raise InputError(f"tokens must be ids 0 to {size - 1}, got {int(given.min())} to {int(given.max())}")
    return given
