"""Walks of the token trie from lexer states, remembered; they know lexer states and trie nodes, and nothing of parsers.

Where a walk begins in the trie depends on the walks before it only, and those depend on lexer states only. So whatever the
stacks were, a chain of lexemes that was walked once is found again, and what is computed anew for a new stack is only what
its parser says to the ends of lexemes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.kernels.tokens import masks
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ctrldecode.grammar._machine import Automaton

__all__ = ["Reached", "Walks"]

# Nodes from which on a packed mask is faster to add than the nodes one by one.
_MANY = 256


class Reached:
    """Trie nodes at which a walk is in one lexer state; compare by identity.

    Attributes:
        state: the lexer state.
        nodes: (M,) int32.
        words: the packed mask of the tokens that end there, if they are many.
    """

    __slots__ = ("_by_depth", "nodes", "state", "words")

    def __init__(self, state: int, nodes: NDArray[np.int32], words: NDArray[np.int32] | None = None) -> None:
        """Keep the nodes."""
        self.state, self.nodes, self.words = state, nodes, words
        self._by_depth: list[tuple[int, Reached]] | None = None

    def by_depth(self, trie: tries.Trie) -> list[tuple[int, Reached]]:
        """The nodes of each depth by themselves; the same objects at every call."""
        if self._by_depth is None:
            depths = trie.table[tries.DEPTH, self.nodes]
            self._by_depth = [(int(d), Reached(self.state, self.nodes[depths == d])) for d in np.unique(depths)]
        return self._by_depth


class Walks:
    """The walks of one trie with one automaton, in bounded memory."""

    def __init__(self, trie: tries.Trie, automaton: Automaton, size: int, limit: int) -> None:
        """Begin with none.

        Args:
            trie: of the tokens.
            automaton: the lexers.
            size: of the vocabulary.
            limit: bytes of walks from which on all are forgotten.
        """
        self._trie, self._automaton, self._size, self._limit = trie, automaton, size, limit
        self._root = (Reached(-1, np.zeros(1, np.int32)),)
        self._known: dict[tuple[int, tuple[Reached, ...]], list[Reached]] = {}
        self._bytes = 0

    def from_root(self, lexer: int) -> list[Reached]:
        """Where whole tokens lead from a lexer state."""
        return self.walk(lexer, self._root)

    def walk(self, lexer: int, roots: tuple[Reached, ...]) -> list[Reached]:
        """Where a lexer state leads that stands at the given nodes, in the subtrees below them."""
        key = (lexer, roots)
        found = self._known.get(key)
        if found is None:
            found = self.walk_once(lexer, roots)
            self._bytes += sum(r.nodes.nbytes + (0 if r.words is None else r.words.nbytes) for r in found)
            if self._bytes > self._limit:
                self._known, self._bytes = {}, 0
            self._known[key] = found
        return found

    def walk_once(self, lexer: int, roots: Iterable[Reached]) -> list[Reached]:
        """The same, without keeping the result."""
        trie, automaton = self._trie, self._automaton
        nodes = [root.nodes for root in roots]
        states, ends, grouped, repeated = tries.walk(
            trie.table,
            nodes[0] if len(nodes) == 1 else np.unique(np.concatenate(nodes)),  # a node may be reached in several ways
            lexer,
            automaton.delta,
            automaton.match,
            automaton.again,
            automaton.is_free(lexer),
            trie.longest,
        )
        starts = [0, *ends.tolist()]
        parts = [grouped[start:end] for start, end in pairwise(starts)]
        return [
            self._packed(state, np.unique(part) if repeated else part)
            for state, part in zip(states.tolist(), parts, strict=True)
        ]

    def _packed(self, state: int, nodes: NDArray[np.int32]) -> Reached:
        if len(nodes) < _MANY:
            return Reached(state, nodes)
        words = masks.empty(self._size)
        tries.collect(words, self._trie.table, self._trie.ids, nodes)
        return Reached(state, nodes, words)

    def collect(self, words: NDArray[np.int32], found: Sequence[Reached]) -> None:
        """Allow in a packed mask, in place, all tokens that end at the given nodes."""
        few = [reached.nodes for reached in found if reached.words is None]
        for reached in found:
            if reached.words is not None:
                words |= reached.words
        if few:
            nodes = few[0] if len(few) == 1 else np.concatenate(few)
            tries.collect(words, self._trie.table, self._trie.ids, nodes)
