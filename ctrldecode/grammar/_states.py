"""The arrays of a deterministic automaton whose states are found on demand; it does not know what a state stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.errors import GrammarLimitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["States"]


class States:
    """Transitions and matches by state.

    Attributes:
        delta: (n, 256) int32, the next state or −1; rows past the last state are room to grow.
        match: (n,) int32, ≥ 0 where a lexeme can end, else −1.
        again: (n,) bool, where an ignored lexeme can end that hands nothing on.
        limit: the number of states past which there are no more.
    """

    def __init__(self, limit: int) -> None:
        """Begin with room for a few."""
        self.limit = limit
        self.delta: NDArray[np.int32] = np.full((64, 256), -1, np.int32)
        self.match: NDArray[np.int32] = np.full(64, -1, np.int32)
        self.again: NDArray[np.bool_] = np.zeros(64, np.bool_)

    def reserve(self, state: int) -> None:
        """Make room for a state; what was taken from the attributes before may then be out of date.

        Raises:
            GrammarLimitError: the limit is passed.
        """
        if state >= self.limit:
            raise GrammarLimitError(
                f"the terminals need more than {self.limit} lexer states (limit max_lexer_states); simplify terminals that overlap or "
                "repeat a bounded number of times, or raise the limit"
            )
        if state >= len(self.match):
            self.delta = np.concatenate([self.delta, np.full_like(self.delta, -1)])
            self.match = np.concatenate([self.match, np.full_like(self.match, -1)])
            self.again = np.concatenate([self.again, np.zeros_like(self.again)])
