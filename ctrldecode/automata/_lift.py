"""From bytes to tokens: what an automaton over bytes does with every token of a vocabulary, at once.

All tokenisations of a text, and tokens that span the borders of words, are covered, since a token is nothing but its bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata._tables import Tables, joint
from ctrldecode.core._tries import trie_of
from ctrldecode.errors import AutomatonLimitError
from ctrldecode.kernels.tokens import dfa
from ctrldecode.kernels.tokens import lift as walks

if TYPE_CHECKING:
    from ctrldecode.automata._bytes import ByteDFA
    from ctrldecode.automata._tables import I32
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["lifted"]

# Next states of all tokens that are held at once while equal columns are found: 64 MiB.
_AT_ONCE = 1 << 24


def lifted(vocabulary: Vocabulary, source: ByteDFA, limit: int) -> Tables:
    """The automaton over token classes, with the states of the one over bytes.

    Args:
        vocabulary: the tokens.
        source: the automaton over bytes.
        limit: entries of the table past which building stops.
    """
    trie = trie_of(vocabulary)
    step = max(1, _AT_ONCE // vocabulary.size)
    parts: list[tuple[I32, I32]] = []  # of some states: the groups of tokens (V,), and the next states of each group
    for first in range(0, len(source.delta), step):
        states = np.arange(first, min(first + step, len(source.delta)), dtype=np.int32)
        rows = walks.lift(trie.table, trie.ids, trie.longest, source.delta, states, vocabulary.size)
        groups, members = dfa.group(rows)
        parts.append((groups, rows[members]))
        _check(sum(found.size for _, found in parts), limit)
    classes, members = joint([groups for groups, _ in parts])
    _check(len(source.delta) * len(members), limit)
    table = np.concatenate([found[groups[members]].T for groups, found in parts])
    return Tables(classes, np.ascontiguousarray(table), source.start, source.accepting)


def _check(entries: int, limit: int) -> None:
    if entries > limit:
        raise AutomatonLimitError(
            f"the automaton needs more than limit={limit} table entries (states × classes of tokens); use a simpler condition, or "
            "pass a larger limit (4 bytes an entry)"
        )
