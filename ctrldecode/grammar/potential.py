"""A compiled grammar as a potential: ψ is 1 where some text of the language can still be finished, else 0.

It knows positions and masks; how they come about is in the private modules beside it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctrldecode.core.hard import HardPotential
from ctrldecode.errors import BudgetError
from ctrldecode.grammar._language import Language
from ctrldecode.grammar.joint import JointPotential, Limit
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.grammar._machine import Machine
    from ctrldecode.grammar._position import Position

__all__ = ["GrammarPotential", "GrammarState"]


class GrammarState(NamedTuple):
    """State of a `GrammarPotential`, batch on axis 0.

    Attributes:
        positions: where each row's text stands; None once no text of the language begins with it.
        left: for each row, new tokens that may still come; infinite without a limit.
        ended: for each row, whether an end-of-sequence token was read.
    """

    positions: list[Position | None]
    left: list[float]
    ended: list[bool]


class GrammarPotential(HardPotential[GrammarState]):
    """Grammar-constrained decoding with a guaranteed finish.

    A token has weight 1 if some text of the language starts with the text so far and the token and, with a budget, can be
    finished within it; otherwise 0. An end-of-sequence token has weight 1 where the text is in the language. The prompt is
    not part of the text. The number of tokens a completion needs is the exact minimum over texts in which no token spans
    two lexemes, hence an upper bound of the true minimum: what is promised to fit does fit. A budget below that for the
    whole text makes `init` look for a shorter way with tokens that do span lexemes.

    This is the "grammar-constrained decoding" of Geng et al. (2023) as an upper bound of expected future grammaticality
    (Park et al. 2024, section 3).

    Attributes:
        vocabulary: the tokens it is compiled for.
        language: the grammar's machine over that vocabulary, for `ctrldecode.grammar.explain`.
        name: how messages call the grammar.
    """

    def __init__(
        self, machine: Machine[Any], vocabulary: Vocabulary, name: str, mask_bytes: int, digest: Callable[[], str]
    ) -> None:
        self.size: int = vocabulary.size
        self.vocabulary = vocabulary
        self.language: Language = Language(machine, vocabulary, mask_bytes)
        self.name = name
        self._digest = digest
        self._eos = frozenset(vocabulary.eos_token_ids)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # as an attribute it would slow down every compilation
        """Hex digest of the rules, terminals and vocabulary."""
        return self._digest()

    @property
    def shortest(self) -> int:
        """Number of tokens, at most, of the shortest text of the language, without the end-of-sequence token.

        It falls when a budget below it makes `init` look harder.
        """
        return int(self.language.start().cost)

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> GrammarState:
        """Every row at the empty text; see `Potential.init`. The prompts' content and padding do not matter.

        Raises:
            BudgetError: a row's budget is below the number of tokens of the shortest text that could be found.
        """
        del mask
        left: list[float] = [math.inf] * len(prompts) if budget is None else budget.tolist()
        least = min(left, default=math.inf)
        if least < math.inf and least < self.shortest:
            self.language.tighten()
        if least < math.inf and least < self.shortest:
            raise BudgetError(
                f"the shortest text of {self.describe()} that was found needs {self.shortest} tokens, but only {least:.0f} are allowed; "
                "raise max_new_tokens"
            )
        return GrammarState([self.language.start()] * len(prompts), left, [False] * len(prompts))

    def mask(self, state: GrammarState) -> NDArray[np.int32]:
        words = np.empty((len(state.positions), masks.width(self.size)), np.int32)
        for row, (position, left, ended) in enumerate(zip(*state, strict=True)):
            words[row] = -1 if ended else 0 if position is None else position.mask(left)
        return words

    def step(self, state: GrammarState, tokens: Tensor) -> GrammarState:
        """One more token a row; see `Potential.step`."""
        ids: list[int] = tokens.tolist()
        ended = [done or token in self._eos for done, token in zip(state.ended, ids, strict=True)]
        positions = [
            position if done or position is None else position.step(token)
            for position, token, done in zip(state.positions, ids, ended, strict=True)
        ]
        return GrammarState(positions, [left - 1 for left in state.left], ended)

    def within(self, dfa: TokenDFA, *, limit: Limit = "open") -> JointPotential:
        """The texts of the grammar that an automaton accepts, with a guaranteed finish for both together.

        A product of both lets a text go on until one forbids what the other wants; see `JointPotential`.

        Args:
            dfa: the automaton.
            limit: "open": being cut off at the end of a text is fine, as it is for the grammar. "eos": the end of sequence must come within
                the budget; give it if a `Lookahead` beside it has that limit.

        Raises:
            InputError: the automaton is over a vocabulary of another size, or the limit is another.
        """
        return JointPotential(self, dfa, limit=limit)

    def accepts(self, text: str | bytes) -> bool:
        """Whether a whole text is in the language."""
        data = text.encode() if isinstance(text, str) else text
        start = self.language.start()
        position = self.language.after(start, data) if data else start
        return position is not None and position.accepts

    def describe(self) -> str:
        """One line for error messages."""
        return f"the grammar {self.name}"
