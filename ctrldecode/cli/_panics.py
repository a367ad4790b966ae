"""Tells a panic of compiled Rust code, as of tokenizers whose files are damaged, from other exceptions: it is no `Exception`."""

from __future__ import annotations

__all__ = ["is_panic"]


def is_panic(error: BaseException) -> bool:
    """Whether Rust code gave up; its class cannot be imported, and each extension has its own."""
    return type(error).__module__ == "pyo3_runtime" and type(error).__name__ == "PanicException"
