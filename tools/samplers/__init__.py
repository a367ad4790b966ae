"""Comparisons of the samplers."""
