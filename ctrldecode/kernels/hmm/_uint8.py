"""The 8-bit code of an emission matrix: which scales to take, and the bytes.

A byte q stands for q² times a scale, so that steps are fine near 0, where most entries of an emission matrix lie. Each token
has a scale for every few of its states, namely those equal modulo the number G of its scales: a dot product then keeps the sums
of G residues apart, and applies the scales once, at its end. A scale is the best of several near the one that puts the largest
entry at 255, since the few large entries carry nearly all of the probability, and a good scale is one on which they fall near
whole levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

__all__ = ["fit", "groups"]

# Numbers of scales, and from which H on: multiples of the width of `_simd`'s vectors, up to the residues whose sums it keeps
# apart. A scale is 4 bytes to 8 states at H = 128, to 16 at 256, and to 64 or more from 1024 on.
_COUNTS = {32: 2048, 16: 128}

# Scales that are tried, relative to the one that puts the largest entry at 255. Below 1 it is cut off, by 3 % at most; at 1.25 it
# gets q = 228. A finer or a longer list found nothing better on a distilled HMM of 256 states.
_TRIED = np.linspace(0.97, 1.25, 40, dtype=np.float32)


def groups(states: int) -> int:
    """G, the number of scales of a token: 32, 16 or 1, and a divisor of H."""
    return next((count for count, least in _COUNTS.items() if states >= least and states % count == 0), 1)


def fit(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values (V, H) uint8, scale (V, G) float32 and state_scale (H,) float32 of entries (V, H) ≥ 0, on the CPU.

    The square roots of the columns' largest entries are a first guess for state_scale; the second makes each state's sum over
    the vocabulary what it was.
    """
    size, states = matrix.shape
    state = matrix.amax(0).sqrt() if size else torch.ones(states)
    state = torch.where(state > 0, state, 1.0).float()
    values = torch.from_numpy(
        np.empty((size, states), np.uint8)
    )  # numpy asks for huge pages: a tenth less time to read
    scale = torch.empty((size, groups(states)), dtype=torch.float32)
    sums = np.zeros((2, states))
    entries = matrix.float().contiguous()
    _fit(entries.numpy(), state.numpy(), _TRIED, values.numpy(), scale.numpy(), sums)
    exact, coded = torch.from_numpy(sums)
    return values, scale, (state * torch.where(coded > 0, exact / coded, 1.0)).float()


@jit
def _fit(matrix: F32, state: F32, tried: F32, values: NDArray[np.uint8], scale: F32, sums: NDArray[np.float64]) -> None:
    """Write values (V, H), scale (V, G), and in sums (2, H) what the columns of matrix and of its code add up to."""
    size, states = matrix.shape
    count = scale.shape[1]
    entries, roots, weights = np.empty((3, states // count), np.float32)
    for v in range(size):
        for g in range(count):
            largest = np.float32(0)
            for k in range(len(entries)):
                weights[k] = state[k * count + g]
                entries[k] = matrix[v, k * count + g] / weights[k]
                largest = max(largest, entries[k])
            unit = largest if largest > 0 else np.float32(1)
            for k in range(len(entries)):
                entries[k] /= unit
                roots[k] = np.sqrt(entries[k])
            least, best = np.float32(np.inf), np.float32(1)
            for ratio in tried:
                step = np.sqrt(ratio) / np.float32(255)
                error = np.float32(0)
                for k in range(len(entries)):
                    level = min(np.floor(roots[k] / step + np.float32(0.5)), np.float32(255)) * step
                    miss = (level * level - entries[k]) * weights[k]
                    error += miss * miss
                if error < least:
                    least, best = error, step
            overlap, square = np.float32(0), np.float32(0)
            for k in range(len(entries)):
                level = min(np.floor(roots[k] / best + np.float32(0.5)), np.float32(255))
                values[v, k * count + g] = np.uint8(level)
                power = level * level * weights[k]
                overlap += power * entries[k] * weights[k]
                square += power * power
            # The least squares scale for these bytes.
            scale[v, g] = unit * overlap / square if largest > 0 else np.float32(0)
            for k in range(len(entries)):
                h = k * count + g
                sums[0, h] += matrix[v, h]
                sums[1, h] += np.float64(values[v, h]) ** 2 * scale[v, g] * state[h]
