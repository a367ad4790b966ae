"""Costs of completions in earley mode while something is still obliged not to match.

Obligations are left by ignored text, and nearly always die with the next byte. While they live, each symbol is a transducer
from obligations to obligations; those of nonterminals are one least fixpoint over their rules (the intersection of a
context-free language with a regular one, Bar-Hillel, Perles and Shamir 1961, with weights).
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

from ctrldecode.errors import GrammarLimitError
from ctrldecode.grammar._dfa import NO_CARRY, Carry

if TYPE_CHECKING:
    from ctrldecode.grammar._columns import Column, Items
    from ctrldecode.grammar._derivations import Symbol
    from ctrldecode.grammar._earley import EarleyMachine

__all__ = ["Obliged"]

_Key = tuple["Symbol", Carry]
_Exits = dict[Carry, float]


class Obliged:
    """Least costs by symbol and obligations."""

    def __init__(self, machine: EarleyMachine, items: Items, limit: int) -> None:
        """Begin with nothing; `limit` bounds the pairs of a symbol and obligations that are looked at."""
        self._machine, self._items, self._limit = machine, items, limit
        self._exits: dict[_Key, _Exits] = {}
        self._readers: dict[_Key, set[_Key]] = {}
        self._waiting: list[_Key] = []

    def cost(self, column: Column, carry: Carry) -> float:
        """The least number of tokens that complete a text from a column (Dijkstra over items); infinite if none does."""
        if column.accepts:
            return 0.0
        items, order = self._items, count()
        heap: list[tuple[float, int, int, Column, Carry]] = []
        done: set[tuple[int, Column, Carry]] = set()

        def push(spent: float, item: int, origin: Column, carry: Carry) -> None:
            heapq.heappush(heap, (spent, next(order), item, origin, carry))

        best = math.inf
        initial = [(i, column) for i in items.rules[items.start]] if column.is_root else column.kernel
        for item, origin in initial:
            push(0.0, item, origin, carry)
        while heap and heap[0][0] < best:
            spent, _, item, origin, carry = heapq.heappop(heap)
            if (item, origin, carry) in done:
                continue
            done.add((item, origin, carry))
            symbol, name = items.next[item], items.name[item]
            if not carry.obligations:
                best = min(best, spent + items.rest[item] + origin.finish(name))
            elif symbol is not None:
                for after, more in self._solve((symbol, carry)).items():
                    push(spent + more, item + 1, origin, after)
            else:
                if origin.is_root and name == items.start:
                    best = min(best, spent)
                for outer, above in origin.expecting(("n", name)):
                    push(spent, outer + 1, above, carry)
        return best

    def _solve(self, key: _Key) -> _Exits:
        exits = self._get(key)
        while self._waiting:
            here = self._waiting.pop()
            (kind, _), _ = here
            found = self._of_terminal(here) if kind == "t" else self._of_nonterminal(here)
            if found != self._exits[here]:
                self._exits[here] = found
                self._waiting.extend(self._readers[here])
                exits = self._exits[key]
        return exits

    def _get(self, key: _Key, reader: _Key | None = None) -> _Exits:
        symbol, carry = key
        if not carry.obligations:
            return {NO_CARRY: self._items.cost.get(symbol, math.inf)}
        if key not in self._exits:
            if len(self._exits) >= self._limit:
                self._exits, self._readers, self._waiting = {}, {}, []  # what is unfinished must not be read later
                raise GrammarLimitError(
                    f"deciding whether a text can be completed passed {self._limit} pairs of symbol and obligations (limit max_search); "
                    "raise the limit, or simplify the ignored terminals"
                )
            self._exits[key], self._readers[key] = {}, set()
            self._waiting.append(key)
        if reader is not None:
            self._readers[key].add(reader)
        return self._exits[key]

    def _of_terminal(self, key: _Key) -> _Exits:
        (_, terminal), first = key
        exits: _Exits = {}
        heap: list[tuple[float, int, Carry]] = [(0.0, 0, first)]
        seen: set[Carry] = set()
        order = count(1)
        while heap:
            spent, _, carry = heapq.heappop(heap)
            if carry in seen:
                continue
            seen.add(carry)
            for ending, tokens in self._machine.edges(self._machine.lexer_before(frozenset({terminal}), carry)):
                if ending.ignored:
                    heapq.heappush(heap, (spent + tokens, next(order), ending.carry))
                else:
                    exits[ending.carry] = min(exits.get(ending.carry, math.inf), spent + tokens)
        return exits

    def _of_nonterminal(self, key: _Key) -> _Exits:
        (_, name), first = key
        exits: _Exits = {}
        for item in self._items.rules.get(name, ()):
            ways, place = {first: 0.0}, item
            while (symbol := self._items.next[place]) is not None:
                following: _Exits = {}
                for carry, spent in ways.items():
                    for after, more in self._get((symbol, carry), key).items():
                        following[after] = min(following.get(after, math.inf), spent + more)
                ways, place = following, place + 1
            for carry, spent in ways.items():
                exits[carry] = min(exits.get(carry, math.inf), spent)
        return exits
