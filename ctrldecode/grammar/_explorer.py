"""The masks and steps of lalr mode in compiled kernels: a grammar's arrays, and the answers to what the kernels ask.

Stacks and walks are kept in arrays, in bounded memory: where there is no more room, all is forgotten. Whatever cannot be
told without a search is left to the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctrldecode.errors import GrammarLimitError
from ctrldecode.grammar import _arrays
from ctrldecode.grammar._dfa import NO_CARRY
from ctrldecode.grammar._machine import Configuration
from ctrldecode.grammar._stack import before_lexemes
from ctrldecode.kernels._borrow import Lender
from ctrldecode.kernels.tokens import explore as kernels
from ctrldecode.kernels.tokens import stacks, walks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.grammar._dfa import Carry, Ending
    from ctrldecode.grammar._lalr import LalrMachine
    from ctrldecode.grammar._stack import Node

__all__ = ["BOUND", "COUNT", "Explorer"]

BOUND, COUNT = kernels.BOUND, kernels.COUNT

Kernel = Callable[[NDArray[np.int64], NDArray[np.int32], NDArray[Any], int], int]

# Stacks that are kept, 50 bytes each and some more if their costs were asked for; a mask makes some hundreds of new ones.
_STACKS = 1 << 17
_WALKS = 2048  # to begin with; what is not used of these takes addresses only
_QUESTIONS = 256  # at a time; what finds no place is asked again
_PLACES = 32  # configurations of a position, to begin with; nearly always it has one or two
_PIECE = 256  # bytes of a text at a time, which may need as many stacks and more
# Configurations that are prepared, at most: as many of SQL take 0.1 s, and of JSON there are 174. Where there are many lexer states one costs
# more, so fewer are; SQL has 450.
_AHEAD = 512
_AHEAD_STATES = 512 * 512
_STACKS_AHEAD = 128  # of them before a lexeme: JSON has 50, and SQL as many as states in which a lexeme begins


class Explorer:
    """What the kernels know of one grammar over one vocabulary."""

    def __init__(self, machine: LalrMachine, size: int, limit: int) -> None:
        """Begin with the parser's tables only.

        Args:
            machine: what is asked.
            size: of the vocabulary.
            limit: bytes of walks from which on all are forgotten.
        """
        self._machine, self._limit = machine, limit
        self._lender = Lender(*kernels.LENT)
        self._parser = _arrays.parser(machine.tables, machine.lexer_of)
        self._carries: dict[Carry, int] = {}
        self._endings: dict[Ending, int] = {}
        self._edges = 0
        nothing = np.zeros((0, 2), np.int32)
        flags = np.zeros(0, np.bool_)
        by_carry = np.full((max(machine.lexer_of) + 1, 16), kernels.UNKNOWN, np.int32)
        whole = np.array([machine.spelling.whole])
        self._lexers = walks.Lexers(
            machine.automaton.delta, machine.automaton.match, flags, flags, np.zeros(0, np.int32),
            np.zeros((0, 3), np.int32), nothing, np.zeros((256, 2), np.int32), by_carry, by_carry.copy(), whole,
        )  # fmt: skip
        self._known = 0  # lexer states that the arrays have
        self._walks = walks.empty_walks(0, (size + 31) // 32, _WALKS)
        self._found = kernels.Found(
            np.zeros((512, 3), np.int32),
            np.zeros((_QUESTIONS, 3), np.int32),
            np.zeros((_PLACES, 4), np.int32),
            np.zeros(4, np.int64),
        )
        self._entry = np.empty((1, 2), np.int32)
        self._forget_stacks(_STACKS)
        self._learn_states()

    @property
    def _least(self) -> int:
        """What must be told of completions: where some terminals cannot be spelled, whether there is one is a question of its cost."""
        return COUNT if self._machine.spelling.partial else 0

    @property
    def countings(self) -> tuple[int, ...]:
        """In what ways completions are counted, the one that takes least first."""
        return (BOUND, COUNT) if self._least < BOUND else (COUNT,)

    def allow(self, words: NDArray[np.int32], configurations: Sequence[Configuration], *, counting: int) -> float:
        """Fill a mask (W,), in place, with every token that leads from some configurations to such as can be completed.

        Args:
            words: the mask.
            configurations: where the text stands.
            counting: `COUNT`, `BOUND` or 0.

        Returns:
            Tokens that suffice to complete a text after any of them, a larger number by `BOUND` than by `COUNT`; infinity for 0.
        """
        counting = max(counting, self._least)
        self._run(kernels.explore, configurations, words, counting=counting)
        unsure, _, most, _ = self._found.tally.tolist()
        own, trie = self._walks, self._machine.trie
        for node, lexer, group in self._found.unsure[:unsure].tolist() if unsure else ():
            cost = self._machine.cost(Configuration(self._node(node), lexer))
            if cost < math.inf:
                walks.allow(own.groups, own.nodes, own.masks, trie.table, trie.ids, words, group)
                most = max(most, cost)
        return most if counting else math.inf

    def prepare(self, root: Node) -> None:
        """Find ahead what first masks and steps need: before a lexeme, on stacks of two states each, and wherever tokens lead from there.

        It ends where the room to begin with does, or half of the lexer states that there may be, and makes no searches.

        Args:
            root: the stack of the empty text.
        """
        with suppress(GrammarLimitError):  # which is for the texts that need so many states, if there are any
            self._prepare(root)

    def _prepare(self, root: Node) -> None:
        machine, counting = self._machine, self._least
        most = min(_AHEAD, _AHEAD_STATES // len(machine.automaton))
        words = np.zeros(self._walks.masks.shape[1], np.int32)
        nodes = before_lexemes(machine.tables, root, min(most, _STACKS_AHEAD))
        waiting = [Configuration(node, machine.lexer_before(node.state, NO_CARRY)) for node in nodes]
        known = {(machine.lexer_of[here.node.state], here.lexer) for here in waiting}
        for here in waiting:  # grows
            if 2 * len(machine.automaton) > machine.automaton.limit:
                break
            ended = self._ask(kernels.explore, [here], words, counting=counting)
            if ended not in (kernels.DONE, kernels.MORE_DOUBTS):
                break
            if self._lexers.edge_row[here.lexer, 0] < 0:
                self._answer(kernels.EDGES, here.lexer, 0)
            if len(waiting) < most:
                waiting += self._after_tokens(here, known)[: most - len(waiting)]

    def _after_tokens(self, here: Configuration, known: set[tuple[int, int]]) -> list[Configuration]:
        """Where whole tokens lead, once for each lexer of a parser state and each lexer state; and where lexemes can end there."""
        own, kinds = self._walks, self._machine.lexer_of
        reached = own.groups[own.members[slice(*own.rows[own.root[here.lexer]])]]
        states = set(reached[reached[:, walks.TOKENS] > 0, walks.STATE].tolist())
        found: list[Configuration] = []

        def add(way: Configuration) -> bool:
            key = (kinds[way.node.state], way.lexer)
            if key in known:
                return False
            known.add(key)
            found.append(way)
            return True

        for inside in [Configuration(here.node, state) for state in sorted(states)]:
            for ending, after in self._machine.ends(inside) if add(inside) else ():
                self._ending(ending)
                self._lexers.starts[kinds[after.node.state], self._carries[ending.carry]] = after.lexer
                add(after)
        return found

    def forget(self) -> None:
        """Forget all stacks; those of a new root are others."""
        self._forget_stacks(len(self._pool.nodes))

    def after(self, configurations: Sequence[Configuration], text: bytes) -> tuple[list[Configuration], bool]:
        """Where a text of one byte or more leads from some configurations, and whether it may end there; only what can be completed."""
        machine, ends = self._machine, False
        for first in range(0, len(text), _PIECE):
            piece = np.frombuffer(text, np.uint8, min(_PIECE, len(text) - first), first)
            self._run(kernels.advance, configurations, piece, counting=self._least)
            places = self._found.places[: self._found.tally[3]].tolist()
            found = [(Configuration(self._node(node), lexer), lives) for node, lexer, lives, _ in places]
            configurations = [here for here, lives in found if lives or machine.lives(here)]
            ends = any(place[kernels.ENDS] for place in places)
            if not configurations:
                break
        return list(configurations), ends

    def _run(
        self, kernel: Kernel, configurations: Sequence[Configuration], data: NDArray[Any], *, counting: int
    ) -> None:
        """Run a kernel, with the room that it needs."""
        forgot = False
        while (ended := self._ask(kernel, configurations, data, counting=counting)) != kernels.DONE:
            self._make_way(ended, forgot=forgot)
            forgot |= ended in (kernels.MORE_STACKS, kernels.MORE_WALKS)

    def _ask(
        self, kernel: Kernel, configurations: Sequence[Configuration], data: NDArray[Any], *, counting: int
    ) -> int:
        """Run a kernel until it has no more questions; how it ended."""
        if self._known < len(self._machine.automaton):
            self._learn_states()
        if counting and not len(self._parser.item):
            self._parser = _arrays.with_costs(self._parser, self._machine.tables, self._machine.spelling.cost)
        while True:
            entries = self._entries(configurations)
            ended = kernel(self._lent(), entries, data, counting)
            if ended != kernels.ASK:
                return ended
            for what, a, b in sorted(set(map(tuple, self._found.questions[: self._found.tally[1]].tolist()))):
                self._answer(what, a, b)
            self._learn_states()

    def _lent(self) -> NDArray[np.int64]:
        """What kernels borrow."""
        return self._lender.lend(self._machine.trie, self._parser, self._lexers, self._pool, self._walks, self._found)

    def _make_way(self, ended: int, *, forgot: bool) -> None:
        """Make the room that the kernel lacks; if to forget the old was not enough, more of it."""
        if ended == kernels.MORE_STACKS:
            self._forget_stacks(len(self._pool.nodes) * (2 if forgot else 1))
        elif ended == kernels.MORE_DOUBTS:
            self._found = self._found._replace(unsure=np.zeros((2 * self._found.tally[0], 3), np.int32))
        elif ended == kernels.MORE_PLACES:
            self._found = self._found._replace(places=np.zeros((2 * len(self._found.places), 4), np.int32))
        else:
            self._enlarge_walks(forgot=forgot)

    def _answer(self, what: int, a: int, b: int) -> None:
        machine, lexers = self._machine, self._lexers
        if what == kernels.EDGES:
            edges = [(self._ending(ending), length) for ending, length in machine.spelling.edges(a)]
            first, last = self._edges, self._edges + len(edges)
            if last > len(self._lexers.edge):
                self._lexers = self._lexers._replace(edge=_longer(self._lexers.edge, 2 * last))
            self._lexers.edge[first:last] = np.array(edges, np.int32).reshape(-1, 2)
            self._lexers.edge_row[a] = first, last
            self._edges = last
            return
        carry = list(self._carries)[b]
        if what == kernels.STARTS:
            lexers.starts[a, b] = machine.automaton.start(machine.lexers[a], carry)
        else:
            slack = machine.spelling.slack(a, carry)
            lexers.slack[a, b] = kernels.UNSAFE if slack is None else slack

    def _ending(self, ending: Ending) -> int:
        """The number of an ending, and room for it and its carry."""
        number = self._endings.setdefault(ending, len(self._endings))
        if number == len(self._endings) - 1:
            carry = self._carries.setdefault(ending.carry, len(self._carries))
            lexers = self._lexers
            if number >= len(lexers.endings):
                self._lexers = lexers = lexers._replace(endings=_longer(lexers.endings, 2 * number + 16))
            lexers.endings[number] = ending.terminals[0], ending.ignored, carry
            if carry >= lexers.starts.shape[1]:
                unknown = np.full_like(lexers.starts, kernels.UNKNOWN)
                self._lexers = lexers._replace(
                    starts=np.hstack([lexers.starts, unknown]), slack=np.hstack([lexers.slack, unknown])
                )
        return number

    def _learn_states(self) -> None:
        """Take in the lexer states that the automaton has found since."""
        automaton, first = self._machine.automaton, self._known
        endings: list[int] = []
        while len(endings) + first < len(automaton):  # to ask for the endings of one may add others
            own = automaton.endings(first + len(endings))
            endings.append(self._ending(own[0]) if own else -1)
        room = len(automaton.delta)
        lexers = self._lexers
        self._lexers = lexers = lexers._replace(
            delta=automaton.delta,
            match=automaton.match,
            again=automaton.again,
            free=_longer(lexers.free, room),
            ending=_longer(lexers.ending, room),
            edge_row=_longer(lexers.edge_row, room, -1),
        )
        self._walks = self._walks._replace(root=_longer(self._walks.root, room, -1))
        lexers.ending[first : len(automaton)] = endings
        lexers.free[first : len(automaton)] = [automaton.is_free(state) for state in range(first, len(automaton))]
        self._known = len(automaton)

    def _enlarge_walks(self, *, forgot: bool) -> None:
        """Twice as much room for walks, or the same anew if that would be too much."""
        old = self._walks
        if not forgot and 2 * sum(array.nbytes for array in old) > self._limit:
            old.used[:] = 0
            old.root[:] = stacks.NONE
            old.buckets[:] = stacks.NONE
            return
        kept = {"root": old.root, "buckets": old.buckets, "used": old.used}
        longer = {name: _longer(array, 2 * len(array)) for name, array in old._asdict().items() if name not in kept}
        self._walks = walks.Walks(**kept, **longer)

    def _forget_stacks(self, size: int) -> None:
        # The pool last, since an interrupt may come between: a number in another pool is another stack.
        self._numbers: dict[Node, int] = {}
        self._nodes: dict[int, Node] = {}
        self._pool = stacks.empty_pool(size)

    def _entries(self, configurations: Sequence[Configuration]) -> NDArray[np.int32]:
        """The number of each one's stack, and its lexer state; all anew where there is no more room."""
        numbers = [self._number(c.node) for c in configurations]
        if stacks.FULL in numbers:
            needed = sum(c.node.height() for c in configurations)
            self._forget_stacks(max(len(self._pool.nodes), 2 * needed))
            numbers = [self._number(c.node) for c in configurations]
        if len(numbers) == 1:  # nearly always, and an array that is made takes longer than the rest
            self._entry[0, 0], self._entry[0, 1] = numbers[0], configurations[0].lexer
            return self._entry
        return np.array([(number, c.lexer) for number, c in zip(numbers, configurations, strict=True)], np.int32)

    def _number(self, node: Node) -> int:
        """The number of a stack in the pool, and of all below it; FULL if there is no room for them."""
        known = self._numbers.get(node)
        if known is not None:
            return known
        way: list[Node] = []
        here: Node | None = node
        while here is not None and here not in self._numbers:
            way.append(here)
            here = here.below
        base = stacks.NONE if here is None else self._numbers[here]
        states = np.array([stack.state for stack in reversed(way)], np.int32)
        numbers = kernels.climb(self._lent(), base, states).tolist()
        if numbers[-1] == stacks.FULL:
            return stacks.FULL
        self._numbers.update(zip(reversed(way), numbers, strict=True))
        self._nodes.update(zip(numbers, reversed(way), strict=True))
        return numbers[-1]

    def _node(self, number: int) -> Node:
        """The stack of a number."""
        numbers, nodes, item = self._numbers, self._nodes, self._pool.nodes.item
        way: list[int] = []
        while number not in nodes:
            way.append(number)
            number = item(number, stacks.BELOW)
        node = nodes[number]
        while way:
            number = way.pop()
            nodes[number] = node = node.push(item(number, stacks.STATE))
            numbers[node] = number
        return node


def _longer(array: NDArray[np.generic], rows: int, fill: int = 0) -> NDArray[Any]:
    """A copy with so many rows, if there were fewer; the new ones are filled with a number."""
    if rows <= len(array):
        return array
    longer = np.empty((rows, *array.shape[1:]), array.dtype)
    longer[: len(array)], longer[len(array) :] = array, fill
    return longer
