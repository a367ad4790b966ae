"""How the emission matrix of an HMM is held: token-major, in float32, float16 or uint8 with scales.

It knows what a code is, and nothing of files, tokenizers or models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DTYPES", "POWER", "Emission", "dense", "encode", "levels", "move", "rows"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}

# A byte q stands for q**POWER: steps are fine near 0, where most entries of an emission matrix lie, and a square costs one
# multiplication to undo.
POWER = 2

# Rows are decoded and encoded in blocks of about this many entries, 16 MiB in float32, so that no second dense matrix exists.
_BLOCK = 1 << 22

# The largest entry of a float16 row is stored as 2**15, so that 29 octaves below it keep their full relative precision.
_LARGEST_HALF = 2.0**15


class Emission(NamedTuple):
    """The matrix E(v, h) = P(token v | state h), held as scale[v] · state_scale[h] · level(values[v, h]).

    level(x) is x for float32 and float16, and x² for uint8.

    Attributes:
        values: (V, H) float32, float16 or uint8; contiguous.
        scale: (V,) float32, one factor a token; ones for float32.
        state_scale: (H,) float32, one factor a state, which is folded into vectors over states at no cost; ones for float32
            and float16.
    """

    values: Tensor
    scale: Tensor
    state_scale: Tensor


def encode(matrix: Tensor, dtype: str = "float32") -> Emission:
    """Store a dense matrix (V, H) of finite entries ≥ 0 as "float32", "float16" or "uint8".

    Zeros stay zeros, in every code.
    """
    size, states = matrix.shape
    ones = torch.ones(states, dtype=torch.float32, device=matrix.device)
    if dtype == "float32":
        return Emission(matrix.float().contiguous(), ones.new_ones(size), ones)
    if dtype == "uint8":
        ones = _state_scale(matrix)
    kind = DTYPES[dtype]
    values = torch.empty((size, states), dtype=kind, device=matrix.device)
    scale = ones.new_empty(size)
    for low, high in _blocks(size, states):
        block = matrix[low:high].float() / torch.where(ones > 0, ones, 1.0)
        largest = block.amax(1) if states else block.new_zeros(high - low)
        unit = torch.where(largest > 0, largest, 1.0).unsqueeze(1)
        if dtype == "uint8":
            values[low:high] = ((block / unit) ** (1 / POWER) * 255).round().to(kind)
            scale[low:high] = largest / 255.0**POWER
        else:
            values[low:high] = (block / unit * _LARGEST_HALF).to(kind)
            scale[low:high] = largest / _LARGEST_HALF
    return Emission(values, scale, ones)


def rows(emission: Emission, tokens: Tensor) -> Tensor:
    """E[tokens]: any shape (...,) of ids in 0..V−1 → (..., H) float32."""
    scale = emission.scale[tokens].unsqueeze(-1)
    return levels(emission.values[tokens]) * scale * emission.state_scale


def dense(emission: Emission) -> Tensor:
    """The whole matrix, (V, H) float32."""
    return levels(emission.values) * emission.scale.unsqueeze(1) * emission.state_scale


def levels(values: Tensor) -> Tensor:
    """What stored values stand for before they are scaled, float32 of the same shape."""
    found = values.float()
    return found.square() if values.dtype == torch.uint8 else found


def move(emission: Emission, device: torch.device | str) -> Emission:
    """The same matrix on a device."""
    return Emission(*(part.to(device) for part in emission))


def _state_scale(matrix: Tensor) -> Tensor:
    """One factor a state, (H,): the largest entry of its column."""
    return matrix.amax(0).float() if len(matrix) else matrix.new_zeros(matrix.shape[1], dtype=torch.float32)


def _blocks(size: int, states: int) -> list[tuple[int, int]]:
    step = max(1, _BLOCK // max(states, 1))
    return [(low, min(low + step, size)) for low in range(0, size, step)]
