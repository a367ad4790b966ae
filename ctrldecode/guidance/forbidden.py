"""Tokens that no text may hold, such as the codes of a class LM. It knows ids only."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ctrldecode.core.hard import HardPotential
from ctrldecode.guidance._codes import as_set, check_whole
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.guidance.gedi import GeDi

__all__ = ["ForbiddenTokens", "ForbiddenTokensState", "without_codes"]


class ForbiddenTokensState(NamedTuple):
    """Which rows have ended.

    Attributes:
        finished: (B,) bool on the CPU.
    """

    finished: Tensor


class ForbiddenTokens(HardPotential[ForbiddenTokensState]):
    """Weight 0 for some token ids, 1 for all others.

    Args:
        tokens: the ids that are forbidden.
        size: V, the number of token ids that the model's head scores.
        eos_token_ids: ids that end a text.

    Raises:
        InputError: a size that is none, or ids outside [0, V).

    Example:
        >>> potential = ForbiddenTokens([1], size=3, eos_token_ids=[2])
        >>> potential.log_weights(potential.init(torch.tensor([[0]])))
        tensor([[0., -inf, 0.]])
    """

    def __init__(self, tokens: Iterable[int], *, size: int, eos_token_ids: Iterable[int]) -> None:
        self.size: int = check_whole(size, "size", 1, "it is how many token ids the model's head scores")
        self.tokens: tuple[int, ...] = as_set(tokens, self.size, "tokens")
        self.eos_token_ids: tuple[int, ...] = as_set(eos_token_ids, self.size)
        self.fingerprint: str = hashlib.sha256(f"{self.tokens} {self.size} {self.eos_token_ids}".encode()).hexdigest()
        self._words = masks.empty(self.size)
        for token in set(range(self.size)).difference(self.tokens):
            masks.allow(self._words, token)

    def init(
        self,
        prompts: Tensor,
        mask: Tensor | None = None,  # noqa: ARG002
        budget: Tensor | None = None,  # noqa: ARG002
    ) -> ForbiddenTokensState:
        """State after the prompts (B, P), whatever they hold."""
        return ForbiddenTokensState(torch.zeros(len(prompts), dtype=torch.bool))

    def mask(self, state: ForbiddenTokensState) -> NDArray[np.int32]:
        """Packed masks; see `HardPotential.mask`."""
        return np.where(state.finished.numpy()[:, None], np.int32(-1), self._words)

    def step(self, state: ForbiddenTokensState, tokens: Tensor) -> ForbiddenTokensState:
        """State after one more token a row."""
        ends = torch.isin(tokens.cpu(), torch.tensor(self.eos_token_ids, dtype=torch.long))
        return ForbiddenTokensState(state.finished | ends)

    def describe(self) -> str:
        """One line for error messages."""
        return f"a ban on {len(self.tokens)} token{'s' * (len(self.tokens) != 1)}"


def without_codes(gedi: GeDi, vocabulary: Vocabulary) -> ForbiddenTokens:
    """A ban on the control tokens in the codes of GeDi's classes, to multiply it with.

    A class LM never saw its own codes within a text, so what it says of them there means nothing. Codes that are words stay allowed.

    Args:
        gedi: the guidance.
        vocabulary: that of the model that generates; a control token is one that is no part of a text, and no end.
    """
    used = {token for code in gedi.classes.codes for token in code if token < len(vocabulary)}
    control = {token for token in used if vocabulary.tokens[token] is None} - set(vocabulary.eos_token_ids)
    return ForbiddenTokens(control, size=len(vocabulary), eos_token_ids=vocabulary.eos_token_ids)
