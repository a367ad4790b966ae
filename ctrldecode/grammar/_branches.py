"""Where the tokens that a grammar allows lead in a grammar and an automaton at once. It knows no budgets and no searches.

Tokens that lead to the same position and are in the same class of the automaton lead to the same place, whatever the automaton's
state is; so a position is asked once for all states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.grammar._language import Language
    from ctrldecode.grammar._position import Position

__all__ = ["Branches", "branches"]


class Branches(NamedTuple):
    """The M kinds of tokens that are allowed at a position.

    Attributes:
        positions: (P,) where they lead in the grammar.
        costs: (P,) tokens with which each of them is complete; see `Position.cost_by_lexemes`.
        which: (M,) the position that each kind leads to, by its number.
        classes: (M,) the kind's class in the automaton.
        borders: (M + 1,) where its tokens begin among all.
        tokens: (N,) int32, the tokens of one kind after those of another.
    """

    positions: list[Position]
    costs: NDArray[np.float64]
    which: NDArray[np.int64]
    classes: NDArray[np.int64]
    borders: NDArray[np.int64]
    tokens: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Memory, without that of the positions."""
        return self.tokens.nbytes + self.which.nbytes + self.classes.nbytes + self.borders.nbytes + 16 * len(self.costs)

    def of_kinds(self, kinds: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The tokens of some kinds (M,)."""
        return self.tokens[np.repeat(kinds, np.diff(self.borders))]


def branches(language: Language, position: Position, dfa: TokenDFA) -> Branches:
    """The kinds of tokens that are allowed at a position and that the automaton knows."""
    groups = language.grouped(position)
    tokens = np.concatenate([np.zeros(0, np.int32), *(tokens for _, tokens in groups)])
    width = dfa.table.shape[1]
    kinds = np.repeat(np.arange(len(groups)) * width, [len(tokens) for _, tokens in groups]) + dfa.classes[tokens]
    order = np.argsort(kinds, kind="stable")
    kinds, tokens = kinds[order], tokens[order]
    first = np.flatnonzero(np.diff(kinds, prepend=-1))
    which, classes = np.divmod(kinds[first], width)
    positions = [after for after, _ in groups]
    costs = np.array([after.cost_by_lexemes for after in positions])
    return Branches(positions, costs, which, classes, np.append(first, len(tokens)), tokens)
