"""The product of a few vectors with a whole emission matrix, whatever its code: a matrix product, no copy of E beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ctrldecode.kernels.hmm._emission import Emission

__all__ = ["halves", "product"]

# Entries decoded at once: 4 MiB in float32, which stay in a CPU's cache until the product has read them; a GPU wants fewer and
# larger pieces of work.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 24}

# The largest entry of a vector in float16: with entries of E up to 2**15, no single product exceeds 2**30.
_LARGEST_HALF = 2.0**15
_NEXT_HALF = 2.0**-11  # what the second half of a vector is scaled by: below the 11 bits of the first


def product(emission: Emission, vectors: Tensor) -> Tensor:
    """vectors (N, H) times all of E: (N, V) float32."""
    values, scale, state_scale = emission
    folded = vectors * state_scale
    if values.dtype == torch.float32:
        return folded @ values.T  # its scale is all ones
    if values.dtype == torch.float16 and values.is_cuda:
        return _half_product(values, folded).mul_(scale.T)
    found = vectors.new_empty((len(vectors), len(values)))
    size = max(1, _BLOCK.get(values.device.type, 1 << 20) // values.shape[1])
    buffer = vectors.new_empty((size, values.shape[1]))
    for low in range(0, len(values), size):
        part = values[low : low + size]
        block = buffer[: len(part)].copy_(part)
        if values.dtype == torch.uint8:
            groups = block.square_().unflatten(1, (-1, scale.shape[1]))
            groups.mul_(scale[low : low + size].unsqueeze(1))
        torch.mm(folded, block.T, out=found[:, low : low + size])
    return found if values.dtype == torch.uint8 else found.mul_(scale.T)


def _half_product(values: Tensor, vectors: Tensor) -> Tensor:
    """vectors (N, H) float32 times values (V, H) float16, added up in float32; E is read once, as it is stored.

    torch multiplies float16 into float32 on CUDA only.
    """
    high, low, unit = halves(vectors)
    found = torch.mm(values, torch.cat([high, low]).T, out_dtype=torch.float32)
    first, second = found.split(len(vectors), 1)
    return (first + _NEXT_HALF * second).T * unit


def halves(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """vectors (N, H) ≥ 0 as (high + low · 2⁻¹¹) · unit: float16, float16, and (N, 1) float32. About 22 bits are kept."""
    largest = vectors.amax(1, keepdim=True)
    unit = torch.where(largest > 0, largest / _LARGEST_HALF, 1.0)
    scaled = vectors / unit
    high = scaled.half()
    return high, ((scaled - high.float()) / _NEXT_HALF).half(), unit
