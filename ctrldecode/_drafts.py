"""What stands behind the row of a call in the tensor that it is a slice of: the rest of a draft that is being verified.

`generate` verifies a draft by one call for each of its tokens, with slices of one tensor that grow by a token each. Who sees the
whole tensor can read all of it at once. It knows nothing of potentials; what it finds is a hint, and nothing but time depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Drafts"]

# Longer than drafts are (20 tokens by default), shorter than a buffer that someone fills step by step.
_MOST = 64

# A prompt that was cut from a longer text misleads once, then drafts come; a buffer that is being filled misleads at every call.
_MISLED = 2


class Drafts:
    """Looks ahead while what it finds comes true; once it did not for two calls on end, never again."""

    def __init__(self) -> None:
        self._expected: Tensor | None = None
        self._misled = 0

    def behind(self, input_ids: Tensor) -> Tensor | None:
        """Tokens (1, K), K ≥ 1, that the next K calls will bring, on the CPU; None if nothing is known of them.

        Args:
            input_ids: (B, L) of a call.
        """
        if self._misled == _MISLED:
            return None
        whole = _row(input_ids)
        if self._expected is not None:
            if torch.equal(input_ids.to(self._expected), self._expected):
                self._misled = 0
            elif whole is not None:  # another draft or buffer; what is no slice at all is another call of `generate`
                self._misled += 1
        self._expected = None
        if whole is None or self._misled == _MISLED:
            return None
        length = input_ids.shape[1]
        self._expected = whole[:, : length + 1].clone()
        return whole[:, length : length + _MOST].to("cpu", torch.long, copy=True)


def _row(part: Tensor) -> Tensor | None:
    """The row (1, W) of a table of which a tensor (1, L), L < W, is the beginning; None if it is no such part.

    Judged by strides, not by what autograd knows of a view, which is nothing in inference mode. The table is as wide as its rows
    are apart.
    """
    if part.dim() != 2 or len(part) != 1 or part.stride(1) != 1:
        return None
    width, start = part.stride(0), part.storage_offset()
    room = part.untyped_storage().nbytes() // part.element_size() - start
    if width <= part.shape[1] or start % width or room < width:
        return None
    return part.detach().as_strided((1, width), (width, 1), start)
