"""What nonterminals can derive at best, for any measure of a derivation that grows with its parts.

It knows rules as symbols, and nothing of parsers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["Symbol", "best", "nullable", "unending"]

Symbol = tuple[str, Any]  # ("t", terminal) or ("n", nonterminal)
_Rules = Sequence[tuple[str, Sequence[Symbol]]]
V = TypeVar("V")


def best(rules: _Rules, value: Callable[[Sequence[Symbol]], V], impossible: V, found: dict[str, V]) -> None:
    """Fill `found` with the least value of each nonterminal that derives something.

    Knuth 1977, "A generalization of Dijkstra's algorithm": a rule counts once all its symbols are settled.

    Args:
        rules: (nonterminal, symbols).
        value: of a sequence of symbols whose nonterminals are in `found`; not below that of any of them.
        impossible: a value that only what cannot be has.
        found: empty; it is filled in the order of values.
    """
    readers: dict[str, list[int]] = {}
    missing = [0] * len(rules)
    for rule, (_, symbols) in enumerate(rules):
        for kind, name in symbols:
            if kind == "n":
                missing[rule] += 1
                readers.setdefault(name, []).append(rule)
    heap: list[tuple[Any, int]] = [(value(rules[rule][1]), rule) for rule, left in enumerate(missing) if left == 0]
    heapq.heapify(heap)
    while heap:
        least, rule = heapq.heappop(heap)
        name = rules[rule][0]
        if name in found or least >= impossible:
            continue
        found[name] = least
        for other in readers.get(name, ()):
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(heap, (value(rules[other][1]), other))


def nullable(rules: _Rules) -> frozenset[str]:
    """The nonterminals that derive the empty text."""
    found: dict[str, int] = {}
    best(rules, lambda symbols: int(any(kind == "t" for kind, _ in symbols)), 1, found)
    return frozenset(found)


def unending(rules: _Rules) -> list[str]:
    """The nonterminals that derive no finite text, in the order of their rules."""
    found: dict[str, int] = {}
    best(rules, lambda _: 0, 1, found)
    return list(dict.fromkeys(name for name, _ in rules if name not in found))
