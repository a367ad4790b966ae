"""An exact decision for stacks that a search cannot settle: how a push-down machine can leave a frame, summarised.

The parser of a text to come pushes and pops; a frame is one state on its stack. Its summary is the set of ways in which the
machine can pop it: the terminal that is then waiting to be read, what the lexer carries, and the reduction under way.
Summaries of all frames are one least fixpoint, with least costs in tokens (procedure summaries of push-down systems: Reps,
Schwoon, Jha and Melski 2005, "Weighted pushdown systems and their application to interprocedural dataflow analysis").
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.errors import GrammarLimitError
from ctrldecode.grammar._dfa import NO_CARRY, Carry
from ctrldecode.grammar._lark import NOTHING

if TYPE_CHECKING:
    from ctrldecode.grammar._lalr import LalrMachine
    from ctrldecode.grammar._machine import Configuration, Edge
    from ctrldecode.grammar._stack import Node

__all__ = ["Summaries"]


class _Exit(NamedTuple):
    """A frame was popped by a reduction that still pops `depth` states, then recognises `name`; `terminal` waits."""

    terminal: int
    carry: Carry
    depth: int
    name: str


class _Frame(NamedTuple):
    """A parser state on top of the stack. `terminal` is None before a lexeme is read, else the one that waits."""

    state: int
    terminal: int | None
    carry: Carry


_Exits = dict[_Exit, float]
_ACCEPT = _Exit(NOTHING, NO_CARRY, -1, "")  # the text is complete; it pops nothing


class Summaries:
    """Summaries of the frames asked for so far."""

    def __init__(self, machine: LalrMachine, limit: int) -> None:
        self._machine, self._limit = machine, limit
        self._exits: dict[_Frame, _Exits] = {}
        self._readers: dict[_Frame, set[_Frame]] = {}
        self._waiting: list[_Frame] = []

    def cost(self, configuration: Configuration) -> float:
        """The least number of tokens that complete a text from here; infinite if none does. See `Machine.cost`."""
        order = count()
        heap: list[tuple[float, int, Node, _Exit]] = []
        done: set[tuple[int, _Exit]] = set()

        def push(spent: float, node: Node, exits: _Exits) -> None:
            for way, more in exits.items():
                heapq.heappush(heap, (spent + more, next(order), node, way))

        for spent, frame in self._first_frames(configuration):
            push(spent, configuration.node, self._solve(frame))
        while heap:
            spent, _, node, way = heapq.heappop(heap)
            if way == _ACCEPT:
                return spent
            if (id(node), way) in done:
                continue
            done.add((id(node), way))
            rest = node.pop(way.depth + 1)
            state = self._machine.tables.gotos[rest.state].get(way.name)
            if state is None:
                continue
            if way.terminal == NOTHING and state == self._machine.tables.end_state:
                return spent
            push(spent, rest.push(state), self._solve(_Frame(state, way.terminal, way.carry)))
        return math.inf

    def _first_frames(self, configuration: Configuration) -> list[tuple[float, _Frame]]:
        state = configuration.node.state
        frames = [
            (
                float(edge.tokens),
                _after(state, edge),
            )
            for edge in self._machine.edges(configuration.lexer)
        ]
        at_boundary = self._machine.automaton.is_boundary(configuration.lexer)
        return [*frames, (0.0, _Frame(state, NOTHING, NO_CARRY))] if at_boundary else frames

    def _solve(self, frame: _Frame) -> _Exits:
        self._get(frame)
        while self._waiting:
            here = self._waiting.pop()
            exits = self._before_lexeme(here) if here.terminal is None else self._with_lookahead(here, here.terminal)
            if exits != self._exits[here]:
                self._exits[here] = exits
                self._waiting.extend(self._readers[here])
        return self._exits[frame]

    def _get(self, frame: _Frame, reader: _Frame | None = None) -> _Exits:
        if frame not in self._exits:
            if len(self._exits) >= self._limit:
                raise GrammarLimitError(
                    f"deciding whether a text can be completed passed {self._limit} summaries (limit max_search); raise the limit, or "
                    "simplify terminals that begin or end alike"
                )
            self._exits[frame], self._readers[frame] = {}, set()
            self._waiting.append(frame)
        if reader is not None:
            self._readers[frame].add(reader)
        return self._exits[frame]

    def _before_lexeme(self, frame: _Frame) -> _Exits:
        exits: _Exits = dict(self._get(_Frame(frame.state, NOTHING, NO_CARRY), frame))
        for edge in self._machine.edges(self._machine.lexer_before(frame.state, frame.carry)):
            inner = self._get(_after(frame.state, edge), frame)
            for way, spent in inner.items():
                exits[way] = min(exits.get(way, math.inf), spent + edge.tokens)
        return exits

    def _with_lookahead(self, frame: _Frame, terminal: int) -> _Exits:
        tables = self._machine.tables
        if terminal in tables.shifts[frame.state]:
            above = _Frame(tables.shifts[frame.state][terminal], None, frame.carry)
            return self._resolve(frame, self._get(above, frame))
        if terminal in tables.reduces[frame.state]:
            popped, name = tables.reduces[frame.state][terminal]
            if popped:
                return {_Exit(terminal, frame.carry, popped - 1, name): 0.0}
            return self._resolve(frame, {_Exit(terminal, frame.carry, 0, name): 0.0})
        return {}

    def _resolve(self, frame: _Frame, above: _Exits) -> _Exits:
        """Exits of a frame, given those of the frame above it: reductions that end on it go on from its goto."""
        tables = self._machine.tables
        exits: _Exits = {}
        best = dict(above)
        waiting = list(above)
        while waiting:
            way = waiting.pop()
            spent = best[way]
            if way.depth != 0:
                out = way if way == _ACCEPT else way._replace(depth=way.depth - 1)
                exits[out] = min(exits.get(out, math.inf), spent)
                continue
            state = tables.gotos[frame.state].get(way.name)
            if state is None:
                continue
            if way.terminal == NOTHING and state == tables.end_state:
                exits[_ACCEPT] = min(exits.get(_ACCEPT, math.inf), spent)
                continue
            for further, more in self._get(_Frame(state, way.terminal, way.carry), frame).items():
                if spent + more < best.get(further, math.inf):
                    best[further] = spent + more
                    waiting.append(further)
        return exits


def _after(state: int, edge: Edge) -> _Frame:
    return _Frame(state, None if edge.ending.ignored else edge.ending.terminals[0], edge.ending.carry)
