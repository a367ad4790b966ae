"""Texts that are in a grammar's language and accepted by a token automaton, with a guaranteed finish for both together.

Each alone knows which tokens leave it a way to the end; together they may leave none, as when a list is closed before the word that
must stand in it. Here a token is allowed if a text of both is left within the budget. It knows both by what they say of tokens:
positions of the grammar, states of the automaton.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ctrldecode.automata.dfa import UNREACHABLE
from ctrldecode.core.hard import HardPotential
from ctrldecode.errors import BudgetError, GrammarLimitError, InputError
from ctrldecode.grammar._branches import Branches, branches
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.grammar._position import Position
    from ctrldecode.grammar.potential import GrammarPotential, GrammarState

__all__ = ["JointPotential", "JointState"]

Limit = Literal["open", "eos"]
_LIMITS = get_args(Limit)

_MOST_PLACES = 5_000  # that one search may visit
_MOST_KNOWN = 50_000  # places that are remembered
_MOST_BYTES = 1 << 28  # of the branches of positions
_FEW = 64  # tokens that are asked for one by one, sooner than all at once
_DETOUR = 8  # tokens that come no nearer to the end are as bad as one that leads away from it
_MOST_ENDINGS = 4  # that are tried again, of each state


class JointState(NamedTuple):
    """State of a `JointPotential`, batch on axis 0.

    Attributes:
        grammar: the grammar's; of what is left, a token for the end is taken away where it must come within the budget.
        states: for each row, where the automaton is; −1 once no accepted text begins with what was read.
    """

    grammar: GrammarState
    states: list[int]


class _Place(NamedTuple):
    """A place in the product of both."""

    position: Position
    state: int


class _Onward(NamedTuple):
    """The way on from a place: how many tokens suffice, the first of them, and where it leads; None at the end."""

    left: float
    token: int
    place: _Place | None


_END = _Onward(0.0, -1, None)


class JointPotential(HardPotential[JointState]):
    """Grammar and automaton at once: a token has weight 1 if and only if a text of both can be finished after it, within the budget.

    Whether a text can be completed within a budget is found by best-first search over the places of both (Hart, Nilsson and Raphael
    1968), each the grammar's position and the automaton's state. The way found is remembered, and tried first from other places with
    the same state. It is one that there is, hence a budget is never too low for what is allowed; it may be called so by what the
    grammar's own count is too high (see `GrammarPotential`).

    In earley mode an ambiguous grammar may have so many positions that a search is given up (`GrammarLimitError`), in a mask too; without
    a budget, a grammar that nests without end may have as many in either mode.

    The first masks take time: a place is searched for by walking the vocabulary from it. Multiply with grammar and lookahead as they
    are; what they forbid is forbidden here, too, if `limit` is the lookahead's.

    Args:
        grammar: the grammar.
        dfa: the automaton.
        limit: "open": being cut off at the end of a text is fine. "eos": the end of sequence must come within the budget.
        max_places: that one search may visit.

    Raises:
        InputError: they are over vocabularies of other sizes, or the limit is another.
    """

    def __init__(
        self, grammar: GrammarPotential, dfa: TokenDFA, *, limit: Limit = "open", max_places: int = _MOST_PLACES
    ) -> None:
        if limit not in _LIMITS:
            raise InputError(f"limit must be one of {', '.join(_LIMITS)}, got {limit!r}")
        if grammar.size != dfa.size:
            raise InputError(
                f"the grammar is compiled for {grammar.size} tokens and the automaton for {dfa.size}; build both from one Vocabulary"
            )
        self.size: int = grammar.size
        self.grammar = grammar
        self.dfa = dfa
        self.limit: Limit = limit
        known = f"{grammar.fingerprint}&{dfa.fingerprint}" if grammar.fingerprint else ""
        self.fingerprint: str = f"{known}&eos" if known and limit == "eos" else known
        self._ends = 1 if limit == "eos" else 0  # tokens of a budget that are kept for the end
        self._most = max_places
        self._branches: dict[Position, Branches] = {}
        self._branch_bytes = 0
        self._closer: dict[int, NDArray[np.int64]] = {}  # tokens with which each state is nearer to acceptance
        self._onward: dict[_Place, _Onward] = {}  # a way to the end, from places where one was found
        self._endings: dict[int, deque[_Place]] = {}  # such places of each state, the last one found first
        self._beyond: dict[_Place, float] = {}  # tokens that do not suffice
        self._dead: set[_Place] = set()  # from where there is no way

    @property
    def shortest(self) -> int:
        """Number of tokens, at most, of the shortest text of both, without the end-of-sequence token.

        Raises:
            BudgetError: there is no such text.
            GrammarLimitError: the search visited too many places.
        """
        return int(self._checked(math.inf, self._search(self._start, math.inf, shortest=True)))

    @property
    def _start(self) -> _Place:
        return _Place(self.grammar.language.start(), self.dfa.start)

    def _checked(self, most: float, least: float) -> float:
        if least == most == math.inf:
            raise BudgetError(
                f"there is no text of {self.describe()}, so nothing could be generated; loosen one of the two"
            )
        if least > most:
            end = ", the end of sequence among them" if self._ends else ""
            raise BudgetError(
                f"no text of {self.describe()} was found that needs at most {most + self._ends:.0f} tokens{end}; raise max_new_tokens, or loosen "
                "one of the two"
            )
        return least

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> JointState:
        """Every row at the empty text; see `Potential.init`. The prompts' content and padding do not matter.

        Raises:
            BudgetError: there is no text of both, or none that was found within a row's budget.
            GrammarLimitError: the search visited too many places.
        """
        del mask
        left: list[float] = [math.inf] * len(prompts) if budget is None else (budget - self._ends).tolist()
        self._forget()
        most = min(left, default=math.inf)
        self._checked(most, self._cost(self._start, most))
        rows = self.grammar.init(prompts)._replace(left=left)
        return JointState(rows, [self.dfa.start] * len(prompts))

    def mask(self, state: JointState) -> NDArray[np.int32]:
        self._forget()
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

    def _forget(self, most: int = _MOST_KNOWN) -> None:
        """Bound the memory of what was found."""
        if len(self._onward) + len(self._beyond) + len(self._dead) > most or self._branch_bytes > _MOST_BYTES:
            self._branches, self._branch_bytes = {}, 0
            self._onward, self._endings, self._beyond, self._dead = {}, {}, {}, set()

    def _mask(self, place: _Place, left: float) -> NDArray[np.int32]:
        allowed = np.zeros(self.size, np.bool_)
        found = self._branches_from(place.position)
        kinds = np.zeros(len(found.which), np.bool_)
        for after, members in self._within(place, found, left - 1)[0]:
            if self._cost(after, left - 1) < math.inf:
                kinds[members] = True
        allowed[found.of_kinds(kinds)] = True
        if self._accepts(place):
            allowed[list(self.grammar.vocabulary.eos_token_ids)] = True
        return masks.pack(allowed)

    def _accepts(self, place: _Place) -> bool:
        return place.position.accepts and bool(self.dfa.accepting[place.state])

    def _within(
        self, place: _Place, found: Branches, most: float
    ) -> tuple[list[tuple[_Place, NDArray[np.int64]]], bool]:
        """Where the tokens lead that each of both allows within a budget for what follows, and the kinds that lead there.

        The second value tells whether there are others, without a budget.
        """
        following = self.dfa.table[place.state, found.classes]
        bound = np.maximum(found.costs[found.which], self.dfa.accept_distance[following])
        allowed = following >= 0
        (kinds,) = np.nonzero(allowed & (bound <= most))
        keys = found.which[kinds] * self.dfa.states + following[kinds]
        order = np.argsort(keys, kind="stable")
        kinds = kinds[order]
        groups = np.split(kinds, np.flatnonzero(np.diff(keys[order])) + 1) if len(kinds) else []
        ways = [(_Place(found.positions[found.which[one[0]]], int(following[one[0]])), one) for one in groups]
        return ways, len(kinds) < int(np.count_nonzero(allowed))

    def _next(self, here: _Place, left: float) -> tuple[list[tuple[_Place, int]], bool]:
        """Places after one token that may be within what is left, each with such a token; and whether budgets forbid others.

        Where the automaton needs all that is left, only few tokens will do, as a rule, and the grammar is asked for each of them.
        """
        known = here.position in self._branches
        few = None if known or left > self.dfa.accept_distance[here.state] else self._tokens_closer(here)
        if few is None:
            found = self._branches_from(here.position)
            ways, cut = self._within(here, found, left - 1)
            return [(place, int(found.tokens[found.borders[members[0]]])) for place, members in ways], cut
        following = self.dfa.table[here.state, self.dfa.classes[few]].tolist()
        steps = [
            (here.position.step(token), state, token) for token, state in zip(few.tolist(), following, strict=True)
        ]
        return [(_Place(after, state), token) for after, state, token in steps if after is not None], True

    def _tokens_closer(self, here: _Place) -> NDArray[np.int64] | None:
        """The tokens with which the automaton is nearer to acceptance, if they are few, or few of them are the grammar's."""
        closer = self._closer.get(here.state)
        if closer is None:
            distance, row = self.dfa.accept_distance, self.dfa.table[here.state]
            nearer = (row >= 0) & (distance[row] < distance[here.state])
            (closer,) = np.nonzero(nearer[self.dfa.classes])
            if len(closer) <= _FEW:
                self._closer[here.state] = closer
            else:
                closer = closer[masks.bits(here.position.mask(), self.size)[closer]]
        return closer if len(closer) <= _FEW else None

    def _branches_from(self, position: Position) -> Branches:
        found = self._branches.get(position)
        if found is None:
            found = self._branches[position] = branches(self.grammar.language, position, self.dfa)
            self._branch_bytes += found.nbytes
        return found

    def _bound(self, place: _Place) -> float:
        """Tokens that each of both wants at least, as far as they know."""
        distance = int(self.dfa.accept_distance[place.state])
        return math.inf if distance >= UNREACHABLE else max(place.position.cost_by_lexemes, float(distance))

    def _cost(self, source: _Place, most: float) -> float:
        """Tokens that suffice to finish a text of both from a place; infinite if more than `most` would be needed."""
        if source in self._dead:
            return math.inf
        known = self._retold(source, most)
        if known <= most and known < math.inf:
            return known
        return math.inf if self._beyond.get(source, -1.0) >= most else self._search(source, most)

    def _retold(self, place: _Place, most: float) -> float:
        """Tokens that suffice from a place by an ending that is known: its own, or that of another place with the same state.

        The automaton accepts it there; whether the grammar does is tried, if its own does not suffice. Infinite if there is none.
        """
        onward = self._known(place)
        for other in self._endings.get(place.state, ()):
            if onward is not None and onward.left <= most:
                break
            if self._onward[other].left <= most:
                self._retell(place, other)
                onward = self._known(place)
        return math.inf if onward is None else onward.left

    def _known(self, place: _Place) -> _Onward | None:
        """The way on from a place that was found for itself; none where the text may end, whatever ways go on from there."""
        onward = self._onward.get(place)
        if onward is None and self._accepts(place):
            onward = self._onward[place] = _END
        return onward

    def _retell(self, place: _Place, other: _Place) -> None:
        """Note the tokens that finish a text from another place for this one, if they do so here."""
        path, onward = [place], self._onward[other]
        tokens = list[int]()
        while (known := self._known(path[-1])) is None or known.left > onward.left:
            after = None if onward.place is None else path[-1].position.step(onward.token)
            if after is None or onward.place is None:
                return
            path.append(_Place(after, onward.place.state))
            tokens.append(onward.token)
            onward = self._onward[onward.place]
        self._note(path, tokens)

    def _note(self, path: list[_Place], tokens: list[int]) -> None:
        """Note the way along a path, whose last place is known.

        A place needs no fewer tokens than each of both says that it needs, so that what is allowed here is allowed there.
        """
        left = self._onward[path[-1]].left
        for i in range(len(path) - 2, -1, -1):
            left = max(left + 1, self._bound(path[i]))
            known = self._known(path[i])
            if known is None or left < known.left:
                self._onward[path[i]] = _Onward(left, tokens[i], path[i + 1])
            left = self._onward[path[i]].left

    def _search(self, source: _Place, most: float, *, shortest: bool = False) -> float:
        """Find a way to the end within a budget, the `shortest`, or one that comes soon."""
        order = count(0, -1)  # of equal bounds, the last one found goes first: depth before breadth
        heap: list[tuple[float, float, int, float, bool, _Place, tuple[_Place, int] | None]] = [
            (0.0, 0.0, next(order), 0.0, False, source, None)
        ]
        before: dict[_Place, tuple[_Place, int] | None] = {}
        # The fewest tokens that lead there. Fewer may come later: the bounds are not consistent.
        reached: dict[_Place, float] = {}
        cut = False  # whether something was left out for want of budget
        while heap:
            *_, spent, finished, here, parent = heapq.heappop(heap)
            if finished:
                return self._remember(here, before)
            bound = spent + self._bound(here)
            if spent >= reached.get(here, math.inf) or here in self._dead or bound == math.inf:
                continue
            if bound > most or spent + self._beyond.get(here, -1.0) >= most:
                cut = True
                continue
            before[here], reached[here] = parent, spent
            total = spent + self._retold(here, most - spent)
            if total <= most and total < math.inf:
                if not shortest or total == bound:
                    return self._remember(here, before)
                heapq.heappush(heap, (0.0, total, next(order), spent, True, here, None))
            if len(before) > self._most:
                raise GrammarLimitError(
                    f"whether a text of {self.describe()} can be finished was not decided after {self._most} places (limit max_places); raise "
                    "the limit, or loosen one of the two"
                )
            ways, beyond = self._next(here, most - spent)
            cut = cut or beyond
            for place, token in ways:
                if spent + 1 < reached.get(place, math.inf):
                    rank = (0.0, spent + 1 + self._bound(place)) if shortest else self._rank(place, spent + 1, most)
                    heapq.heappush(heap, (*rank, next(order), spent + 1, False, place, (here, token)))
        if cut:
            for place, spent in reached.items():
                self._beyond[place] = max(most - spent, self._beyond.get(place, -1.0))
        else:
            self._dead.update(before)
        return math.inf

    def _rank(self, place: _Place, spent: float, most: float) -> tuple[float, float]:
        """What to try first: what fits if no token serves both, and of that what is nearer to the end, whatever it took to come there.

        What it took counts a little, so that a way that comes no nearer is left in the end.
        """
        guess = place.position.cost_by_lexemes + float(self.dfa.accept_distance[place.state])
        return max(0.0, spent + guess - most), guess + spent // _DETOUR

    def _remember(self, last: _Place, before: dict[_Place, tuple[_Place, int] | None]) -> float:
        """Note the way from the search's source, and return how many tokens it has left."""
        path, tokens = [last], list[int]()
        while (parent := before[path[-1]]) is not None:
            path.append(parent[0])
            tokens.append(parent[1])
        path.reverse()
        tokens.reverse()
        self._note(path, tokens)
        for place in path:
            self._endings.setdefault(place.state, deque(maxlen=_MOST_ENDINGS)).appendleft(place)
        return self._onward[path[0]].left
