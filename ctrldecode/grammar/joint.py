"""Texts that are in a grammar's language and accepted by a token automaton, with a guaranteed finish for both together.

Each alone knows which tokens leave it a way to the end; together they may leave none, as when a list is closed before the word that
must stand in it. Here a token is allowed if a text of both is left within the budget. It knows both by what they say of tokens:
positions of the grammar, states of the automaton.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctrldecode.automata.dfa import UNREACHABLE
from ctrldecode.core.hard import HardPotential
from ctrldecode.errors import BudgetError, GrammarLimitError, InputError
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.grammar._position import Position
    from ctrldecode.grammar.potential import GrammarPotential, GrammarState

__all__ = ["JointPotential", "JointState"]

_MOST_PLACES = 5_000  # that one search may visit
_MOST_WAYS = 50_000  # places whose tokens are remembered


class JointState(NamedTuple):
    """State of a `JointPotential`, batch on axis 0.

    Attributes:
        grammar: the grammar's.
        states: for each row, where the automaton is; −1 once no accepted text begins with what was read.
    """

    grammar: GrammarState
    states: list[int]


class _Place(NamedTuple):
    """A place in the product of both."""

    position: Position
    state: int


class _Way(NamedTuple):
    """Tokens after which a text stands at one place."""

    place: _Place
    tokens: NDArray[np.int64]


class JointPotential(HardPotential[JointState]):
    """Grammar and automaton at once: a token has weight 1 if and only if a text of both can be finished after it, within the budget.

    How many tokens a completion needs is found by best-first search over the places of both (Hart, Nilsson and Raphael 1968), each the
    grammar's position and the automaton's state, and is remembered along the way that was found. It is the length of a text that
    there is, hence never too low; it may be too high by what the grammar's own count is (see `GrammarPotential`).

    In earley mode an ambiguous grammar may have so many positions that a search is given up (`GrammarLimitError`), in a mask too.

    The first masks take time: a place is searched for by walking the vocabulary from it. Multiply with grammar and lookahead as they
    are; what they forbid is forbidden here, too.

    Attributes:
        grammar: the grammar.
        dfa: the automaton.

    Raises:
        InputError: they are over vocabularies of other sizes.
    """

    def __init__(self, grammar: GrammarPotential, dfa: TokenDFA, *, max_places: int = _MOST_PLACES) -> None:
        if grammar.size != dfa.size:
            raise InputError(
                f"the grammar is compiled for {grammar.size} tokens and the automaton for {dfa.size}; build both from one Vocabulary"
            )
        self.size: int = grammar.size
        self.grammar = grammar
        self.dfa = dfa
        self.fingerprint: str = f"{grammar.fingerprint}&{dfa.fingerprint}" if grammar.fingerprint else ""
        self._most = max_places
        self._tokens_from: dict[Position, list[tuple[Position, NDArray[np.int64]]]] = {}
        self._ways: dict[_Place, list[_Way]] = {}
        self._left: dict[_Place, float] = {}  # tokens that suffice to finish; infinite where nothing does
        self._beyond: dict[_Place, float] = {}  # tokens that do not suffice

    @property
    def shortest(self) -> int:
        """Number of tokens, at most, of the shortest text of both, without the end-of-sequence token.

        Raises:
            BudgetError: there is no such text.
            GrammarLimitError: the search visited too many places.
        """
        return int(self._shortest(math.inf))

    def _shortest(self, most: float) -> float:
        least = self._cost(_Place(self.grammar.language.start(), self.dfa.start), most)
        if least == most == math.inf:
            raise BudgetError(
                f"there is no text of {self.describe()}, so nothing could be generated; loosen one of the two"
            )
        if least > most:
            raise BudgetError(
                f"no text of {self.describe()} was found that needs at most {most:.0f} tokens; raise max_new_tokens, or loosen one of the two"
            )
        return least

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> JointState:
        """Every row at the empty text; see `Potential.init`. The prompts' content and padding do not matter.

        Raises:
            BudgetError: there is no text of both, or none that was found within a row's budget.
            GrammarLimitError: the search visited too many places.
        """
        del mask
        left: list[float] = [math.inf] * len(prompts) if budget is None else budget.tolist()
        self._shortest(min(left, default=math.inf))
        rows = self.grammar.init(prompts)._replace(left=left)
        return JointState(rows, [self.dfa.start] * len(prompts))

    def mask(self, state: JointState) -> NDArray[np.int32]:
        rows = zip(state.grammar.positions, state.states, state.grammar.left, state.grammar.ended, strict=True)
        words = np.zeros((len(state.states), masks.width(self.size)), np.int32)
        for row, (position, where, left, ended) in enumerate(rows):
            if ended:
                words[row] = -1
            elif position is not None and where >= 0:
                words[row] = self._mask(_Place(position, where), left)
        return words

    def step(self, state: JointState, tokens: Tensor) -> JointState:
        """One more token a row; see `Potential.step`."""
        after = self.grammar.step(state.grammar, tokens)
        states = [
            where if ended or where < 0 else int(self.dfa.table[where, self.dfa.classes[token]])
            for where, token, ended in zip(state.states, tokens.tolist(), after.ended, strict=True)
        ]
        return JointState(after, states)

    def fewest(self, state: JointState) -> list[float]:
        """For each row, tokens that suffice to finish a text of both; infinite where there is none within what is left."""
        rows = zip(state.grammar.positions, state.states, state.grammar.left, strict=True)
        return [
            math.inf if position is None or where < 0 else self._cost(_Place(position, where), left)
            for position, where, left in rows
        ]

    def describe(self) -> str:
        """One line for error messages."""
        return f"{self.grammar.describe()} within the automaton of {self.dfa.states} states"

    def _mask(self, place: _Place, left: float) -> NDArray[np.int32]:
        allowed = np.zeros(32 * masks.width(self.size), np.bool_)
        for way in self._ways_from(place):
            cost = self._cost(way.place, left - 1)
            if cost < math.inf and cost <= left - 1:
                allowed[way.tokens] = True
        if self._accepts(place):
            allowed[list(self.grammar.vocabulary.eos_token_ids)] = True
        return np.packbits(allowed, bitorder="little").view(np.int32)

    def _accepts(self, place: _Place) -> bool:
        return place.position.accepts and bool(self.dfa.accepting[place.state])

    def _ways_from(self, place: _Place) -> list[_Way]:
        """Where the tokens lead that each of both allows."""
        found = self._ways.get(place)
        if found is None:
            if len(self._ways) > _MOST_WAYS:
                self._ways, self._tokens_from = {}, {}
            found = self._ways[place] = []
            for position, tokens in self._tokens(place.position):
                following = self.dfa.table[place.state, self.dfa.classes[tokens]]
                for state in np.unique(following[following >= 0]).tolist():
                    found.append(_Way(_Place(position, state), tokens[following == state]))
        return found

    def _tokens(self, position: Position) -> list[tuple[Position, NDArray[np.int64]]]:
        """Tokens that the grammar allows, by the position that they lead to."""
        found = self._tokens_from.get(position)
        if found is None:
            found = self._tokens_from[position] = self._grouped(position)
        return found

    def _grouped(self, position: Position) -> list[tuple[Position, NDArray[np.int64]]]:
        """One step of the grammar for all tokens that are in the same arrivals, since these make up the position."""
        allowed = masks.bits(position.mask(), self.size)
        allowed[list(self.grammar.vocabulary.eos_token_ids)] = False
        tokens = np.flatnonzero(allowed)
        marks = np.zeros(self.size, np.uint64)
        for number, members in enumerate(self.grammar.language.members(position), 1):
            marks[members] = marks[members] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number)
        groups: dict[Position, list[NDArray[np.int64]]] = {}
        kinds, first = np.unique(marks[tokens], return_index=True)
        for kind, place in zip(kinds, first.tolist(), strict=True):
            after = position.step(int(tokens[place]))
            if after is not None:
                groups.setdefault(after, []).append(tokens[marks[tokens] == kind])
        return [(after, np.concatenate(parts)) for after, parts in groups.items()]

    def _bound(self, place: _Place) -> float:
        """Tokens that each of both wants at least, as far as they know."""
        distance = int(self.dfa.accept_distance[place.state])
        return math.inf if distance >= UNREACHABLE else max(place.position.cost, float(distance))

    def _cost(self, source: _Place, most: float) -> float:
        """Tokens that suffice to finish a text of both from a place; infinite if more than `most` would be needed."""
        known = self._left.get(source)
        if known is not None:
            return known
        return math.inf if self._beyond.get(source, -1.0) >= most else self._search(source, most)

    def _search(self, source: _Place, most: float) -> float:
        order = count(0, -1)  # of equal bounds, the last one found goes first: depth before breadth
        heap: list[tuple[float, int, float, bool, _Place, Any]] = [
            (self._bound(source), next(order), 0.0, False, source, None)
        ]
        before: dict[_Place, tuple[_Place | None, float]] = {}
        cut = False  # whether something was left out for want of budget
        while heap:
            bound, _, spent, finished, here, parent = heapq.heappop(heap)
            if finished:
                return self._remember(here, before, bound)
            if here in before or bound == math.inf:
                continue
            if bound > most:
                cut = True
                continue
            before[here] = (parent, spent)
            if len(before) > self._most:
                raise GrammarLimitError(
                    f"whether a text of {self.describe()} can be finished was not decided after {self._most} places (limit max_places); raise "
                    "the limit, or loosen one of the two"
                )
            known = 0.0 if self._accepts(here) else self._left.get(here)
            if known is not None:
                if known < math.inf:
                    heapq.heappush(heap, (spent + known, next(order), spent, True, here, None))
                continue
            for way in self._ways_from(here):
                if way.place not in before:
                    least = spent + 1 + self._bound(way.place)
                    heapq.heappush(heap, (least, next(order), spent + 1, False, way.place, here))
        if cut:
            self._beyond[source] = most
        else:
            self._left.update(dict.fromkeys(before, math.inf))
        return math.inf

    def _remember(self, last: _Place, before: dict[_Place, tuple[_Place | None, float]], total: float) -> float:
        """The cost of the search's source; that of every place on the way is noted."""
        here: _Place | None = last
        while here is not None:
            here_before, spent = before[here]
            self._left[here] = min(total - spent, self._left.get(here, math.inf))
            here = here_before
        return total
