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


class Drafts:
    """Looks ahead while what it finds comes true; once it did not, never again."""

    def __init__(self) -> None:
        self._expected: Tensor | None = None
        self._trusted = True

    def behind(self, input_ids: Tensor) -> Tensor | None:
        """Tokens (1, K), K ≥ 1, that the next K calls will bring, on the CPU; None if nothing is known of them.

        Args:
            input_ids: (B, L) of a call.
        """
        if self._expected is not None and not torch.equal(input_ids, self._expected):
            self._trusted = False
        self._expected = None
        whole = input_ids._base  # noqa: SLF001  what a view is a view of has no other name; None for a tensor of its own
        length = input_ids.shape[1]
        if (
            not self._trusted
            or whole is None
            or len(input_ids) != 1
            or whole.dim() != 2
            or whole.shape[1] <= length
            or whole.dtype != input_ids.dtype
            or whole.data_ptr() != input_ids.data_ptr()
            or whole.stride(1) != input_ids.stride(1)
        ):
            return None
        self._expected = whole[:1, : length + 1].clone()
        return whole[:1, length : length + _MOST].detach().to("cpu", torch.long, copy=True)
