"""Parser stacks as persistent, shared nodes.

Nodes are hash-consed: equal stacks under one root are one object, so whatever is remembered on a node is found again. This
module knows the parser's tables, and nothing of lexers or tokens.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ctrldecode.grammar._lark import NOTHING

if TYPE_CHECKING:
    from ctrldecode.grammar._lark import Tables

__all__ = ["Node", "before_lexemes"]


# Reductions in a row, beyond the number of parser states, that do not consume the stack before they count as endless.
_PATIENCE = 1000


class Node:
    """A stack of parser states: the top, and the node below. Compare by identity.

    Attributes:
        state: the parser state on top.
        below: the rest of the stack, None at the bottom.
    """

    __slots__ = (
        "_above",
        "_first",
        "_memo",
        "_reduced",
        "_shifted",
        "_tables",
        "below",
        "state",
    )  # made in great numbers

    def __init__(self, tables: Tables, state: int, below: Node | None = None) -> None:
        self.state, self.below = state, below
        self._tables = tables
        self._first: Node | None = None  # the first one that was pushed; dictionaries are made when needed
        self._above: dict[int, Node] | None = None
        self._shifted: dict[int, Node | None] | None = None
        self._reduced: dict[int, Node | None] | None = None
        self._memo: dict[Any, Any] | None = None

    @property
    def memo(self) -> dict[Any, Any]:
        """What others remember about it, by their own keys."""
        if self._memo is None:
            self._memo = {}
        return self._memo

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold the states, one after another: stacks are as deep as texts, and what is remembered stays."""
        states: list[int] = []
        node = self
        while node.below is not None:
            states.append(node.state)
            node = node.below
        return (_climb, (node, states[::-1])) if states else (Node, (self._tables, self.state))

    def push(self, state: int) -> Node:
        """This stack with one more state."""
        first = self._first
        if first is None:
            self._first = node = Node(self._tables, state, self)
            return node
        if first.state == state:
            return first
        above = self._above
        if above is None:
            above = self._above = {}
        node = above.get(state)
        if node is None:
            node = above[state] = Node(self._tables, state, self)
        return node

    def height(self) -> int:
        """How many states there are."""
        count, node = 0, self
        while node is not None:
            count, node = count + 1, node.below
        return count

    def pop(self, count: int) -> Node:
        """This stack without its `count` top states."""
        node = self
        for _ in range(count):
            node = node.below or node
        return node

    def shift(self, terminal: int) -> Node | None:
        """The stack after all reductions that the terminal asks for and its shift; None if the parser refuses it."""
        shifted = self._shifted
        if shifted is None:
            shifted = self._shifted = {}
        if terminal not in shifted:
            node = self._reduce(terminal)
            state = self._tables.shifts[node.state].get(terminal) if node else None
            shifted[terminal] = None if node is None or state is None else node.push(state)
        return shifted[terminal]

    def accepts_end(self) -> bool:
        """Whether the text may end here."""
        memo = self.memo
        if "end" not in memo:
            node = self._reduce(NOTHING)
            memo["end"] = node is not None and node.state == self._tables.end_state
        return memo["end"]

    def _reduce(self, terminal: int) -> Node | None:
        """All reductions before a terminal; None if they never end, as tables of ambiguous grammars may have it.

        What is found is remembered on every stack on the way, so deep stacks that reduce as a whole do so once.
        """
        node: Node | None = self
        way: list[Node] = []
        reduces, gotos = self._tables.reduces, self._tables.gotos
        height = lowest = idle = 0
        patience = _PATIENCE + len(gotos)
        while node is not None and terminal in reduces[node.state]:
            if node._reduced is not None and terminal in node._reduced:  # noqa: SLF001  another node
                node = node._reduced[terminal]  # noqa: SLF001
                break
            way.append(node)
            count, nonterminal = reduces[node.state][terminal]
            rest = node.pop(count)
            state = gotos[rest.state].get(nonterminal)
            height += 1 - count
            idle = 0 if height < lowest else idle + 1
            lowest = min(lowest, height)
            node = None if state is None or idle > patience else rest.push(state)
            if terminal == NOTHING and state == self._tables.end_state:  # lark stops here, even if it could reduce on
                break
        for before in way:
            if before._reduced is None:  # noqa: SLF001
                before._reduced = {}  # noqa: SLF001
            before._reduced[terminal] = node  # noqa: SLF001
        return node


def before_lexemes(tables: Tables, root: Node, most: int) -> list[Node]:
    """Shortest stacks on which a lexeme may begin, so many at most: the root, one for each state, then one for each state and the one below."""
    stacks, waiting = {root.state: root}, deque([root])
    found, others = {root.state: root}, list[Node]()
    while waiting and len(found) < most:
        node = waiting.popleft()
        shifted = tables.shifts[node.state].values()
        for state in [*shifted, *tables.gotos[node.state].values()]:
            if state not in stacks:
                stacks[state] = node.push(state)
                waiting.append(stacks[state])
        for state in dict.fromkeys(shifted):
            if found.setdefault(state, stacks[state]) is not node.push(state):
                others.append(node.push(state))
    return [*found.values(), *others][:most]


def _climb(node: Node, states: list[int]) -> Node:
    for state in states:
        node = node.push(state)
    return node
