"""Deterministic automata over token ids, built from conditions on text.

`TokenDFA` is the automaton with its algebra, `& | ~ +`; the builders make one from phrases, counts and regular expressions;
`AutomatonPotential` keeps a generation within one.
"""

from __future__ import annotations

from ctrldecode.automata.builders import (
    contains,
    contains_all,
    forbids,
    in_order,
    regex,
    sentence_count,
    suffix,
    token_count,
    word_count,
)
from ctrldecode.automata.dfa import UNREACHABLE, TokenDFA, concatenation, intersection, union
from ctrldecode.automata.potential import AutomatonPotential, AutomatonState

__all__ = [
    "UNREACHABLE",
    "AutomatonPotential",
    "AutomatonState",
    "TokenDFA",
    "concatenation",
    "contains",
    "contains_all",
    "forbids",
    "in_order",
    "intersection",
    "regex",
    "sentence_count",
    "suffix",
    "token_count",
    "union",
    "word_count",
]
