"""The fewest entries of highest value that hold a share of the weight: a weighted quantile, without sorting the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fewest"]


# A kernel called by another one must be numba's own object, not the wrapper that gives notice of compilation.
_inline = numba.njit(cache=True, nogil=True)


def fewest(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """The fewest entries of highest value whose weights add up to `share` of the row's; of equal values the first ones.

    Args:
        values: (B, V) float32, no NaN.
        weights: (B, V) float32 ≥ 0, on the same device.
        share: in (0, 1].

    Returns:
        (B, V) bool. All entries of a row whose weights are all 0.
    """
    if values.device.type != "cpu":
        return _sorted(values, weights, share)
    found = np.empty(values.shape, np.bool_)
    for row, (line, mass) in enumerate(zip(values.numpy(), weights.numpy(), strict=True)):
        found[row] = _select(np.ascontiguousarray(line), np.ascontiguousarray(mass), share)
    return torch.from_numpy(found)


def _sorted(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """By sorting: what GPUs are good at, and what the selection is tested against."""
    order = values.argsort(dim=-1, descending=True, stable=True)
    held = weights.double().gather(1, order).cumsum(-1)
    before = torch.nn.functional.pad(held, (1, 0))[:, :-1]
    wanted = share * held[:, -1:]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, (before < wanted) | (wanted == 0))


@_inline
def _pivot(values: Any, places: Any, count: int) -> Any:
    """The median of nine entries that lie evenly, or of all if there are fewer."""
    number = min(9, count)
    some = np.empty(number, np.float32)
    for at in range(number):
        some[at] = values[places[at * count // number]]
    some.sort()
    return some[number // 2]


@jit
def _select(values: NDArray[np.float32], weights: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """One row, by halving: entries above a pivot either hold what is wanted, and the others go, or are all taken.

    Every round keeps the order of the entries, so that ties are settled by it. Rounds look at half as many entries each, if
    the pivot is near the median, which the median of nine makes likely.
    """
    size = len(values)
    taken = np.zeros(size, np.bool_)
    total = 0.0
    for place in range(size):
        total += weights[place]
    left = share * total
    if left <= 0.0:
        taken[:] = True
        return taken
    places = np.arange(size)
    count = size
    higher = np.empty(size, np.int64)
    others = np.empty(size, np.int64)
    while count > 0:
        pivot = _pivot(values, places, count)
        held = 0.0
        above = below = 0
        for at in range(count):  # strictly above the pivot, and the rest
            place = places[at]
            up = values[place] > pivot
            higher[above] = place
            others[below] = place
            above += up
            below += not up
            held += weights[place] if up else np.float32(0.0)
        if held >= left:
            places, higher = higher, places
            count = above
            continue
        for at in range(above):
            taken[higher[at]] = True
        left -= held
        count = 0
        for at in range(below):  # those that equal the pivot, in order, while they are needed; then what is below it
            place = others[at]
            if values[place] < pivot:
                places[count] = place
                count += 1
            elif left > 0.0:
                taken[place] = True
                left -= weights[place]
        if left <= 0.0:
            break
    return taken
