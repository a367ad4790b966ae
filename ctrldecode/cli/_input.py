"""Reads texts that the user gives as arguments or on standard input."""

from __future__ import annotations

import sys

from ctrldecode.errors import InputError

__all__ = ["read_text"]


def read_text(argument: str) -> str:
    """The argument itself, or standard input for `-`, less the newline that ends it."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"the text on standard input is not UTF-8: {error.reason} at byte {error.start}") from error
