"""A trie of sampled prefixes with a bound at every node, as flat arrays: look-ups, insertion and update, in numba.

A node is a prefix at which the next-token distribution was seen. Arrays over nodes: `first` child and next `sibling` (int32, −1 for
none), `token` on the edge to it, `log_p` of that edge, `log_mass` M = Σ_v p̃(v), and `log_ratio` r. What is called p̃ is the model's
probability times the potential's weight. With r = 1 where nothing is known,

    r(x) = Σ_v p̃(v | x) r(x·v) = M(x) − Σ_{v explored} p̃(v | x) (1 − r(x·v)),

which is c(x) of ASAp (Park et al. 2024, eq. 7) in units of the potential's own value. Everything is kept as logs in float64:
log r near 0 holds 1 − r to full relative precision, and log r far below 0 holds r. It knows no tokens' meaning and no model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["children", "descend", "insert", "refresh"]

# log r is updated by differences, which lose up to this factor of r in precision; then the sum is taken anew.
_LOST = 8 * math.log(2)
# Below this 1 − r is summed, above it r: whichever is the smaller one is a sum of numbers of one sign.
_HALF = 0.5

_inline = numba.njit(cache=True, nogil=True, inline="never")


@_inline
def _child(first: NDArray[np.int32], sibling: NDArray[np.int32], token: NDArray[np.uint32], node: int, v: int) -> int:
    child = int(first[node])
    while child >= 0 and token[child] != v:
        child = int(sibling[child])
    return child


@jit
def children(first: NDArray[np.int32], sibling: NDArray[np.int32], node: int) -> NDArray[np.int32]:
    """The nodes below a node, (n,) int32."""
    count, child = 0, first[node]
    while child >= 0:
        count += 1
        child = sibling[child]
    found = np.empty(count, np.int32)
    child = first[node]
    for i in range(count):
        found[i] = child
        child = sibling[child]
    return found


@jit
def descend(
    first: NDArray[np.int32],
    sibling: NDArray[np.int32],
    token: NDArray[np.uint32],
    node: int,
    ids: NDArray[np.int64],
) -> NDArray[np.int32]:
    """The node at each prefix of the ids (n,), the empty one first: (n + 1,) int32, −1 where there is none."""
    found = np.full(len(ids) + 1, -1, np.int32)
    found[0] = node
    for i in range(len(ids)):
        if node < 0:
            break
        node = _child(first, sibling, token, node, ids[i])
        found[i + 1] = node
    return found


@_inline
def _log_add(a: Any, b: Any) -> float:
    top, low = max(a, b), min(a, b)
    return top if low == -np.inf else top + math.log1p(math.exp(low - top))


@_inline
def _sum(
    first: NDArray[np.int32],
    sibling: NDArray[np.int32],
    log_p: NDArray[np.float32],
    log_mass: NDArray[np.float64],
    log_ratio: NDArray[np.float64],
    node: int,
    log_rest: float,
) -> float:
    """log r of a node from its children; log_rest is the mass of what is not explored, NaN if that must be a difference."""
    missing, explored, known = -math.expm1(log_mass[node]), -np.inf, -np.inf
    child = first[node]
    while child >= 0:
        edge = np.float64(log_p[child])  # float() of a float32 stays one here
        missing -= math.exp(edge) * math.expm1(log_ratio[child])
        explored = _log_add(explored, edge)
        known = _log_add(known, edge + log_ratio[child])
        child = sibling[child]
    if missing < _HALF:
        return math.log1p(-missing)
    if math.isnan(log_rest):
        mass = log_mass[node]
        log_rest = mass + math.log1p(-math.exp(explored - mass)) if explored < mass else -np.inf
    return _log_add(known, log_rest)


@jit
def insert(
    first: NDArray[np.int32],
    sibling: NDArray[np.int32],
    token: NDArray[np.uint32],
    log_p: NDArray[np.float32],
    log_mass: NDArray[np.float64],
    log_ratio: NDArray[np.float64],
    used: int,
    root: int,
    ids: NDArray[np.int64],
    path_log_p: NDArray[np.float32],
    path_log_mass: NDArray[np.float64],
    path_log_rest: NDArray[np.float64],
    sound: bool,
) -> int:
    """Add the prefixes of a text and bring the ratios up to date, from the last one to the root: O(length).

    Args:
        first: of the arrays, with room for n + 1 more nodes; all are changed in place.
        sibling: of the arrays.
        token: of the arrays.
        log_p: of the arrays.
        log_mass: of the arrays.
        log_ratio: of the arrays.
        used: number of nodes in use.
        root: the node of the empty text; −1 for a new one, which then is node `used`.
        ids: (n,) tokens between the n + 1 prefixes that were seen; what came after the last one was a leaf of ratio 1.
        path_log_p: (n,) log p̃ of each of them.
        path_log_mass: (n + 1,) log M at each prefix.
        path_log_rest: (n + 1,) log p̃ of all tokens there that are neither explored nor the next of `ids`; NaN if not known.
        sound: whether r is an upper bound, which never rises.

    Returns:
        The number of nodes in use then.
    """
    count = len(ids)
    path = np.empty(count + 1, np.int32)
    node, new = root, count + 1  # how many of the path's nodes were there before
    for i in range(count + 1):
        if i > 0 and new > i:
            node = _child(first, sibling, token, path[i - 1], ids[i - 1])
        if new > i and node < 0:
            new = i
        if new <= i:
            node = used
            used += 1
            first[node], sibling[node], token[node], log_p[node] = -1, -1, 0, 0.0
            log_mass[node] = path_log_mass[i]
            # Probabilities in float32 add up to a little more than 1; the mass stays what edges are taken from.
            log_ratio[node] = min(path_log_mass[i], 0.0) if sound else path_log_mass[i]
            if i > 0:
                parent = path[i - 1]
                token[node], log_p[node] = ids[i - 1], path_log_p[i - 1]
                sibling[node], first[parent] = first[parent], node
        path[i] = node
    for i in range(count - 1, new - 1, -1):
        ratio = _sum(first, sibling, log_p, log_mass, log_ratio, path[i], path_log_rest[i])
        log_ratio[path[i]] = min(ratio, log_mass[path[i]], 0.0) if sound else ratio
    if new == 0 or new > count:
        return used
    before, after = 0.0, log_ratio[path[new]]
    for i in range(new - 1, -1, -1):
        node = path[i]
        old = log_ratio[node]
        if before == after or old == -np.inf:
            break
        change = math.exp(np.float64(log_p[path[i + 1]]) + before - old) * math.expm1(after - before)
        ratio = old + math.log1p(change) if change > -_HALF else -np.inf
        if change <= -_HALF or math.floor(ratio / _LOST) != math.floor(old / _LOST):
            ratio = _sum(first, sibling, log_p, log_mass, log_ratio, node, path_log_rest[i])
        before, after = old, min(ratio, old) if sound else ratio
        log_ratio[node] = after
    return used


@jit
def refresh(
    first: NDArray[np.int32],
    sibling: NDArray[np.int32],
    log_p: NDArray[np.float32],
    log_mass: NDArray[np.float64],
    log_ratio: NDArray[np.float64],
    nodes: NDArray[np.int32],
    sound: bool,
) -> None:
    """Take the sums of nodes anew, in the order given: children before their parents."""
    for i in range(len(nodes)):
        node = nodes[i]
        ratio = _sum(first, sibling, log_p, log_mass, log_ratio, node, np.nan)
        log_ratio[node] = min(ratio, log_ratio[node]) if sound else ratio
