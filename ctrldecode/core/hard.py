"""`HardPotential`: a potential of weights 0 and 1, given by packed masks. It knows no grammar and no automaton."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ctrldecode.core.potential import Potential
from ctrldecode.errors import InputError
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HardPotential"]

S = TypeVar("S")


class HardPotential(Potential[S]):
    """ψ ∈ {0, 1}: a token is allowed or not. To write one, implement `init`, `step` and `mask`."""

    hard = True

    @abstractmethod
    def mask(self, state: S) -> NDArray[np.int32]:
        """Packed masks (B, (V + 31) // 32) int32: bit v of word v // 32 is 1 where token v has weight 1."""

    def log_weights(self, state: S, tokens: Tensor | None = None) -> Tensor:
        """0 where a token is allowed, −inf elsewhere; see `Potential.log_weights`."""
        allowed = masks.unpack(self.mask(state), self.size)
        if tokens is not None:
            allowed = allowed.to(tokens.device).gather(1, tokens)
        return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -torch.inf)

    def add_log_weights(self, state: S, scores: Tensor) -> None:
        """Set the scores (B, V) of forbidden tokens to −inf in place, from the packed bits."""
        words = self.mask(state)
        if scores.shape != (len(words), self.size):
            raise InputError(f"scores must be ({len(words)}, {self.size}), got {tuple(scores.shape)}")
        masks.apply(words, scores)
