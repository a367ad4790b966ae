"""A token automaton as a potential: ψ is 1 where an accepted text can still be finished, else 0.

It is the automaton's hard mask and knows no model; a lookahead that weighs the ways to finish multiplies with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ctrldecode.automata.dfa import UNREACHABLE
from ctrldecode.core.hard import HardPotential
from ctrldecode.errors import AutomatonError, BudgetError
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.automata.dfa import TokenDFA

__all__ = ["AutomatonPotential", "AutomatonState"]

# Memory for masks that may be asked for again: 5,000 of them at 50,000 tokens.
_MASK_BYTES = 1 << 25


class AutomatonState(NamedTuple):
    """State of an `AutomatonPotential`, batch on axis 0.

    Attributes:
        states: (B,) int32, where the automaton is; −1 once no accepted text begins with what was read.
        left: (B,) float64, new tokens that may still come; infinite without a limit.
        ended: (B,) bool, whether an end-of-sequence token was read.
    """

    states: NDArray[np.int32]
    left: NDArray[np.float64]
    ended: NDArray[np.bool_]


class AutomatonPotential(HardPotential[AutomatonState]):
    """Decoding within the texts of an automaton, with a guaranteed finish.

    With δ the transitions and d(q) the fewest tokens from state q to an accepting one, token v has weight 1 if and only if
    d(δ(q, v)) ≤ the tokens that are left after v; an end-of-sequence token has weight 1 where q accepts. It is the support of
    the lookahead of Ctrl-G (Zhang et al. 2024), exact for the budget. The prompt is not part of the text.

    Attributes:
        dfa: the automaton.
        name: how messages call it.

    Example:
        >>> import torch
        >>> from ctrldecode.automata import TokenDFA
        >>> twice = AutomatonPotential(TokenDFA([[1, -1], [2, -1], [-1, -1]], 0, [2], 1))
        >>> state = twice.init(torch.zeros(1, 1), budget=torch.tensor([2]))
        >>> twice.log_weights(state)
        tensor([[0., -inf]])
    """

    def __init__(self, dfa: TokenDFA, name: str = "the automaton") -> None:
        """A potential of an automaton.

        Raises:
            AutomatonError: it accepts nothing at all.
        """
        if dfa.is_empty:
            raise AutomatonError(
                f"{name} accepts no text, so nothing could be generated; its conditions exclude one another, or the vocabulary "
                "cannot spell what they ask for"
            )
        self.size: int = dfa.size
        self.dfa = dfa
        self.name = name
        self.fingerprint: str = dfa.fingerprint
        reachable = dfa.accept_distance[dfa.accept_distance < UNREACHABLE]
        self._farthest = int(reachable.max())  # with so many tokens left nothing is forbidden for want of budget
        self._row = lru_cache(maxsize=max(1, _MASK_BYTES // (4 * masks.width(self.size))))(self._packed)

    @property
    def shortest(self) -> int:
        """Number of tokens of the shortest accepted text, without the end-of-sequence token."""
        return int(self.dfa.accept_distance[self.dfa.start])

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> AutomatonState:
        """Every row at the empty text; see `Potential.init`. The prompts' content and padding do not matter.

        Raises:
            BudgetError: a row's budget is below the number of tokens of the shortest text.
        """
        del mask
        rows = len(prompts)
        left = np.full(rows, np.inf) if budget is None else budget.cpu().numpy().astype(np.float64)
        if left.min(initial=np.inf) < self.shortest:
            raise BudgetError(
                f"the shortest text of {self.name} needs {self.shortest} tokens, but only {left.min():.0f} are allowed; raise "
                "max_new_tokens"
            )
        return AutomatonState(np.full(rows, self.dfa.start, np.int32), left, np.zeros(rows, np.bool_))

    def mask(self, state: AutomatonState) -> NDArray[np.int32]:
        words = np.empty((len(state.states), masks.width(self.size)), np.int32)
        levels = np.clip(state.left - 1, -1, self._farthest).tolist()
        for row, (where, level, ended) in enumerate(
            zip(state.states.tolist(), levels, state.ended.tolist(), strict=True)
        ):
            words[row] = -1 if ended else 0 if where < 0 else self._row(where, int(level))
        return words

    def _packed(self, where: int, level: int) -> NDArray[np.int32]:
        """The mask (W,) of a state with so many tokens left after the next one."""
        following = self.dfa.table[where]
        fits = (following >= 0) & (self.dfa.accept_distance[following] <= level)
        words = masks.pack(fits[self.dfa.classes])
        if self.dfa.accepting[where]:
            for token in self.dfa.eos_token_ids:
                masks.allow(words, token)
        return words

    def step(self, state: AutomatonState, tokens: Tensor) -> AutomatonState:
        """One more token a row; see `Potential.step`."""
        ids = tokens.cpu().numpy()
        ended = state.ended | np.isin(ids, self.dfa.eos_token_ids)
        states = np.where(ended, state.states, self.dfa.step(state.states, ids))
        return AutomatonState(states, state.left - 1, ended)

    def describe(self) -> str:
        """One line for error messages."""
        return self.name
