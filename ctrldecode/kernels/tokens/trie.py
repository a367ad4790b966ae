"""The token trie as flat arrays in preorder, and the walk of a byte automaton over it.

Arrays in, arrays out: no tokenizer and no grammar is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrldecode.kernels._borrow import Line, Table  # noqa: TC001  read at run time
from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Trie", "build", "collect", "reach", "single_bytes", "walk"]

I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]


# Rows of a trie's table; one array, since every argument of a compiled function costs a microsecond a call.
BYTE, DEPTH, SKIP, FIRST = range(4)


class Trie(NamedTuple):
    """A trie of N nodes in preorder; node 0 is the root, the empty prefix.

    Attributes:
        table: (4, N + 1) int32. BYTE is the byte on the edge into a node, DEPTH the number of bytes of its prefix, SKIP the
            first node after its subtree. FIRST counts the tokens before a node in the order of their bytes: those that end
            at node i are ids[FIRST[i]:FIRST[i + 1]], those in its subtree ids[FIRST[i]:FIRST[SKIP[i]]].
        ids: (K,) int32, token ids in the order of their bytes.
        longest: the greatest depth.
    """

    table: Table
    ids: Line
    longest: int

    def tokens_at(self, nodes: I32) -> list[int]:
        """The ids of all tokens that end at the given nodes."""
        ranges = zip(self.table[FIRST, nodes].tolist(), self.table[FIRST, nodes + 1].tolist(), strict=True)
        return [int(token) for low, high in ranges for token in self.ids[low:high]]


def build(tokens: Sequence[bytes | None]) -> Trie:
    """The trie of all tokens that have bytes; the position in the sequence is the token's id."""
    order = sorted((token, i) for i, token in enumerate(tokens) if token)
    data = np.frombuffer(b"".join(token for token, _ in order), np.uint8)
    ends = np.cumsum([0, *(len(token) for token, _ in order)], dtype=np.int64)
    longest = max((len(token) for token, _ in order), default=0)
    return Trie(_build(data, ends, longest), np.array([i for _, i in order], np.int32), longest)


def single_bytes(trie: Trie) -> U8:
    """The bytes that are tokens, ascending."""
    nodes, node = list[int](), 1
    while node < trie.table.shape[1] - 1:
        nodes.append(node)
        node = int(trie.table[SKIP, node])
    ends = [node for node in nodes if trie.table[FIRST, node + 1] > trie.table[FIRST, node]]
    return trie.table[BYTE, ends].astype(np.uint8)


@jit
def _build(data: U8, ends: NDArray[np.int64], longest: int) -> I32:
    """The table of the trie of sorted tokens, token t being data[ends[t]:ends[t + 1]]."""
    count = len(ends) - 1
    shared = np.zeros(count, np.int32)  # bytes in common with the token before; the others are new nodes
    size = 1
    for t in range(count):
        length = ends[t + 1] - ends[t]
        previous = ends[t] - ends[t - 1] if t else 0
        while shared[t] < min(length, previous) and data[ends[t] + shared[t]] == data[ends[t - 1] + shared[t]]:
            shared[t] += 1
        size += length - shared[t]
    table = np.zeros((4, size + 1), np.int32)
    table[SKIP] = size
    table[FIRST, 1:] = count
    path = np.zeros(longest + 1, np.int32)
    node = 1
    open_depth = 0
    for t in range(count):
        for d in range(shared[t] + 1, open_depth + 1):
            table[SKIP, path[d]] = node
        for d in range(shared[t], ends[t + 1] - ends[t]):
            table[BYTE, node] = data[ends[t] + d]
            table[DEPTH, node] = d + 1
            table[FIRST, node] = t
            path[d + 1] = node
            node += 1
        open_depth = ends[t + 1] - ends[t]
    return table


