"""The compiled loop of a table's step over the edges, every term with a scale of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    I64 = NDArray[np.int64]

__all__ = ["gather"]


@jit
def gather(
    source: I64, target: I64, sums: F32, final: F32, future: F32, log_scale: F64, total: F32, log_total: F64
) -> None:
    """G_r of `table_step`, each row divided by its largest term in the state where that is largest.

    A product of two float32 cannot underflow in float64, and terms are compared by their logarithms.

    Args:
        source: (M,) int64, sorted.
        target: (M,) int64.
        sums: (M, H) float32.
        final: (Q, H) float32.
        future: (Q, H) float32, β_{r−1} up to its scale.
        log_scale: (Q,) float64.
        total: (Q, H) float32, written.
        log_total: (Q,) float64, written: the logarithm of what the row was divided by, −inf for a row of zeros.
    """
    count, states = final.shape
    row, largest = np.empty(states), np.zeros(len(source) + 1)
    first = 0
    for q in range(count):
        highest = np.float64(0)
        for h in range(states):
            highest = max(highest, np.float64(final[q, h]))
        reach = np.log(highest) if highest > 0 else -np.inf
        last = first
        while last < len(source) and source[last] == q:
            edge, beyond = sums[last], future[target[last]]
            most = np.float64(0)
            for h in range(states):
                most = max(most, np.float64(edge[h]) * np.float64(beyond[h]))
            largest[last] = most
            reach = max(reach, log_scale[target[last]] + np.log(most)) if most > 0 else reach
            last += 1
        log_total[q] = reach
        factor = np.exp(-reach) if highest > 0 else 0.0
        for h in range(states):
            row[h] = final[q, h] * factor
        for m in range(first, last):
            if largest[m] > 0 and reach > -np.inf:
                edge, beyond = sums[m], future[target[m]]
                factor = np.exp(log_scale[target[m]] - reach)
                for h in range(states):
                    row[h] += np.float64(edge[h]) * np.float64(beyond[h]) * factor
        for h in range(states):
            total[q, h] = row[h]
        first = last
