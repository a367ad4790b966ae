"""Bytes and numbers as readers see them: nothing invisible, and nothing that changes what stands beside it."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

from ctrldecode.explain.record import Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["Namer", "number", "percent", "percentage", "shortened", "visible"]

# Signs that most fonts have; the pictures of control characters (␀ and so on, ␠ too) many lack.
_PICTURES = {" ": "␣", "\n": "⏎", "\r": "\\r", "\t": "⇥"}
# Control, format (joiners, directions), surrogate, private, unassigned; separators: none of them has a shape of its own.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}
_COMBINING = {"Mn", "Me", "Mc"}


def visible(text: bytes) -> str:
    r"""Bytes as text in which everything can be seen.

    Example:
        >>> visible(b" a\n"), visible(b"\xe2\x82"), visible("e\u200b".encode()), visible(b"\x00")
        ('␣a⏎', '\\xE2\\x82', 'e\\u200B', '\\x00')
    """
    decoded = text.decode("utf-8", errors="surrogateescape")
    shown = "".join(map(_character, decoded))
    return "◌" + shown if decoded and unicodedata.category(decoded[0]) in _COMBINING else shown


def _character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no character by itself, as surrogateescape has it
        return f"\\x{code - 0xDC00:02X}"
    if character in _PICTURES:
        return _PICTURES[character]
    if code < 0x80 and not character.isprintable():
        return f"\\x{code:02X}"
    if unicodedata.category(character) in _UNSEEN:
        return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
    return character


def shortened(text: str, longest: int = 40) -> str:
    """A text with its middle left out if it is long.

    Example:
        >>> shortened("abcdefghij", longest=7), shortened("abc")
        ('abc…hij', 'abc')
    """
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def number(value: float) -> str:
    """A natural log, or a count, for reading.

    Example:
        >>> number(-1.5), number(-math.inf), number(math.nan), number(3.0), number(-0.0001)
        ('−1.500', '−∞', '', '3', '0')
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    if abs(value) < 5e-4:
        return "0"
    return (f"{value:.0f}" if value == round(value) else f"{value:.3f}").replace("-", "−")


def percentage(log_value: float) -> str:
    """exp of a natural log in percent, without the sign; what is too small for one digit behind the point with an exponent.

    Example:
        >>> percentage(-math.inf), percentage(0.0), percentage(math.log(0.123)), percentage(math.log(2e-7)), percentage(math.nan)
        ('0', '100.0', '12.3', '2.0e−5', '')
    """
    if math.isnan(log_value):
        return ""
    if log_value == -math.inf:
        return "0"
    if log_value > -7.6:  # 0.05 %, which one digit can show
        return f"{100 * math.exp(log_value):.1f}"
    exponent = math.floor(log_value / math.log(10))
    digits = f"{math.exp(log_value - exponent * math.log(10)):.1f}"
    if digits == "10.0":
        digits, exponent = "1.0", exponent + 1
    return f"{digits}e{exponent + 2}".replace("-", "−")


def percent(log_value: float) -> str:
    """The same with its sign, for sentences.

    Example:
        >>> percent(0.0), percent(-math.inf), percent(math.nan)
        ('100 %', '0 %', '')
    """
    said = percentage(log_value)
    return said and f"{said.removesuffix('.0')} %"


class Namer:
    """Ids as tokens that can be shown."""

    def __init__(self, vocabulary: Vocabulary, names: Callable[[int], str] | None) -> None:
        self.vocabulary = vocabulary
        self._names = names

    def __call__(self, token: int) -> Token:
        piece = self.vocabulary.tokens[token]
        kind = "end" if token in self.vocabulary.eos_token_ids else "special" if piece is None else "text"
        if piece is not None:
            return Token(token, visible(piece), kind)
        name = "" if self._names is None else self._names(token)
        return Token(token, visible(name.encode(errors="replace")) or f"#{token}", kind)
