"""Sets of Unicode code points, and their UTF-8 form as a small automaton over bytes.

A set is a sorted tuple of inclusive (low, high) pairs. What a character class of Python's `re` contains is asked of `re`
itself wherever flags or categories are involved, so that case folding and Unicode categories are Python's own. This module
does not know regular expressions beyond a single character.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from re import _compiler, _parser  # type: ignore[attr-defined]  # the standard library's regular-expression parser
from typing import Any

__all__ = ["Ranges", "Utf8Node", "char_ranges", "merge", "utf8_automaton"]

Ranges = tuple[tuple[int, int], ...]
# One byte position of an encoded character: (low byte, high byte, node for the next position; None after the last byte).
Utf8Node = tuple[tuple[int, int, "Utf8Node | None"], ...]

_SURROGATES = (0xD800, 0xDFFF)  # code points that no UTF-8 text contains


def merge(ranges: list[tuple[int, int]]) -> Ranges:
    """Sorted, disjoint, non-adjacent ranges without surrogates.

    Example:
        >>> merge([(5, 7), (1, 2), (3, 3)])
        ((1, 3), (5, 7))
    """
    merged: list[list[int]] = []
    for low, high in sorted(piece for pair in ranges for piece in _without_surrogates(*pair)):
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return tuple((low, high) for low, high in merged)


def _without_surrogates(low: int, high: int) -> list[tuple[int, int]]:
    pieces = [(low, min(high, _SURROGATES[0] - 1)), (max(low, _SURROGATES[1] + 1), high)]
    return [(a, b) for a, b in pieces if a <= b]


def char_ranges(op: Any, argument: Any, flags: int) -> Ranges:
    """Code points that one single-character item of a parsed pattern matches.

    Args:
        op: LITERAL, NOT_LITERAL, ANY or IN, of `re`'s parser.
        argument: its argument.
        flags: the flags in force at that place.
    """
    plain = not flags & _compiler.SRE_FLAG_IGNORECASE
    if plain and op is _parser.LITERAL:
        return merge([(argument, argument)])
    if plain and op is _parser.IN and all(o in (_parser.LITERAL, _parser.RANGE, _parser.NEGATE) for o, _ in argument):
        return _plain_class(argument)
    if op is _parser.LITERAL:
        return _probe_literal(argument, flags)
    return _probe(op, _freeze(argument), flags)


def _plain_class(items: list[tuple[Any, Any]]) -> Ranges:
    ranges = merge([a if o is _parser.RANGE else (a, a) for o, a in items if o is not _parser.NEGATE])
    return _complement(ranges) if items[0][0] is _parser.NEGATE else ranges


def _complement(ranges: Ranges) -> Ranges:
    edges = [-1, *(edge for pair in ranges for edge in pair), sys.maxunicode + 1]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return merge([(low + 1, high - 1) for low, high in gaps if low + 1 <= high - 1])


def _freeze(argument: Any) -> Any:
    return tuple(argument) if isinstance(argument, list) else argument


@lru_cache(maxsize=1024)
def _probe(op: Any, argument: Any, flags: int) -> Ranges:
    """Ask `re`: match the item against every code point and collect the runs."""
    item = (op, list(argument) if isinstance(argument, tuple) else argument)
    return merge([(match.start(), match.end() - 1) for match in _run_of(item, flags).finditer(_every_character())])


@lru_cache(maxsize=1024)
def _probe_literal(code: int, flags: int) -> Ranges:
    """The same for a literal under IGNORECASE, where only cased characters can equal it."""
    candidates = "".join(sorted({chr(code), *_cased()}))
    return merge([(ord(c), ord(c)) for run in _run_of((_parser.LITERAL, code), flags).findall(candidates) for c in run])


def _run_of(item: tuple[Any, Any], flags: int) -> Any:
    state = _parser.State()
    state.flags = flags
    one = _parser.SubPattern(state, [item])
    return _compiler.compile(_parser.SubPattern(state, [(_parser.MAX_REPEAT, (1, _parser.MAXREPEAT, one))]), flags)


@lru_cache(maxsize=1)
def _every_character() -> str:
    return "".join(map(chr, range(sys.maxunicode + 1)))


@lru_cache(maxsize=1)
def _cased() -> str:
    return "".join(c for c in _every_character() if c.lower() != c or c.upper() != c)


def utf8_automaton(ranges: Ranges) -> Utf8Node:
    """The minimal acyclic automaton over bytes of the UTF-8 forms of a set; equal suffixes are one object.

    Example:
        >>> utf8_automaton(((0x61, 0x63),))
        ((97, 99, None),)
    """
    sequences = [sequence for low, high in ranges for sequence in _sequences(low, high)]
    return _share(sequences, {})


def _share(sequences: list[tuple[tuple[int, int], ...]], seen: dict[Utf8Node, Utf8Node]) -> Utf8Node:
    groups: dict[tuple[int, int], list[tuple[tuple[int, int], ...]]] = {}
    for first, *rest in sequences:
        groups.setdefault(first, []).append(tuple(rest))
    edges = [(*first, _share(tails, seen) if tails[0] else None) for first, tails in sorted(groups.items())]
    node: list[tuple[int, int, Utf8Node | None]] = []
    for low, high, target in edges:
        if node and node[-1][1] + 1 == low and node[-1][2] is target:
            node[-1] = (node[-1][0], high, target)
        else:
            node.append((low, high, target))
    key = tuple(node)
    return seen.setdefault(key, key)


def _sequences(low: int, high: int) -> list[tuple[tuple[int, int], ...]]:
    """Byte-range sequences that together spell exactly the characters low..high (RFC 3629, section 3)."""
    for last in (0x7F, 0x7FF, 0xFFFF):  # where the encoded length grows
        if low <= last < high:
            return _sequences(low, last) + _sequences(last + 1, high)
    for shift in (6, 12, 18):  # align both ends to whole blocks of continuation bytes
        block = (1 << shift) - 1
        if high > 0x7F and (low & ~block) != (high & ~block):
            if low & block:
                return _sequences(low, low | block) + _sequences((low | block) + 1, high)
            if (high & block) != block:
                return _sequences(low, (high & ~block) - 1) + _sequences(high & ~block, high)
    return [tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))]
