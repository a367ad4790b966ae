"""Guidance measured on the embedded model."""
