"""Which characters are parts of words, as an automaton over UTF-8 that needs few states.

Every state that a text can have in the middle of a character is a state of each token automaton, times all that it waits
for: a token may end there. Unicode's own property has 306 such states. So past ASCII a whole block of characters is of one
kind, in such a way that the first two bytes tell, and the separators of scripts other than Latin are heeded where a phrase
is written in that script.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata._charset import Ranges, merge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SEPARATOR", "WORD", "is_word", "separators", "statuses"]

# What a text is at: after a separator or at its beginning, after a character of a word, or (from 2 on) in the middle of a
# character, which may still become either: if it is broken off, a separator.
SEPARATOR, WORD = 0, 1

_ASCII = tuple((c, c) for c in range(128) if not (chr(c).isalnum() or c == ord("_")))
_GENERAL = (
    (0x80, 0xBF),  # Latin-1 punctuation and symbols
    (0x2000, 0x2BFF),  # general punctuation, symbols, arrows, mathematics, dingbats
    (0x2E00, 0x2E7F),  # supplemental punctuation
    (0x3000, 0x303F),  # CJK punctuation
    (0xFE00, 0xFE7F),  # variation selectors, vertical and small forms
    (0xFF00, 0xFF7F),  # full-width forms
    (0xFFC0, 0xFFFF),  # more of them, and the replacement character
    (0x1F000, 0x1FFFF),  # emoji
    (0x40000, 0x10FFFF),  # planes without letters: tags, variation selectors, private use
)
# The letters of a script, and its own separators.
_SCRIPTS: tuple[tuple[tuple[int, int], Ranges], ...] = (
    ((0x370, 0x3FF), ((0x37E, 0x37E), (0x387, 0x387))),  # Greek
    ((0x530, 0x58F), ((0x55A, 0x55F), (0x589, 0x58A))),  # Armenian
    ((0x590, 0x5FF), ((0x5BE, 0x5BE), (0x5C0, 0x5C0), (0x5C3, 0x5C3), (0x5C6, 0x5C6))),  # Hebrew
    ((0x600, 0x77F), ((0x60C, 0x60D), (0x61B, 0x61B), (0x61D, 0x61F), (0x66A, 0x66D), (0x6D4, 0x6D4))),  # Arabic
    ((0x900, 0xDFF), ((0x964, 0x965), (0x970, 0x970), (0xDF4, 0xDF4))),  # the scripts of India and Ceylon
    ((0xE00, 0xE7F), ((0xE4F, 0xE4F), (0xE5A, 0xE5B))),  # Thai
    ((0xF00, 0xFFF), ((0xF04, 0xF14), (0xF3A, 0xF3D), (0xF85, 0xF85), (0xFD0, 0xFD4))),  # Tibetan
    ((0x1000, 0x109F), ((0x104A, 0x104F),)),  # Burmese
    ((0x1200, 0x139F), ((0x1360, 0x1368),)),  # Ethiopic
    ((0x1780, 0x17FF), ((0x17D4, 0x17DA),)),  # Khmer
    ((0x1800, 0x18AF), ((0x1800, 0x180A),)),  # Mongolian
    ((0x3040, 0x9FFF), ((0x30A0, 0x30A0), (0x30FB, 0x30FB))),  # Japanese and Chinese
)


def separators(text: str) -> Ranges:
    """The characters that part words, for phrases with the characters of `text`.

    Example:
        >>> any(low <= ord("،") <= high for low, high in separators("dog"))
        False
        >>> any(low <= ord("،") <= high for low, high in separators("كلب"))
        True
    """
    own = [ranges for (low, high), ranges in _SCRIPTS if any(low <= ord(c) <= high for c in text)]
    return merge(list(chain(_ASCII, _GENERAL, *own)))


def is_word(character: str, parting: Ranges) -> bool:
    """Whether a character is part of a word, given those that are not."""
    return not any(low <= ord(character) <= high for low, high in parting)


@lru_cache(maxsize=16)
def statuses(parting: Ranges) -> NDArray[np.int32]:
    """(n, 256) int32: what a text is at after one more byte, for each of n statuses.

    A byte 0x80 to 0xBF belongs to the character before it, also where it should not be there. A character that is broken off,
    by another byte or by the end of the text, counts as a separator, as U+FFFD does, which stands for it in decoded text.
    """
    table = np.zeros((2, 256), np.int32)
    for byte in range(128):
        table[:, byte] = WORD if is_word(chr(byte), parting) else SEPARATOR
    table[WORD, 0x80:0xC0] = WORD
    nodes: dict[tuple[int, ...], int] = {}
    for lead in range(0xC2, 0xF5):
        shift, bits, least = (6, 0x1F, 0x80) if lead < 0xE0 else (12, 0xF, 0x800) if lead < 0xF0 else (18, 7, 0x10000)
        heeded = tuple((max(low, least), high) for low, high in parting if high >= least)
        table[:, lead] = _status((lead & bits) << shift, shift, heeded, nodes)
    inner = np.array(list(nodes), np.int32).reshape(-1, 64)
    middle = np.repeat(table[:1], len(inner), axis=0)
    middle[:, 0x80:0xC0] = inner
    return np.concatenate([table, middle])


def _status(first: int, shift: int, parting: Ranges, nodes: dict[tuple[int, ...], int]) -> int:
    """The status in front of the last `shift` bits of the characters from `first` on."""
    last = min(first + (1 << shift) - 1, 0x10FFFF)
    if any(low <= first and last <= high for low, high in parting):
        return SEPARATOR
    if not any(low <= last and first <= high for low, high in parting):
        return _letter(shift, nodes)
    inner = tuple(_status(first + (i << (shift - 6)), shift - 6, parting, nodes) for i in range(64))
    return nodes.setdefault(inner, len(nodes) + 2)


def _letter(shift: int, nodes: dict[tuple[int, ...], int]) -> int:
    """The status in front of the last `shift` bits of a character that is part of a word, whatever they are."""
    return nodes.setdefault((_letter(shift - 6, nodes),) * 64, len(nodes) + 2) if shift else WORD
