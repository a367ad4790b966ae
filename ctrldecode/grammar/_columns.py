"""Earley sets as persistent, shared objects: what a general context-free parser knows at one place of a text.

An item is a rule with a dot, and its origin the column where the rule began. Columns hold no positions, only one another, and
equal ones under one root are one object; so whatever is remembered about a column is found again whenever the parser comes
back to the same situation (Earley 1970; nullable nonterminals as in Aycock and Horspool 2002, "Practical Earley Parsing";
remembered completions do what Leo 1991 does for right recursion). Rules that no text can finish must have been removed, so
every column can be completed. This module knows terminals by number, and nothing of lexers or tokens.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from ctrldecode.grammar._derivations import Symbol, best, nullable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Column", "Columns", "Items"]


class _Prediction(NamedTuple):
    """What a column predicts for a set of nonterminals that its items expect.

    Attributes:
        expecting: the predicted items that expect a symbol.
        terminals: those that predicted items expect.
        chain: for each nonterminal expected, and each of the given set above it, the least cost of what comes between.
    """

    expecting: Mapping[Symbol, tuple[int, ...]]
    terminals: frozenset[int]
    chain: Mapping[str, Mapping[str, float]]


class Items:
    """The dotted rules of a grammar, numbered so that the next number moves the dot by one symbol.

    Attributes:
        next: for each item, the symbol behind the dot; None at the end.
        name: for each item, the nonterminal of its rule.
        rest: for each item, the least cost of what is behind the dot.
        cost: the least cost of each nonterminal and terminal.
        rules: for each nonterminal, the first items of its rules.
        nullable: the nonterminals that derive the empty text.
        start: the start rule's name.
    """

    def __init__(
        self, rules: Sequence[tuple[str, tuple[Symbol, ...]]], start: str, terminal_cost: Sequence[float]
    ) -> None:
        """Number the items of the rules that some text can finish."""
        self.start = start
        self.cost: dict[Symbol, float] = {("t", t): cost for t, cost in enumerate(terminal_cost)}
        least: dict[str, float] = {}
        best(rules, lambda symbols: self._cost_of(symbols, least), math.inf, least)
        self.cost.update({("n", name): cost for name, cost in least.items()})
        self.next: list[Symbol | None] = []
        self.name: list[str] = []
        self.rest: list[float] = []
        self.rules: dict[str, list[int]] = {}
        possible = [rule for rule in rules if math.isfinite(self._cost_of(rule[1], least))]
        for name, symbols in possible:
            self.rules.setdefault(name, []).append(len(self.next))
            self.next += [*symbols, None]
            self.name += [name] * (len(symbols) + 1)
            self.rest += [*accumulate((self.cost[symbol] for symbol in reversed(symbols)), initial=0.0)][::-1]
        self.nullable = nullable(possible)
        self._predictions: dict[frozenset[str], _Prediction] = {}

    def _cost_of(self, symbols: Iterable[Symbol], least: Mapping[str, float]) -> float:
        return sum(self.cost[kind, x] if kind == "t" else least.get(x, math.inf) for kind, x in symbols)

    def across_nullable(self, item: int) -> Iterable[int]:
        """The item, and those after it as far as what the dot passes may be empty."""
        yield item
        while (symbol := self.next[item]) is not None and symbol[0] == "n" and symbol[1] in self.nullable:
            item += 1
            yield item

    def prediction(self, names: frozenset[str]) -> _Prediction:
        """What is predicted where items expect these nonterminals."""
        known = self._predictions.get(names)
        if known is None:
            known = self._predictions[names] = self._predict(names)
        return known

    def _predict(self, names: frozenset[str]) -> _Prediction:
        expecting: dict[Symbol, list[int]] = {}
        above: dict[
            str, list[tuple[str, float]]
        ] = {}  # nonterminal → (one of whose rules begins with it, cost of the rest)
        seen, waiting = set(names), list(names)
        while waiting:
            name = waiting.pop()
            for item in dict.fromkeys(i for first in self.rules.get(name, ()) for i in self.across_nullable(first)):
                symbol = self.next[item]
                if symbol is None:
                    continue
                expecting.setdefault(symbol, []).append(item)
                if symbol[0] == "n":
                    above.setdefault(symbol[1], []).append((name, self.rest[item + 1]))
                    if symbol[1] not in seen:
                        seen.add(symbol[1])
                        waiting.append(symbol[1])
        return _Prediction(
            {symbol: tuple(items) for symbol, items in expecting.items()},
            frozenset(symbol[1] for symbol in expecting if symbol[0] == "t"),
            _chains(names, above),
        )


def _chains(names: frozenset[str], above: Mapping[str, list[tuple[str, float]]]) -> dict[str, dict[str, float]]:
    """For each nonterminal and each of `names` that it can begin, the least cost of what then follows it."""
    below: dict[str, list[tuple[str, float]]] = {}
    for name, parents in above.items():
        for parent, cost in parents:
            below.setdefault(parent, []).append((name, cost))
    chains: dict[str, dict[str, float]] = {}
    for top in names:
        waiting = [(top, 0.0)]
        while waiting:
            name, cost = waiting.pop()
            if cost < chains.setdefault(name, {}).get(top, math.inf):
                chains[name][top] = cost
                waiting += [(inner, cost + more) for inner, more in below.get(name, ())]
    return chains


class Column:
    """An Earley set; compare by identity.

    Attributes:
        kernel: its unfinished items that are not predicted here, each with its origin.
        accepts: whether the text so far is complete.
        terminals: those that may come next.
        remaining: the least cost that completes the text.
        memo: what others remember about it, by their own keys.
    """

    __slots__ = (
        "_completed",
        "_expecting",
        "_finish",
        "_items",
        "_prediction",
        "_up",
        "accepts",
        "kernel",
        "memo",
        "remaining",
        "terminals",
    )

    def __init__(self, items: Items, kernel: tuple[tuple[int, Column], ...], *, accepts: bool, root: bool) -> None:
        self.kernel, self.accepts, self._items = kernel, accepts, items
        self.memo: dict[Any, Any] = {}
        self._completed: dict[str, tuple[frozenset[tuple[int, Column]], bool]] = {}
        self._finish: dict[str, float] = {}
        self._expecting: dict[Symbol | None, list[tuple[int, Column]]] | None = (
            None  # the kernel by the symbol expected
        )
        self._up: dict[str, float] = (
            {items.start: 0.0} if root else {}
        )  # least cost behind each nonterminal of the kernel
        self.remaining = items.cost.get(("n", items.start), math.inf) if root else math.inf
        terminals: set[int] = set()
        for item, origin in kernel:
            finish = origin.finish(items.name[item])
            self.remaining = min(self.remaining, items.rest[item] + finish)
            symbol = items.next[item]
            if symbol is not None and symbol[0] == "t":
                terminals.add(symbol[1])
            elif symbol is not None:
                self._up[symbol[1]] = min(self._up.get(symbol[1], math.inf), items.rest[item + 1] + finish)
        self._prediction = items.prediction(frozenset(self._up))
        self.terminals = self._prediction.terminals | terminals
        if accepts:
            self.remaining = 0.0

    def finish(self, name: str) -> float:
        """The least cost that completes a text once a nonterminal expected here has ended."""
        known = self._finish.get(name)
        if known is None:
            chain = self._prediction.chain.get(name, {})
            known = self._finish[name] = min((cost + self._up[top] for top, cost in chain.items()), default=math.inf)
        return known

    def expecting(self, symbol: Symbol) -> list[tuple[int, Column]]:
        """The items that expect a symbol, with their origins."""
        if self._expecting is None:
            self._expecting = {}
            for item, origin in self.kernel:
                self._expecting.setdefault(self._items.next[item], []).append((item, origin))
        predicted = self._prediction.expecting.get(symbol, ())
        return [*self._expecting.get(symbol, ()), *((item, self) for item in predicted)]

    def completed(self, name: str) -> tuple[frozenset[tuple[int, Column]], bool]:
        """What a nonterminal expected here leads to when it has ended: unfinished items, and whether the text is complete."""
        known = self._completed.get(name)
        if known is not None:
            return known
        pairs: set[tuple[int, Column]] = set()
        accepts = False
        waiting: list[tuple[Column, str]] = [(self, name)]
        seen = set(waiting)
        while waiting:
            column, inner = waiting.pop()
            if inner in column._completed:  # noqa: SLF001  another column
                further, complete = column._completed[inner]  # noqa: SLF001
                pairs |= further
                accepts |= complete
                continue
            accepts |= column.is_root and inner == self._items.start
            for item, origin in column.expecting(("n", inner)):
                for after in self._items.across_nullable(item + 1):
                    outer = (origin, self._items.name[after])
                    if self._items.next[after] is not None:
                        pairs.add((after, origin))
                    elif outer not in seen:
                        seen.add(outer)
                        waiting.append(outer)
        self._completed[name] = (frozenset(pairs), accepts)
        return self._completed[name]

    @property
    def is_root(self) -> bool:
        """Whether this is the column of the empty text."""
        return not self.kernel and bool(self._up)


class Columns:
    """All columns under one root.

    Attributes:
        items: the grammar's.
        root: the column of the empty text.
    """

    def __init__(self, items: Items) -> None:
        """Begin with the empty text."""
        self.items = items
        self.root = Column(items, (), accepts=items.start in items.nullable, root=True)
        self._known: dict[tuple[frozenset[tuple[int, Column]], bool], Column] = {}

    def scan(self, column: Column, terminals: Iterable[int]) -> Column:
        """The column after any of some terminals, all of which a column expects."""
        kernel: set[tuple[int, Column]] = set()
        accepts = False
        for terminal in terminals:
            for item, origin in column.expecting(("t", terminal)):
                for after in self.items.across_nullable(item + 1):
                    if self.items.next[after] is not None:
                        kernel.add((after, origin))
                        continue
                    further, complete = origin.completed(self.items.name[after])
                    kernel |= further
                    accepts |= complete
        return self._intern(frozenset(kernel), accepts=accepts)

    def union(self, columns: Iterable[Column]) -> Column:
        """One column that stands for several at the same place of a text, none of them the root."""
        columns = list(columns)
        kernel = frozenset(pair for column in columns for pair in column.kernel)
        return self._intern(kernel, accepts=any(column.accepts for column in columns))

    def _intern(self, kernel: frozenset[tuple[int, Column]], *, accepts: bool) -> Column:
        known = self._known.get((kernel, accepts))
        if known is None:
            known = Column(self.items, tuple(kernel), accepts=accepts, root=False)
            self._known[kernel, accepts] = known
        return known
