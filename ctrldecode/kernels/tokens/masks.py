"""Packed token masks: one bit a token in int32 words, bit v of word v // 32, as llguidance and xgrammar lay them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["allow", "apply", "bits", "digest", "empty", "equal", "pack", "removed", "unpack", "width"]

# Odd and large. Of factors that grow evenly, 1 and 3 say, two tokens of one word would weigh as much as one of the next.
_SPREAD = 0x1E3779B97F4A7C15


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


def pack(allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Booleans (V,) as a mask (W,) int32: `bits` the other way."""
    words = empty(len(allowed))
    packed = np.packbits(allowed, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    return words


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
    return ((packed.unsqueeze(-1) >> bits) & 1).bool().reshape(len(words), 32 * words.shape[1])[:, :size]


@jit
def digest(words: NDArray[np.int32]) -> int:
    """A number that is equal for equal masks, and for others seldom."""
    number = 0
    for w in range(len(words)):
        factor = (2 * w + 1) * _SPREAD
        number += int(words[w]) * (factor ^ (factor >> 29))
    return number


@jit
def equal(one: NDArray[np.int32], other: NDArray[np.int32]) -> bool:
    """Whether two masks of one size are equal."""
    different = np.int32(0)
    for w in range(len(one)):  # without a branch, so that it becomes a few vector instructions
        different |= one[w] ^ other[w]
    return different == 0


@jit
def _apply(words: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
    size = len(scores)
    nothing = np.float32(-np.inf)
    whole = size >> 5
    for w in range(whole):
        word = words[w]
        if word == -1:
            continue
        block = scores[w << 5 : (w << 5) + 32]
        for v in range(32):  # a fixed number, and no branch, so that it becomes a few vector instructions
            block[v] = block[v] if (word >> np.int32(v)) & np.int32(1) else nothing
    for v in range(whole << 5, size):
        if not (words[v >> 5] >> (v & 31)) & 1:
            scores[v] = nothing


@jit
def removed(before: NDArray[np.float32], probs: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a hard mask took from some distributions, in one pass.

    Args:
        before: (B, V) scores, −inf where a token was impossible already.
        probs: (B, V) their softmax.
        after: (B, V) −inf where the mask forbids a token, or where it was impossible already.

    Returns:
        (B, 3): the mass that is left, the number of tokens that the mask removed, the mass removed.
    """
    found = np.zeros((len(probs), 3))
    for row in range(len(probs)):
        left, mass, count = 0.0, 0.0, 0
        for v in range(probs.shape[1]):
            gone = after[row, v] == -np.inf
            left += 0.0 if gone else probs[row, v]
            mass += probs[row, v] if gone else 0.0
            count += 1 if gone and before[row, v] > -np.inf else 0
        found[row, 0] = left
        found[row, 1] = count
        found[row, 2] = mass
    return found
