"""Rows of token ids of different lengths as one tensor, padded on the left, and back. It knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["left_padded", "real_ids"]


def left_padded(rows: Sequence[Sequence[int]], width: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows as ids (n, W) padded on the left with 0, and a bool mask (n, W), False where it is padding.

    Args:
        rows: n lists of ids.
        width: W; None takes the longest row's length.

    Example:
        >>> left_padded([[7, 8], [9]])
        (tensor([[7, 8],
                [0, 9]]), tensor([[ True,  True],
                [False,  True]]))
    """
    width = max(map(len, rows), default=0) if width is None else width
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor(row)
        mask[at, width - len(row) :] = True
    return ids, mask


def real_ids(prompts: Tensor, mask: Tensor | None) -> list[list[int]]:
    """The ids of each row of prompts (B, P) without padding."""
    if mask is None:
        return prompts.tolist()
    kept = mask.to(prompts.device, torch.bool)
    return [row[real].tolist() for row, real in zip(prompts, kept, strict=True)]
