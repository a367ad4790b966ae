"""Lark grammars as potentials: `Grammar`, and the machine that follows a text through its language."""

from ctrldecode.grammar.grammar import Grammar
from ctrldecode.grammar.potential import GrammarPotential, GrammarState

__all__ = ["Grammar", "GrammarPotential", "GrammarState"]
