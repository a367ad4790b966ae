"""How the emission matrix of an HMM is held: token-major, in float32, float16 or uint8 with scales.

It knows what a code is, and nothing of files, tokenizers or models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctrldecode.kernels.hmm import _uint8

__all__ = ["DTYPES", "Emission", "dense", "encode", "move", "rows"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}

# The largest entry of a float16 row is stored as 2**15, so that 29 octaves below it keep their full relative precision.
_LARGEST_HALF = 2.0**15


class Emission(NamedTuple):
    """The matrix E(v, h) = P(token v | state h), held as level(values[v, h]) · scale[v, h mod G] · state_scale[h].

    level(x) is x for float32 and float16, and x² for uint8 (see `_uint8`). Wherever E is 0 the code is 0. In uint8 entries below
    some 10⁻⁶ of the largest in their group become 0 too.

    Attributes:
        values: (V, H) float32, float16 or uint8; contiguous.
        scale: (V, G) float32, the factors of a token. G is 1, all ones, for float32; 1 for float16; for uint8 it is 16 from
            128 states on and 32 from 2048 on, where that divides H, else 1.
        state_scale: (H,) float32, one factor a state, which is folded into vectors over states at no cost; ones for float32
            and float16.
    """

    values: Tensor
    scale: Tensor
    state_scale: Tensor


def encode(matrix: Tensor, dtype: str = "float32") -> Emission:
    """Store a dense matrix (V, H) of finite entries ≥ 0 as "float32", "float16" or "uint8"."""
    if dtype == "uint8":
        return move(Emission(*_uint8.fit(matrix.cpu())), matrix.device)
    values = matrix.float().contiguous()
    scale = torch.ones((len(matrix), 1), dtype=torch.float32, device=matrix.device)
    if dtype == "float16":
        largest = values.amax(1, keepdim=True) if values.numel() else scale
        least = torch.finfo(torch.float32).tiny  # a quotient that underflows would make NaN of the row
        scale = torch.where(largest > 0, (largest / _LARGEST_HALF).clamp_min(least), 1.0)
        values = (values / scale).half()
    return Emission(values, scale, torch.ones(matrix.shape[1], dtype=torch.float32, device=matrix.device))


def rows(emission: Emission, tokens: Tensor) -> Tensor:
    """E[tokens]: any shape (...,) of ids in 0..V−1 → (..., H) float32."""
    return _decoded(emission.values[tokens], emission.scale[tokens]) * emission.state_scale


def dense(emission: Emission) -> Tensor:
    """The whole matrix, (V, H) float32."""
    return _decoded(emission.values, emission.scale) * emission.state_scale


def move(emission: Emission, device: torch.device | str) -> Emission:
    """The same matrix on a device."""
    return Emission(*(part.to(device) for part in emission))


def _decoded(values: Tensor, scale: Tensor) -> Tensor:
    """What values (..., H) with scale (..., G) stand for before the factors of states."""
    level = values.float()
    if values.dtype == torch.uint8:
        level = level.square()
    return (level.unflatten(-1, (-1, scale.shape[-1])) * scale.unsqueeze(-2)).flatten(-2)
