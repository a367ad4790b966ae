"""From bytes to tokens: what an automaton over bytes does with every token of a vocabulary, at once.

All tokenisations of a text, and tokens that span the borders of words, are covered, since a token is nothing but its bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata._tables import Tables, group, joint
from ctrldecode.core._tries import trie_of
from ctrldecode.errors import AutomatonLimitError
from ctrldecode.kernels.tokens import lift as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.automata._bytes import ByteDFA
    from ctrldecode.automata._tables import I32
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["lifted"]

# Next states of all tokens that are held at once while equal columns are found: 64 MiB.
_AT_ONCE = 1 << 24


def lifted(vocabulary: Vocabulary, source: ByteDFA, limit: int) -> Tables:
    """The automaton over token classes; its states are those that can be reached between two tokens.

    Args:
        vocabulary: the tokens.
        source: the automaton over bytes.
        limit: entries of the table past which building stops.
    """
    states = np.array([source.start])
    places = np.full(len(source.delta) + 1, -1, np.int32)  # the last for −1
    places[source.start] = 0
    batches: list[tuple[I32, I32]] = []  # the groups of tokens (V,), and the next states of each group
    done = 0
    while done < len(states):
        batch = states[done : done + max(1, _AT_ONCE // vocabulary.size)]
        done += len(batch)
        groups, rows = _walked(vocabulary, source, batch.astype(np.int32))
        batches.append((groups, rows))
        new = np.unique(rows)
        new = new[(new >= 0) & (places[new] < 0)]
        places[new] = np.arange(len(states), len(states) + len(new), dtype=np.int32)
        states = np.append(states, new)
        _check(sum(rows.size for _, rows in batches), limit)
    classes, members = joint([groups for groups, _ in batches])
    _check(len(states) * len(members), limit)
    table = np.concatenate([places[rows[:, groups[members]]] for groups, rows in batches])
    return Tables(classes, table, 0, source.accepting[states])


def _walked(vocabulary: Vocabulary, source: ByteDFA, batch: I32) -> tuple[I32, NDArray[np.int32]]:
    """Groups of tokens (V,) that act alike in some states (n,), and the next states (n, groups)."""
    trie = trie_of(vocabulary)
    out = np.full((len(batch), vocabulary.size), -1, np.int32)
    kernels.lift(trie.table, trie.ids, trie.longest, source.delta, batch, out)
    groups, members = group(out)
    return groups, out[:, members]


def _check(entries: int, limit: int) -> None:
    if entries > limit:
        raise AutomatonLimitError(
            f"the automaton needs more than limit={limit} table entries (states × classes of tokens); use a simpler condition, or "
            "pass a larger limit (4 bytes an entry)"
        )
