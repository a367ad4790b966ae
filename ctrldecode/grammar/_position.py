"""A position in a language: the live configurations of a text, the token masks there, and the next positions.

Which tokens a budget allows depends on how many more a text needs after each; masks are kept by what the budget covers. How masks and
next positions come about is the language's matter.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from ctrldecode.errors import InputError
from ctrldecode.grammar._machine import Configuration

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ctrldecode.grammar._language import Language

__all__ = ["Position"]


class Position:
    """A place in a text of the language; compare by identity.

    Attributes:
        accepts: whether the text may end here.
    """

    __slots__ = (
        "_cost",
        "_costs",
        "_counted",
        "_enough",
        "_first",
        "_here",
        "_language",
        "_masks",
        "_next",
        "_others",
        "_plan",
        "_whole",
        "accepts",
    )  # made in great numbers: dictionaries and tuples are made when needed

    def __init__(self, language: Language, configurations: Sequence[Configuration], *, accepts: bool) -> None:
        self._language = language
        self._first: int | None = None  # a token, and the position after it
        self._next: Position | None = None
        self._others: dict[int, Position | None] | None = None  # after other tokens
        self._whole: NDArray[np.int32] | None = None  # the mask without a bound
        self._enough = math.inf  # tokens with which all of it can be completed
        self._counted = 0  # how closely they were counted, see `Language.countings`
        self._costs: Sequence[float] = ()  # after the tokens, ascending; known once there is a mask
        self._masks: dict[int, NDArray[np.int32]] | None = None  # by the number of costs that the budget covers
        self._plan: tuple[int, float] | None = None
        self._here = configurations[0] if len(configurations) == 1 else tuple(configurations)
        self.accepts = accepts
        self._cost = 0.0 if self.accepts else None

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The live ones; each can still be completed."""
        here = self._here
        return (here,) if isinstance(here, Configuration) else here

    @property
    def cost(self) -> float:
        """A number of tokens that suffices to complete the text, 0 where it may end."""
        return self.cost_by_lexemes if self._plan is None else min(self.cost_by_lexemes, self._plan[1] + 1)

    @property
    def cost_by_lexemes(self) -> float:
        """The same without what was planned: whatever token leads here is allowed if this is within the budget, and stays so."""
        if self._cost is None:
            with self._language.lock:
                self._cost = min((self._language.machine.cost(c) for c in self.configurations), default=math.inf)
        return self._cost

    def step(self, token: int) -> Position | None:
        """The position after a token; None if no text of the language goes on that way."""
        if token == self._first:
            return self._next
        if self._others is None or token not in self._others:
            vocabulary = self._language.vocabulary
            if not 0 <= token < vocabulary.size:
                raise InputError(f"token id {token} is out of range: the vocabulary has ids 0 to {vocabulary.size - 1}")
            after = self._language.after(self, vocabulary.tokens[token])
            self._note(token, after)
            return after
        return self._others[token]

    def _note(self, token: int, after: Position | None) -> None:
        """Remember where a token leads; others may look meanwhile, so the token is the last to be set."""
        with self._language.lock:
            if self._first is None:
                self._next = after
                self._first = token
            elif token != self._first:
                others = self._others or {}
                others[token] = after
                self._others = others

    def mask(self, budget: float = math.inf) -> NDArray[np.int32]:
        """The packed mask of tokens after which the text can be finished within a budget, counted with the token itself.

        Nearly always a budget is enough for all tokens; else masks are kept by the costs that it covers.
        """
        known = self._whole
        if known is not None and budget - 1 >= self._enough:
            return known
        with self._language.lock:  # other threads may forget masks
            if self._whole is None and budget == math.inf:
                self._whole, _ = self._language.whole_mask(self, counting=0)
            for counting in self._language.countings:
                if budget < math.inf and (self._whole is None or self._counted < counting):
                    self._whole, self._enough = self._language.whole_mask(self, counting=counting)
                    self._counted = counting
                if self._whole is not None and budget - 1 >= self._enough:
                    return self._whole
            words = self._masks.get(bisect_right(self._costs, budget - 1)) if self._masks else None
            if words is None:
                self._costs, words = self._language.mask(self, self._plan, budget - 1)
                if self._masks is None:
                    self._masks = {}
                self._masks[bisect_right(self._costs, budget - 1)] = words
            return words

    def forget_masks(self) -> None:
        """Free the masks; they are computed again when they are asked for."""
        self._masks = self._whole = None

    def plan(self, token: int, rest: int) -> None:
        """Note that a text is complete with this token and `rest` more, if no shorter way was known."""
        if rest + 1 < self.cost:
            self._plan, self._masks = (token, rest), None
