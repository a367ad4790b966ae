"""The push-down machine of a grammar over a vocabulary: where a text stands, what may follow, how far the end is.

A configuration is a pair (stack, lexer state): the parser has read all lexemes before this one, and the lexer is inside
this one or before it. Reading a byte keeps the lexeme going and, where it matches, also ends it: the second branch carries
the obligations of the lexer. What a stack is depends on the mode: `_lalr.py` and `_earley.py` hold the two machines. This
module knows what they share, and no tensors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ctrldecode.grammar._dfa import Ending
    from ctrldecode.grammar._explorer import Explorer
    from ctrldecode.grammar._lark import Terminal

__all__ = ["Automaton", "Configuration", "Edge", "Machine"]


class Configuration(NamedTuple):
    """A parser stack and a lexer state; stacks are compared by identity."""

    node: Any
    lexer: int


class Edge(NamedTuple):
    """A way to end the present lexeme, and its length in tokens."""

    ending: Ending
    tokens: int


class Automaton(Protocol):
    """The lexers of a grammar as one deterministic automaton over bytes, which grows on demand.

    Attributes:
        delta: (n, 256) int32, the next state or −1; rows up to `len(self)` are valid.
        match: (n,) int32, ≥ 0 where `endings` has something.
        again: (n,) bool, where ignored text can end that hands nothing on.
    """

    delta: NDArray[np.int32]
    match: NDArray[np.int32]
    again: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of states so far."""
        ...

    def is_boundary(self, state: int) -> bool:
        """Whether the state stands before a lexeme, no byte of it read."""
        ...

    def is_free(self, state: int) -> bool:
        """Whether the state stands before a lexeme and has been handed nothing."""
        ...

    def endings(self, state: int) -> tuple[Ending, ...]:
        """How the lexeme can be taken to end in a state."""
        ...


A = TypeVar("A", bound=Automaton)


class Machine(ABC, Generic[A]):
    """All that the configurations of one grammar over one vocabulary share.

    Attributes:
        terminals: of the grammar, by number.
        ignored: the numbers of those that the parser does not see.
        trie: the vocabulary's tokens.
        automaton: the lexers.
        joins: whether `join` makes fewer of several configurations.
    """

    automaton: A
    joins: ClassVar[bool] = False

    def __init__(self, terminals: Sequence[Terminal], ignored: frozenset[int], trie: tries.Trie) -> None:
        """Keep what both modes share; the subclass adds `automaton`."""
        self.terminals = terminals
        self.ignored = ignored
        self.trie = trie
        self._after_token: dict[int, list[int]] = {}
        self._edges: dict[int, list[Edge]] = {}

    @abstractmethod
    def start(self) -> Configuration:
        """The empty text, on a new stack that shares nothing with earlier ones."""

    @abstractmethod
    def ends(self, configuration: Configuration) -> Iterable[tuple[Ending, Configuration]]:
        """Every way to take the lexeme to end here that the parser goes along with, and the configuration after it."""

    @abstractmethod
    def accepts(self, configuration: Configuration) -> bool:
        """Whether the text may end here; what is still obliged not to match has then died."""

    @abstractmethod
    def expected(self, configuration: Configuration) -> tuple[int, ...]:
        """The terminals as which the lexeme under way, or the next one, can end; those that the parser takes."""

    @abstractmethod
    def cost(self, configuration: Configuration) -> float:
        """The least number of tokens that complete a text from here, no token spanning two lexemes; infinite if none does.

        Raises:
            GrammarLimitError: an exact decision passed a limit.
        """

    def lives(self, configuration: Configuration) -> bool:
        """Whether some text can be completed from here."""
        return self.cost(configuration) < math.inf

    def explorer(self, size: int, limit: int) -> Explorer | None:
        """What finds masks of a vocabulary's size faster than `ends` and `cost`, in memory up to a limit, if the mode has such."""
        del size, limit
        return None

    def advance(self, configurations: Iterable[Configuration], byte: int) -> list[Configuration]:
        """Every configuration after one more byte."""
        step = self.automaton.delta.item
        inside = [Configuration(node, state) for node, lexer in configurations if (state := step(lexer, byte)) >= 0]
        ended = dict.fromkeys(after for here in inside for _, after in self.ends(here))
        return list(self.join(dict.fromkeys([*inside, *ended])))

    def join(self, configurations: Iterable[Configuration]) -> Iterable[Configuration]:
        """Configurations, all at one place of a text, as fewer ones that stand for the same texts."""
        return configurations

    def edges(self, lexer: int) -> list[Edge]:
        """Every way in which the lexeme can end after one or more tokens, at its least length."""
        edges = self._edges.get(lexer)
        if edges is None:
            edges = self._edges[lexer] = self._find_edges(lexer)
        return edges

    def _find_edges(self, lexer: int) -> list[Edge]:
        found: dict[Ending, Edge] = {}
        seen, layer, tokens = {lexer}, [lexer], 0
        while layer:
            tokens += 1
            reached = {state for here in layer for state in self._states_after_token(here)}
            for state in reached:
                for ending in self.automaton.endings(state):
                    found.setdefault(ending, Edge(ending, tokens))
            layer = [state for state in reached if state not in seen]
            seen.update(layer)
        return list(found.values())

    def _states_after_token(self, lexer: int) -> list[int]:
        states = self._after_token.get(lexer)
        if states is None:
            seen = np.zeros(len(self.automaton), np.bool_)
            tries.reach(self.trie.table, lexer, self.automaton.delta, self.trie.longest, seen)
            states = self._after_token[lexer] = [int(state) for state in np.flatnonzero(seen)]
        return states

    def terminal_costs(self, starts: Iterable[int]) -> list[float]:
        """The least number of tokens that spell each terminal, over the given lexer states before a lexeme."""
        costs = [math.inf] * len(self.terminals)
        for lexer in starts:
            for edge in self.edges(lexer):
                for terminal in edge.ending.terminals:
                    costs[terminal] = min(costs[terminal], edge.tokens)
        return costs