@jit
def walk(
    trie: I32, roots: I32, start: int, delta: I32, match: I32, again: NDArray[np.bool_], free: bool, longest: int
) -> tuple[I32, I32, I32, bool]:
    """Run an automaton from one state through the subtrees of several nodes.

    Args:
        trie: the table of a `Trie`.
        roots: (R,) nodes whose subtrees are walked, without the nodes themselves.
        start: the automaton's state at each root.
        delta: (Q, 256) next states, −1 for none.
        match: (Q,) ≥ 0 where a state matches.
        again: (Q,) where the automaton may also stand in `start` once more; a node where it does becomes a root.
        free: whether to heed that.
        longest: the greatest depth in the trie.

    Returns:
        states (S,), ends (S,) and nodes (M,), all int32: the nodes reached at which a token ends or the automaton matches,
        sorted by the automaton's state there; those of states[i] are nodes[ends[i − 1]:ends[i]]. Last, whether there were
        further roots; a node may then come more than once.
    """
    nodes = np.empty(1024, np.int32)
    reached = np.empty(1024, np.int32)
    stack = np.empty(longest + 1, np.int32)
    stack[0] = start
    queue = roots
    known = np.zeros(0, np.bool_)  # roots so far, once there are further ones
    count = done = 0
    total = len(roots)
    while done < total:
        root = queue[done]
        done += 1
        base = trie[DEPTH, root]
        end = trie[SKIP, root]
        node = root + 1
        if count + end - node > len(nodes):
            room = max(2 * len(nodes), count + end - node)
            larger_nodes, larger_reached = np.empty(room, np.int32), np.empty(room, np.int32)
            larger_nodes[:count], larger_reached[:count] = nodes[:count], reached[:count]
            nodes, reached = larger_nodes, larger_reached
        while node < end:
            level = trie[DEPTH, node] - base
            state = delta[stack[level - 1], trie[BYTE, node]]
            if state < 0:
                node = trie[SKIP, node]
                continue
            stack[level] = state
            if trie[FIRST, node + 1] > trie[FIRST, node] or match[state] >= 0:
                nodes[count] = node
                reached[count] = state
                count += 1
            if free and again[state] and trie[SKIP, node] > node + 1:
                if not len(known):
                    known = np.zeros(trie.shape[1], np.bool_)
                    known[roots] = True
                if not known[node]:
                    known[node] = True
                    if total == len(queue):
                        longer = np.empty(2 * total, np.int32)
                        longer[:total] = queue
                        queue = longer
                    queue[total] = node
                    total += 1
            node += 1
    sizes = np.zeros(len(match) + 1, np.int32)
    for i in range(count):
        sizes[reached[i] + 1] += 1
    states = np.flatnonzero(sizes[1:]).astype(np.int32)
    places = np.cumsum(sizes)
    ends = places[states + 1].astype(np.int32)
    grouped = np.empty(count, np.int32)
    for i in range(count):
        grouped[places[reached[i]]] = nodes[i]
        places[reached[i]] += 1
    return states, ends, grouped, total > len(roots)


@jit
def reach(trie: I32, start: int, delta: I32, longest: int, seen: NDArray[np.bool_]) -> None:
    """Mark in seen (Q,) every state in which the automaton can be after reading one whole token from `start`."""
    stack = np.empty(longest + 1, np.int32)
    stack[0] = start
    node = 1
    while node < trie.shape[1] - 1:
        state = delta[stack[trie[DEPTH, node] - 1], trie[BYTE, node]]
        if state < 0:
            node = trie[SKIP, node]
            continue
        stack[trie[DEPTH, node]] = state
        if trie[FIRST, node + 1] > trie[FIRST, node]:
            seen[state] = True
        node += 1


@jit
def collect(words: I32, trie: I32, ids: I32, nodes: I32) -> None:
    """Set in a packed mask, words (W,) int32, the bits of all tokens that end at the given nodes."""
    for node in nodes:
        for i in range(trie[FIRST, node], trie[FIRST, node + 1]):
            token = ids[i]
            words[token >> 5] |= np.int32(1) << np.int32(token & 31)
