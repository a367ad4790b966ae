"""Deterministic automata over token ids, built from conditions on text."""
