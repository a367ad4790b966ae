"""Every exception that ctrldecode raises on purpose.

    CtrldecodeError
    ├── VocabularyError      a tokenizer cannot be mapped to bytes, or two vocabularies disagree
    ├── GrammarError         a grammar cannot be read or compiled            (also a ValueError)
    │   ├── ConflictError        LALR tables cannot decide between rules
    │   └── GrammarLimitError    compiling or masking would pass a stated limit
    ├── AutomatonError       a token automaton cannot be built               (also a ValueError)
    │   └── AutomatonLimitError  building one would pass a stated limit
    ├── DistillationError    a distillation cannot start or go on
    ├── PotentialError       a potential broke its law (NaN, +inf, wrong shape)
    ├── BudgetError          no text that satisfies the constraint fits into the tokens allowed
    ├── DeadEnd              every next token of a row has weight zero
    ├── ModelError           a model, its cache or its files cannot be used here
    └── InputError           an argument or a file of the caller is wrong     (also a ValueError)
        └── TableLimitError      a lookahead table would pass a stated limit

    GrammarWarning           a grammar works, but is likely not what was meant    (a UserWarning)

A message says what happened, what was wanted, what was got, and the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AutomatonError",
    "AutomatonLimitError",
    "BudgetError",
    "ConflictError",
    "CtrldecodeError",
    "DeadEnd",
    "DistillationError",
    "GrammarError",
    "GrammarLimitError",
    "GrammarWarning",
    "InputError",
    "ModelError",
    "PotentialError",
    "TableLimitError",
    "VocabularyError",
]


class CtrldecodeError(Exception):
    """Root of all errors raised by ctrldecode."""


class VocabularyError(CtrldecodeError):
    """A tokenizer cannot be mapped to bytes, or two vocabularies disagree."""


class GrammarError(CtrldecodeError, ValueError):
    """A grammar cannot be read or compiled."""


class ConflictError(GrammarError):
    """An LALR parser cannot tell which of two rules ends at a place; a general parser can."""


class GrammarLimitError(GrammarError):
    """Compiling a grammar, or a mask, would pass a limit that the message names."""


class AutomatonError(CtrldecodeError, ValueError):
    """A token automaton cannot be built."""


class AutomatonLimitError(AutomatonError):
    """Building a token automaton would pass a limit that the message names."""


class DistillationError(CtrldecodeError):
    """A distillation cannot start or go on."""


class GrammarWarning(UserWarning):
    """A grammar works, but is likely not what was meant."""


class PotentialError(CtrldecodeError):
    """A potential broke its law: NaN, +inf, a wrong shape, or an impossible quotient."""


class BudgetError(CtrldecodeError):
    """No text that satisfies the constraint fits into the tokens allowed."""


class ModelError(CtrldecodeError):
    """A model, its cache or its files cannot be used here."""


class InputError(CtrldecodeError, ValueError):
    """An argument or a file of the caller is wrong."""


class TableLimitError(InputError):
    """A lookahead table would pass a limit that the message names."""


class DeadEnd(CtrldecodeError):  # noqa: N818  the field's name for it
    """Every next token of a row has weight zero.

    Attributes:
        row: index of the row in the batch.
        prefix: token ids of the row so far, prompt included.
        potential: description of the potential that removed the last token.
    """

    def __init__(self, row: int, prefix: Sequence[int], potential: str) -> None:
        self.row = row
        self.prefix: tuple[int, ...] = tuple(prefix)
        self.potential = potential
        tail = list(self.prefix[-12:])
        super().__init__(
            f"row {row}: no token can follow the prefix ending in ids {tail}; {potential} gives weight 0 to "
            "all that the model allows. Loosen the constraint, raise max_new_tokens, or pass on_dead_end='stop'."
        )
