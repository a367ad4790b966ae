"""Lark grammars as potentials: `Grammar`, and the machine that follows a text through its language."""
