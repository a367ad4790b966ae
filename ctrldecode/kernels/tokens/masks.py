"""Packed token masks: one bit a token in int32 words, bit v of word v // 32, as llguidance and xgrammar lay them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["allow", "apply", "bits", "empty", "unpack", "width"]


def empty(size: int) -> NDArray[np.int32]:
    """A mask of `size` tokens, none allowed: ((size + 31) // 32,) int32."""
    return np.zeros(width(size), np.int32)


def width(size: int) -> int:
    """The number of 32-bit words that hold one bit for each of `size` tokens."""
    return (size + 31) // 32


def allow(words: NDArray[np.int32], token: int) -> None:
    """Set the bit of one token in a mask (W,) int32, in place."""
    words[token >> 5] |= np.uint32(1 << (token & 31)).view(np.int32)


def bits(words: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
    """A mask (W,) int32 as booleans (size,)."""
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:size].astype(np.bool_)


def apply(words: NDArray[np.int32], scores: Tensor) -> None:
    """Set to −inf, in place, the scores of the tokens whose bit is 0.

    Args:
        words: (B, W) int32.
        scores: (B, V) floating point on any device, V ≤ 32·W.
    """
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.stride(-1) == 1:
        for row, line in enumerate(words):
            _apply(line, scores[row].numpy())
        return
    scores.masked_fill_(~unpack(words, scores.shape[1], scores.device), -torch.inf)


def unpack(words: NDArray[np.int32], size: int, device: torch.device | str = "cpu") -> Tensor:
    """The mask as booleans: (B, W) int32 → (B, size)."""
    packed = torch.from_numpy(words).to(device)
    bits = torch.arange(32, dtype=torch.int32, device=device)
    return ((packed.unsqueeze(-1) >> bits) & 1).bool().reshape(len(words), -1)[:, :size]


@jit
def _apply(words: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
    size = len(scores)
    for w in range(len(words)):
        word = words[w]
        if word == -1:
            continue
        low = w << 5
        high = min(low + 32, size)
        if word == 0:
            for v in range(low, high):
                scores[v] = -np.inf
            continue
        for v in range(low, high):
            if not (word >> (v - low)) & 1:
                scores[v] = -np.inf
