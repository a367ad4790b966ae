"""Deterministic automata over token ids, built from conditions on text."""

from __future__ import annotations

from ctrldecode.automata.dfa import UNREACHABLE, TokenDFA, concatenation, intersection, union

__all__ = ["UNREACHABLE", "TokenDFA", "concatenation", "intersection", "union"]
