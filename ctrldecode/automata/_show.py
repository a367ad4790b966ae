"""Texts and pictures of a token automaton: which texts it accepts in some tokenisation, and Graphviz."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.core._tries import trie_of
from ctrldecode.kernels.tokens import lift
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["accepts", "dot"]

# Tokens that an edge shows: enough to see what it is about, few enough to read.
_SHOWN = 4


def accepts(dfa: TokenDFA, vocabulary: Vocabulary, text: bytes) -> bool:
    """Whether some tokenisation of a text is accepted: a dynamic programme over positions × states."""
    trie = trie_of(vocabulary)
    data = np.frombuffer(text, np.uint8)
    reached: list[set[int]] = [set() for _ in range(len(text) + 1)]
    reached[0].add(dfa.start)
    for at, states in enumerate(reached[:-1]):
        if not states:
            continue
        here = np.array(sorted(states))
        for node in lift.spelled(trie.table, data, at).tolist():
            ids = trie.ids[trie.table[tries.FIRST, node] : trie.table[tries.FIRST, node + 1]]
            targets = dfa.table[here[:, None], dfa.classes[ids]]
            reached[at + int(trie.table[tries.DEPTH, node])].update(targets[targets >= 0].tolist())
    return any(dfa.accepting[state] for state in reached[-1])


def dot(dfa: TokenDFA) -> str:
    """The automaton in Graphviz's language."""
    lines = [
        "digraph automaton {",
        "  rankdir=LR;",
        '  node [shape=circle, fontname="monospace"];',
        "  begin [shape=point];",
    ]
    lines += [f"  {state} [shape=doublecircle];" for state in np.flatnonzero(dfa.accepting)]
    lines.append(f"  begin -> {dfa.start};")
    order = np.argsort(dfa.classes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(dfa.classes, minlength=dfa.table.shape[1]))[:-1])
    for source, target in dfa.edges().tolist():
        columns = np.flatnonzero(dfa.table[source] == target)
        ids = np.sort(np.concatenate([members[column] for column in columns]))
        lines.append(f"  {source} -> {target} [label={json.dumps(_label(dfa, ids.tolist()), ensure_ascii=False)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _label(dfa: TokenDFA, ids: list[int]) -> str:
    """A few of an edge's tokens, the shortest first, and how many there are."""
    tokens = dfa.vocabulary.tokens if dfa.vocabulary else None
    if tokens is None:
        shown = [str(token) for token in ids[:_SHOWN]]
    else:
        known = sorted((token for token in ids if tokens[token]), key=lambda token: (len(tokens[token] or b""), token))
        shown = [repr((tokens[token] or b"").decode(errors="backslashreplace")) for token in known[:_SHOWN]]
    return " ".join(shown) + (f" … {len(ids)} tokens" if len(ids) > len(shown) else "")
