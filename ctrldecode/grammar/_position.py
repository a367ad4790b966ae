"""Positions in a language: the live configurations of a text, the token masks there, and the next positions.

Positions are interned, so a mask computed once is found again whenever the same parser stack and lexer state return. Masks
are sorted by the number of tokens that a text needs after the token, so a budget picks a level.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.grammar._machine import Configuration, Machine
from ctrldecode.kernels.tokens import masks
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["Arrival", "Language", "Position"]

# Positions and stack nodes kept before all are forgotten and built anew: about 1 kB each without masks.
_MAX_POSITIONS = 50_000
# Nodes from which on a packed mask is faster to add than the nodes one by one.
_MANY = 256


class Reached(NamedTuple):
    """Trie nodes at which a walk is in one lexer state, and the mask of the tokens there if they are many."""

    state: int
    nodes: NDArray[np.int32]
    words: NDArray[np.int32] | None


class Arrival(NamedTuple):
    """Tokens that lead to one configuration.

    Attributes:
        cost: tokens that complete the text from there, at least.
        configuration: where they lead.
        ended: the terminals that their last lexeme can be, none if it is still under way.
        reached: the trie nodes at which they end.
    """

    cost: float
    configuration: Configuration
    ended: tuple[int, ...]
    reached: Reached


class Position:
    """A place in a text of the language; compare by identity.

    Attributes:
        configurations: the live ones; each can still be completed.
        cost: a number of tokens that suffices to complete the text, 0 where it may end.
        accepts: whether the text may end here.
    """

    __slots__ = ("_language", "_levels", "_next", "_plan", "accepts", "configurations", "cost")

    def __init__(self, language: Language, configurations: tuple[Configuration, ...]) -> None:
        self._language = language
        self._next: dict[int, Position | None] = {}
        self._levels: tuple[list[float], list[NDArray[np.int32]]] | None = None
        self._plan: tuple[int, float] | None = None
        self.configurations = configurations
        self.accepts = any(language.machine.accepts(c) for c in configurations)
        self.cost = 0.0 if self.accepts else min((language.machine.cost(c) for c in configurations), default=math.inf)

    def step(self, token: int) -> Position | None:
        """The position after a token; None if no text of the language goes on that way."""
        if token not in self._next:
            self._next[token] = self._language.after(self, self._language.vocabulary.tokens[token])
        return self._next[token]

    def mask(self, budget: float = math.inf) -> NDArray[np.int32]:
        """The packed mask of tokens after which the text can be finished within a budget, counted with the token itself."""
        levels = self._levels
        if levels is None:
            levels = self._levels = self._language.levels(self, self._plan)
        costs, words = levels
        return words[bisect_right(costs, budget - 1)]

    def forget_masks(self) -> None:
        """Free the masks; they are computed again when they are asked for."""
        self._levels = None

    def plan(self, token: int, rest: int) -> None:
        """Note that a text is complete with this token and `rest` more, if no shorter way was known."""
        if rest + 1 < self.cost:
            self.cost, self._plan, self._levels = rest + 1, (token, rest), None


class Language:
    """A grammar over a vocabulary."""

    def __init__(self, machine: Machine, vocabulary: Vocabulary, mask_bytes: int) -> None:
        """Start at the empty text, with a bound on the bytes of the masks that are kept."""
        self.machine, self.vocabulary, self._mask_bytes = machine, vocabulary, mask_bytes
        self._positions: dict[frozenset[Configuration], Position] = {}
        self._whole: dict[int, list[Reached]] = {}
        self._nowhere = np.zeros(0, np.int32)
        self._kept: deque[tuple[Position, int]] = deque()  # positions with masks, oldest first, and their bytes
        self._kept_bytes = 0
        self._start = self._intern([machine.start()])

    def start(self) -> Position:
        """The position of the empty text."""
        if len(self._positions) > _MAX_POSITIONS:
            self._positions = {}
            self._start = self._intern([self.machine.start()])
        return self._start

    def after(self, position: Position, text: bytes | None) -> Position | None:
        """The position after more bytes; None where no text of the language goes on that way, or bytes are None."""
        if not text:
            return None
        configurations = list(position.configurations)
        for byte in text:
            configurations = self.machine.advance(configurations, byte)
            if not configurations:
                return None
        live = [c for c in configurations if self.machine.cost(c) < math.inf]
        return self._intern(live) if live else None

    def _intern(self, configurations: list[Configuration]) -> Position:
        key = frozenset(configurations)
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = Position(self, tuple(configurations))
        return position

    def tighten(self) -> None:
        """Look for a shorter way to the end of a text, with tokens that span lexemes.

        A text of least cost is spelled anew with the fewest tokens, and the positions on the way remember how. Other texts
        may be shorter still; so the cost stays an upper bound.
        """
        position, text = self.start(), b""
        for left in range(int(position.cost), 0, -1):
            (words,) = np.nonzero(masks.bits(position.mask(left), self.vocabulary.size))
            token = next(int(t) for t in words if t not in self.vocabulary.eos_token_ids)
            text += self.vocabulary.tokens[token] or b""
            position = position.step(token) or position
        tokens = self._fewest_tokens(text)
        position = self.start()
        for i, token in enumerate(tokens):
            position.plan(token, len(tokens) - i - 1)
            position = position.step(token) or position

    def _fewest_tokens(self, text: bytes) -> list[int]:
        """The shortest tokenisation, by dynamic programming from the end."""
        ids = {piece: token for token, piece in enumerate(self.vocabulary.tokens) if piece and piece in text}
        best: list[list[int]] = [[]]  # for the last i bytes
        for i in range(1, len(text) + 1):
            tail = text[len(text) - i :]
            ways = [[ids[tail[:n]], *best[i - n]] for n in range(1, i + 1) if tail[:n] in ids]
            best.append(min(ways, key=len))
        return best[-1]

    def levels(self, position: Position, plan: tuple[int, float] | None) -> tuple[list[float], list[NDArray[np.int32]]]:
        """Token masks by the cost after the token.

        Args:
            position: where the text stands.
            plan: a token and the cost after it, if a shorter way than those of whole lexemes is known.

        Returns:
            Costs in ascending order, and one mask more than costs: mask i allows every token whose cost is at most
            costs[i − 1]; mask 0 allows none but the end of the text, where it may end.
        """
        by_cost: dict[float, list[Reached]] = {}
        for arrival in self.arrivals(position):
            by_cost.setdefault(arrival.cost, []).append(arrival.reached)
        words = masks.empty(self.vocabulary.size)
        if position.accepts:
            for token in self.vocabulary.eos_token_ids:
                masks.allow(words, token)
        levels = [words]
        costs = sorted(by_cost if plan is None else {*by_cost, plan[1]})
        for cost in costs:
            words = words.copy()
            if plan is not None and cost == plan[1]:
                masks.allow(words, plan[0])
            few = [self._nowhere]
            for reached in by_cost.get(cost, []):
                if reached.words is None:
                    few.append(reached.nodes)
                else:
                    words |= reached.words
            self._collect(words, np.concatenate(few))
            levels.append(words)
        self._keep(position, len(levels) * words.nbytes)
        return costs, levels

    def _keep(self, position: Position, size: int) -> None:
        """Bound the memory of all masks: the oldest are forgotten first."""
        self._kept.append((position, size))
        self._kept_bytes += size
        while self._kept_bytes > self._mask_bytes and len(self._kept) > 1:
            oldest, freed = self._kept.popleft()
            oldest.forget_masks()
            self._kept_bytes -= freed

    def _collect(self, words: NDArray[np.int32], nodes: NDArray[np.int32]) -> None:
        tries.collect(words, self.machine.trie.table, self.machine.trie.ids, nodes)

    def arrivals(self, position: Position) -> Iterator[Arrival]:
        """Every configuration in which allowed tokens leave the text, with those tokens' trie nodes.

        A node where no token ends may be among them; it stands for a lexeme that ends inside longer tokens.
        """
        machine = self.machine
        layer: dict[Configuration, list[NDArray[np.int32]] | None] = dict.fromkeys(position.configurations)
        while layer:
            following: dict[Configuration, list[NDArray[np.int32]] | None] = {}
            for here, roots in layer.items():
                for reached in self._from_root(here.lexer) if roots is None else self._walk(here.lexer, roots):
                    inside = Configuration(here.node, reached.state)
                    cost = machine.cost(inside)
                    if cost < math.inf:
                        yield Arrival(cost, inside, (), reached)
                    for ending, after in machine.ends(inside):
                        cost = machine.cost(after)
                        if cost < math.inf:
                            yield Arrival(cost, after, ending.terminals, reached)
                            following[after] = [*(following.get(after) or []), reached.nodes]
            layer = following

    def _from_root(self, lexer: int) -> list[Reached]:
        """The walk of the whole trie from a lexer state: it does not depend on the parser, so it is done once."""
        found = self._whole.get(lexer)
        if found is None:
            found = [self._packed(reached) for reached in self._walk(lexer, [np.zeros(1, np.int32)])]
            self._whole[lexer] = found
        return found

    def _packed(self, reached: Reached) -> Reached:
        if len(reached.nodes) < _MANY:
            return reached
        words = masks.empty(self.vocabulary.size)
        self._collect(words, reached.nodes)
        return reached._replace(words=words)

    def _walk(self, lexer: int, roots: list[NDArray[np.int32]]) -> list[Reached]:
        trie, automaton = self.machine.trie, self.machine.automaton
        walked = tries.walk(trie.table, np.concatenate(roots), lexer, automaton.delta, automaton.match, trie.longest)
        return [Reached(state, nodes, None) for state, nodes in _grouped(*walked)]


def _grouped(nodes: NDArray[np.int32], states: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int32]]]:
    """Each state once, with its nodes."""
    if not len(nodes):
        return []
    order = np.argsort(states, kind="stable")
    ordered = states[order]
    first = np.flatnonzero(np.diff(ordered)) + 1
    parts = np.split(nodes[order], first)
    return [(int(ordered[at]), part) for at, part in zip([0, *first.tolist()], parts, strict=True)]
