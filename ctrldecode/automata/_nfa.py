"""Python regular expressions as ordered automata over UTF-8 bytes.

States are built backwards, each knowing what follows it. Choices are ordered as the backtracking matcher of `re` tries
them, which is what makes leftmost-first matching reproducible (Cox 2009, "Regular Expression Matching: the Virtual Machine
Approach", on Pike's ordered threads). It knows nothing of lark or of parsers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # the standard library's regular-expression parser
from typing import Any

from ctrldecode.automata._charset import Utf8Node, char_ranges, utf8_automaton
from ctrldecode.errors import GrammarError, GrammarLimitError

__all__ = ["Nfa", "refusal"]

_CHARACTER = {_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN}
_REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT}
_REFUSED = {
    _constants.ASSERT: "lookahead or lookbehind",
    _constants.ASSERT_NOT: "negative lookahead or lookbehind",
    _constants.AT: "an anchor or word boundary",
    _constants.GROUPREF: "a back-reference",
    _constants.GROUPREF_EXISTS: "a conditional group",
    _constants.ATOMIC_GROUP: "an atomic group",
    _constants.POSSESSIVE_REPEAT: "a possessive repeat",
}


def refusal(pattern: str) -> tuple[int, str]:
    """The least width of what a pattern matches, and the construct in it that cannot be followed, "" if there is none.

    Raises:
        re.error: the pattern is no regular expression.
        RecursionError: it is nested too deeply for `re`.
    """
    tree = _parser.parse(pattern, 0)
    waiting: list[Any] = [tree]
    while waiting:
        for op, argument in waiting.pop():
            if op in _REFUSED:
                return tree.getwidth()[0], _REFUSED[op]
            if op is _constants.SUBPATTERN:
                waiting.append(argument[3])
            elif op is _constants.BRANCH:
                waiting.extend(argument[1])
            elif op in _REPEATS:
                waiting.append(argument[2])
    return tree.getwidth()[0], ""


@dataclass
class Nfa:
    """A growing automaton that several patterns share.

    Attributes:
        choices: for each state, its ordered ε-successors (empty for states that read a byte or match).
        reads: for each state, its transitions (low byte, high byte, target).
        matches: for each state, the label it matches, or −1.
        owner: for each state, the label of the pattern that it belongs to.
        limit: the number of states past which building stops with `GrammarLimitError`.
    """

    limit: int = 200_000
    choices: list[list[int]] = field(default_factory=list)
    reads: list[list[tuple[int, int, int]]] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)

    def add_pattern(self, pattern: str, label: int, name: str) -> int:
        """Add a pattern and return its first state.

        Args:
            pattern: a regular expression of Python's `re`.
            label: what its end matches, ≥ 0.
            name: the terminal's name, for errors.
        """
        tree = _parser.parse(pattern, 0)
        return _Builder(self, label, name, pattern).sequence(tree, self.new(label, match=label), tree.state.flags)

    def new(self, owner: int, choices: list[int] | None = None, match: int = -1) -> int:
        if len(self.matches) >= self.limit:
            raise GrammarLimitError(
                f"the terminals need more than {self.limit} automaton states before they are made deterministic; shorten counted "
                "repeats such as {0,1000}"
            )
        self.choices.append(choices or [])
        self.reads.append([])
        self.matches.append(match)
        self.owner.append(owner)
        return len(self.matches) - 1


@dataclass
class _Builder:
    """Builds one pattern into the automaton, last item first."""

    nfa: Nfa
    label: int
    name: str
    pattern: str

    def sequence(self, items: Any, after: int, flags: int) -> int:
        for op, argument in reversed(list(items)):
            after = self.item(op, argument, after, flags)
        return after

    def item(self, op: Any, argument: Any, after: int, flags: int) -> int:
        if op in _CHARACTER:
            return self.character(utf8_automaton(char_ranges(op, argument, flags)), after, {})
        if op is _constants.SUBPATTERN:
            _, added, removed, items = argument
            return self.sequence(items, after, _compiler._combine_flags(flags, added, removed))  # noqa: SLF001  re's own rule
        if op is _constants.BRANCH:
            return self.nfa.new(self.label, [self.sequence(branch, after, flags) for branch in argument[1]])
        if op in _REPEATS:
            return self.repeat(argument, after, flags, greedy=op is _constants.MAX_REPEAT)
        what = _REFUSED.get(op, f"the construct {op}")
        raise GrammarError(
            f"terminal {self.name}: /{self.pattern}/ uses {what}, which is not followed while text is being generated; rewrite the "
            "terminal without it, for instance /a[^b]/ for /a(?!b)./"
        )

    def repeat(self, argument: Any, after: int, flags: int, *, greedy: bool) -> int:
        low, high, items = argument

        def choose(body: int) -> list[int]:
            return [body, after] if greedy else [after, body]

        if high is _constants.MAXREPEAT:
            first = self.nfa.new(self.label)
            self.nfa.choices[first] = choose(self.sequence(items, first, flags))
        else:
            first = after
            for _ in range(high - low):
                first = self.nfa.new(self.label, choose(self.sequence(items, first, flags)))
        for _ in range(low):
            first = self.sequence(items, first, flags)
        return first

    def character(self, node: Utf8Node, after: int, built: dict[int, int]) -> int:
        """States for one character; equal suffixes of its UTF-8 forms share their states."""
        if id(node) not in built:
            state = built[id(node)] = self.nfa.new(self.label)
            self.nfa.reads[state] = [
                (low, high, after if rest is None else self.character(rest, after, built)) for low, high, rest in node
            ]
        return built[id(node)]
