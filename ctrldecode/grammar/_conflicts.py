"""What is said of places where an LALR parser cannot decide: the lookahead and the rules, as the grammar writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ctrldecode.errors import ConflictError
from ctrldecode.grammar._places import at, definition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ctrldecode.grammar._parse_table import Conflict, PlainRules

__all__ = ["reading_on", "undecided"]

# Names that lark gives to the rules it makes of repetitions: what they belong to, and how often they repeat.
_HELPER = re.compile(r"__(.+)_(star|plus|repeat_a\d+_b\d+(?:_opt)?)_\d+")
# Conflicts and lookaheads listed before the rest is only counted; one mistake often makes many.
_SHOWN = 3
# The same for what is only told on demand.
_LINES = 50
# Repetitions inside repetitions that are written out.
_DEPTH = 4


class _Rules:
    """The rules of a grammar, for showing them."""

    def __init__(self, rules: PlainRules, shown: Sequence[str]) -> None:
        self._rules, self._shown = rules, shown
        self._helpers: dict[str, list[tuple[tuple[str, Any], ...]]] = {}
        for name, symbols in rules:
            if name.startswith("__"):
                self._helpers.setdefault(name, []).append(symbols)

    def rule(self, index: int) -> str:
        """A rule in the grammar's notation; a repetition as it stands, with the rule that it stands in."""
        name, symbols = self._rules[index]
        helper = _HELPER.fullmatch(name)
        return (
            f"{self._symbol(('n', name))} in {helper[1]}" if helper else f"{name}: {self._sequence(symbols)}".rstrip()
        )

    def origin(self, index: int) -> str:
        """The name that the grammar's text has for a rule."""
        helper = _HELPER.fullmatch(self._rules[index][0])
        return (helper[1] if helper else self._rules[index][0]).split("{")[0]

    def _sequence(self, symbols: Sequence[tuple[str, Any]], depth: int = 0) -> str:
        return " ".join(self._symbol(symbol, depth) for symbol in symbols)

    def _symbol(self, symbol: tuple[str, Any], depth: int = 0) -> str:
        kind, x = symbol
        if kind == "t":
            return self._shown[int(x)]
        if x not in self._helpers:
            return x
        repeated = [a for a in self._helpers[x] if a and a[0] != symbol]
        if depth == _DEPTH or "_repeat_" in x:
            return "(...)~n"
        ways = [self._sequence(a, depth + 1) for a in repeated]
        alone = len(ways) == 1 and len(repeated[0]) == 1
        return f"{ways[0]}+" if alone else f"({' | '.join(ways)})+"


def undecided(text: str, conflicts: Sequence[Conflict], rules: PlainRules, terminals: Sequence[str]) -> ConflictError:
    """The error for rules that could end at the same place."""
    shown = _Rules(rules, terminals)
    blocks: list[str] = []
    grouped = _grouped(conflicts)
    for names, lookaheads in grouped[:_SHOWN]:
        told = list(dict.fromkeys(f"\n  {shown.rule(rule)}" for rule in names))
        what = "any of these rules could end" if len(told) > 1 else "this could end in several ways"
        blocks.append(f"before {_listed(terminals[t] for t in lookaheads)} {what}:{''.join(told)}")
    if len(grouped) > _SHOWN:
        blocks.append(f"and {len(grouped) - _SHOWN} more such conflicts")
    place = definition(text, shown.origin(conflicts[0].rules[0]))
    more = "" if place is None else f"\n{at(text, place)}"
    return ConflictError(
        "Reduce/Reduce conflict, which one terminal of lookahead cannot decide: "
        + "\n".join(blocks)
        + "\njoin the rules, give one a "
        f'higher priority (as in name.2: ...), or pass parser="earley", which takes such grammars{more}'
    )


def reading_on(conflicts: Sequence[Conflict], rules: PlainRules, terminals: Sequence[str]) -> tuple[str, ...]:
    """One line for each rule that could end where the parser reads on."""
    shown = _Rules(rules, terminals) if conflicts else None
    lines = [
        f"before {_listed(terminals[t] for t in lookaheads)} this rule could end or the text go on inside it, and lark goes on: "
        f"{shown.rule(names[0])}"
        for names, lookaheads in _grouped(conflicts)[:_LINES]
        if shown
    ]
    return tuple(dict.fromkeys(lines))


def _grouped(conflicts: Sequence[Conflict]) -> list[tuple[tuple[int, ...], list[int]]]:
    """The lookaheads of each set of rules; a rule can be in a conflict in many states."""
    found: dict[tuple[int, ...], dict[int, None]] = {}
    for terminal, rules in conflicts:
        found.setdefault(rules, {})[terminal] = None
    return [(rules, sorted(terminals)) for rules, terminals in sorted(found.items())]


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = [f"{len(every) - _SHOWN} more"] if len(every) > _SHOWN else []
    *first, last = [*every[:_SHOWN], *more]
    return f"{', '.join(first)} or {last}" if first else last
