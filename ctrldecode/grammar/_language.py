"""A grammar over a vocabulary: its positions, and their masks.

Positions are interned, so a mask computed once is found again whenever the same parser stack and lexer state return.
"""

from __future__ import annotations

import math
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from ctrldecode.grammar._lock import Lock
from ctrldecode.grammar._machine import Configuration, Machine
from ctrldecode.grammar._position import Position
from ctrldecode.grammar._walks import Reached, Walks
from ctrldecode.kernels.tokens import masks
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["Arrival", "Language"]

# Positions and stack nodes kept before all are forgotten and built anew: about 1 kB each without masks.
_MAX_POSITIONS = 50_000
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd and large: sums of multiples of its powers hardly ever meet
_Layer = dict[Configuration, "list[Reached]"]


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


class Language:
    """A grammar over a vocabulary. Threads may share it: they learn one after another, under its lock.

    Attributes:
        machine: of the grammar.
        vocabulary: the tokens.
        countings: in what ways `whole_mask` may be asked to count, the one that takes least first, which is nearly always enough.
        lock: to hold while anything is asked of the machine, whose tables and stacks grow as they are asked; it nests.
    """

    def __init__(self, machine: Machine[Any], vocabulary: Vocabulary, mask_bytes: int) -> None:
        """Start at the empty text, with a bound on the bytes of the masks that are kept."""
        self.lock = Lock()
        self.machine = machine
        self.vocabulary = vocabulary
        self._mask_bytes = mask_bytes
        self._positions: dict[Configuration | frozenset[Configuration], Position] = {}
        self._walks = Walks(machine.trie, machine.automaton, vocabulary.size, mask_bytes)
        self._explorer = machine.explorer(vocabulary.size, mask_bytes)
        self.countings: tuple[int, ...] = () if self._explorer is None else self._explorer.countings
        self._kept: deque[Position] = deque()  # positions with masks, oldest first, once for each mask
        self._masks: WeakValueDictionary[int, NDArray[np.int32]] = WeakValueDictionary()  # theirs, by digest
        self._scratch = masks.empty(vocabulary.size)
        # Where a byte is no token by itself, a longer token may lead on from where nothing that begins anew does.
        self._gaps = len({token for token in vocabulary.tokens if token is not None and len(token) == 1}) < 256
        start = machine.start()
        self._start = self._intern([start])
        if self._explorer is not None:
            self._explorer.prepare(start.node)

    def start(self) -> Position:
        """The position of the empty text."""
        with self.lock:
            if len(self._positions) > _MAX_POSITIONS:
                self._positions = {}
                self._start = self._intern([self.machine.start()])
                if self._explorer is not None:
                    self._explorer.forget()
            return self._start

    def after(self, position: Position, text: bytes | None) -> Position | None:
        """The position after more bytes; None where no text of the language goes on that way, or bytes are None."""
        if not text:
            return None
        with self.lock:
            return self._after(position, text)

    def _after(self, position: Position, text: bytes) -> Position | None:
        if self._explorer is None:
            return self._advanced(position, text)
        live, accepts = self._explorer.after(position.configurations, text)
        return self._intern(live, accepts=accepts) if live else None

    def _advanced(self, position: Position, text: bytes) -> Position | None:
        """The position after more bytes by the machine itself, byte by byte."""
        configurations, before, last = list(position.configurations), None, -1
        for byte in text:
            if byte == last and configurations == before:
                continue  # a run of one byte, spaces mostly, which leads to where it began
            before, last = configurations, byte
            configurations = self.machine.advance(configurations, byte)
            if not configurations:
                return None
        live = [c for c in configurations if self.machine.lives(c)]
        return self._intern(live) if live else None

    def _intern(self, configurations: list[Configuration], *, accepts: bool | None = None) -> Position:
        """The position of some configurations; whether the text may end there is asked if it is not told."""
        key = configurations[0] if len(configurations) == 1 else frozenset(configurations)
        position = self._positions.get(key)
        if position is None:
            if accepts is None:
                accepts = any(map(self.machine.accepts, configurations))
            position = self._positions[key] = Position(self, configurations, accepts=accepts)
        return position

    def tighten(self) -> None:
        """Look for a shorter way to the end of a text, with tokens that span lexemes.

        A text of least cost is spelled anew with the fewest tokens, and the positions on the way remember how. Other texts
        may be shorter still; so the cost stays an upper bound.
        """
        with self.lock:
            self._tighten()

    def _tighten(self) -> None:
        position, text = self.start(), b""
        for left in range(int(position.cost), 0, -1):
            if position.accepts:  # already, by a token that spans lexemes
                break
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
        best: list[list[int] | None] = [[]]  # for the last i bytes; None where no tokens spell them
        for i in range(1, len(text) + 1):
            tail = text[len(text) - i :]
            rests = [(ids[tail[:n]], best[i - n]) for n in range(1, i + 1) if tail[:n] in ids]
            best.append(min(([token, *rest] for token, rest in rests if rest is not None), key=len, default=None))
        return best[-1] or []

    def whole_mask(self, position: Position, *, counting: int) -> tuple[NDArray[np.int32] | None, float]:
        """The mask without a budget, and how many tokens suffice after each of it, see `Explorer.allow`; None if only `mask` can tell."""
        if self._explorer is None:
            return None, math.inf
        enough = self._explorer.allow(self._scratch, position.configurations, counting=counting)
        return self._finished(position, self._scratch), enough

    def _finished(self, position: Position, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """A mask with the end of the text, where it may end, as it is kept."""
        if position.accepts:
            for token in self.vocabulary.eos_token_ids:
                masks.allow(words, token)
        return self._keep(position, words)

    def mask(
        self, position: Position, plan: tuple[int, float] | None, most: float
    ) -> tuple[list[float], NDArray[np.int32]]:
        """The token mask at a position.

        Args:
            position: where the text stands.
            plan: a token and the cost after it, if a shorter way than those of whole lexemes is known.
            most: the cost after a token up to which it is allowed.

        Returns:
            The costs after all tokens, each once, in ascending order; and the mask of those within `most`, and of the end of
            the text, where it may end.
        """
        costs = set[float]() if plan is None else {plan[1]}
        found: dict[Reached, None] = {}
        for arrival in self.arrivals(position):
            costs.add(arrival.cost)
            if arrival.cost <= most:
                found[arrival.reached] = None
        words = masks.empty(self.vocabulary.size)
        self._walks.collect(words, list(found))
        if plan is not None and plan[1] <= most:
            masks.allow(words, plan[0])
        return sorted(costs), self._finished(position, words)

    def grouped(self, position: Position) -> list[tuple[Position, NDArray[np.int32]]]:
        """The allowed tokens by the position that they lead to, which the arrivals that they are in make up."""
        with self.lock:
            return self._grouped(position)

    def _grouped(self, position: Position) -> list[tuple[Position, NDArray[np.int32]]]:
        arrivals = list(self.arrivals(position))
        marks = np.zeros(self.machine.trie.table.shape[1], np.uint64)  # of each node: the arrivals that it is in
        for number, arrival in enumerate(arrivals, 1):
            nodes = arrival.reached.nodes
            marks[nodes] = marks[nodes] * _SPREAD + np.uint64(number)
        of_tokens = marks[self._node_of]
        (allowed,) = np.nonzero(of_tokens)
        if not len(allowed):
            return []
        allowed = allowed[np.argsort(of_tokens[allowed], kind="stable")]
        borders = np.flatnonzero(np.diff(of_tokens[allowed])) + 1
        first = allowed[np.append(0, borders)]
        groups: dict[Position, list[NDArray[np.int32]]] = {}
        for after, tokens in zip(
            self._positions_at(position, first, arrivals),
            np.split(self.machine.trie.ids[allowed].astype(np.int32), borders),
            strict=True,
        ):
            if after is not None:
                groups.setdefault(after, []).append(tokens)
        return [(after, parts[0] if len(parts) == 1 else np.concatenate(parts)) for after, parts in groups.items()]

    def _positions_at(
        self, position: Position, places: NDArray[np.int64], arrivals: list[Arrival]
    ) -> list[Position | None]:
        """The positions after tokens, which are given by their places among the trie's ids and are in different arrivals."""
        if self.machine.joins:
            return [position.step(int(token)) for token in self.machine.trie.ids[places]]
        number = np.full(self.machine.trie.table.shape[1], -1)
        number[self._node_of[places]] = np.arange(len(places))
        found: list[list[Configuration]] = [[] for _ in places]
        for arrival in arrivals:
            here = number[arrival.reached.nodes]
            for i in here[here >= 0].tolist():
                found[i].append(arrival.configuration)
        return [self._intern(configurations) for configurations in found]

    @cached_property
    def _node_of(self) -> NDArray[np.int64]:
        """The trie's node of each token, in the order of the trie's ids."""
        first = self.machine.trie.table[tries.FIRST]
        return np.repeat(np.arange(len(first) - 1), np.diff(first))

    def _keep(self, position: Position, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """A mask that equals this one, and which no one overwrites; equal ones are one, whose memory was touched before.

        The memory of all is bounded: those of the oldest positions are forgotten first.
        """
        number = masks.digest(words)
        kept = self._masks.get(number)
        if kept is None or not masks.equal(kept, words):
            kept = self._masks[number] = words.copy()
        self._kept.append(position)
        while len(self._kept) > 1 and (
            len(self._masks) * words.nbytes > self._mask_bytes or len(self._kept) > _MAX_POSITIONS
        ):
            self._kept.popleft().forget_masks()
        return kept

    def arrivals(self, position: Position) -> Iterator[Arrival]:
        """Every configuration in which allowed tokens leave the text, with those tokens' trie nodes.

        A node where no token ends may be among them; it stands for a lexeme that ends inside longer tokens.
        """
        waiting: dict[int, _Layer] = {}
        for here in position.configurations:
            yield from self._arrive(here, self._walks.from_root(here.lexer), 0, waiting)
        while waiting:
            place = min(waiting)
            for here, roots, lasting in self._joined(waiting.pop(place)):
                walk = self._walks.walk if lasting else self._walks.walk_once
                yield from self._arrive(here, walk(here.lexer, roots), place, waiting)

    def _arrive(
        self, here: Configuration, walked: list[Reached], place: int, waiting: dict[int, _Layer]
    ) -> Iterator[Arrival]:
        """Arrivals of one walk; what begins where lexemes end waits, to be walked later.

        Where the machine joins configurations, all that begins at one depth waits for one another, else what begins with
        the same number of lexemes.
        """
        machine = self.machine
        for reached in walked:
            inside = Configuration(here.node, reached.state)
            cost = machine.cost(inside)
            if cost < math.inf:
                yield Arrival(cost, inside, (), reached)
            for ending, after in machine.ends(inside):
                cost = machine.cost(after)
                if cost < math.inf:
                    yield Arrival(cost, after, ending.terminals, reached)
                elif not self._gaps:
                    continue
                if ending.ignored and after == here and machine.automaton.is_free(here.lexer):
                    continue  # the walk has gone on from there by itself
                parts = reached.by_depth(machine.trie) if machine.joins else ((place + 1, reached),)
                for depth, part in parts:
                    waiting.setdefault(depth, {}).setdefault(after, []).append(part)

    def _joined(self, layer: _Layer) -> Iterator[tuple[Configuration, tuple[Reached, ...], bool]]:
        """What to walk for a layer, and whether the roots will be met again, so that the walk is worth keeping.

        Where several configurations stand at the same nodes, the machine may join them; such roots are made for this once.
        """
        if not self.machine.joins or len(layer) == 1:
            for here, roots in layer.items():
                yield here, tuple(roots), True
            return
        nodes = np.unique(np.concatenate([root.nodes for roots in layer.values() for root in roots]))
        here_at = np.stack([np.isin(nodes, np.concatenate([r.nodes for r in roots])) for roots in layer.values()])
        if (here_at.sum(0) == 1).all():
            for here, roots in layer.items():
                yield here, tuple(roots), True
            return
        sets, which = np.unique(here_at, axis=1, return_inverse=True)
        configurations = list(layer)
        for i in range(sets.shape[1]):
            together = [configurations[j] for j in np.flatnonzero(sets[:, i])]
            part = Reached(-1, nodes[which.reshape(-1) == i])
            for here in self.machine.join(together):
                yield here, (part,), False
