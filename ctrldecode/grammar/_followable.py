"""Why a terminal's pattern cannot be followed while text is generated, in plain words."""

from __future__ import annotations

import re

from ctrldecode.automata._nfa import refusal

__all__ = ["why_not"]


def why_not(pattern: str, *, joined: bool) -> str:
    """What a message says behind the pattern; "" if it can be followed.

    Args:
        pattern: a regular expression of Python's `re`.
        joined: whether lark will join it with others in one regular expression.
    """
    try:
        width, refused = refusal(pattern)
    except RecursionError:
        return "is nested too deeply for Python to read; write parts of it as terminals of their own, one after another"
    except re.error as error:
        return f"is no regular expression: {error}"
    if width == 0:
        return (
            "matches the empty text (it has zero width), which a lexer cannot take; make it match at least one character, and write "
            "NAME? where the terminal may be missing"
        )
    if refused:
        return (
            f"uses {refused}, which is not followed while text is being generated; rewrite the terminal without it, for instance /a[^b]/ "
            "for /a(?!b)./"
        )
    if joined and _sets_flags(pattern):
        return (
            "sets flags by (?...), which would hold for all terminals when lark joins them; write /.../i, or (?i:...)"
        )
    return ""


def _sets_flags(pattern: str) -> bool:
    """Whether a pattern cannot be a part of another one, for which flags are the only reason."""
    if "(?" not in pattern:
        return False
    try:
        refusal(f"(?:{pattern})")
    except re.error:
        return True
    return False
