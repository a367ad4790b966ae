"""Token sequences of any form as one right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MISSING", "Batch", "Tokens", "batch"]

MISSING = -1  # a token that is not known

Tokens: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Sequence[int]]"


class Batch(NamedTuple):
    """Sequences side by side.

    Attributes:
        tokens: (B, T) ids, `MISSING` where a token is not known and behind the end of a sequence.
        lengths: (B,) tokens of each sequence, its end of sequence included.
    """

    tokens: Tensor
    lengths: Tensor

    @property
    def real(self) -> Tensor:
        """(B, T) bool, False behind the end of a sequence."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]


def batch(tokens: Tokens, mask: Tensor | None, size: int, eos: tuple[int, ...], device: torch.device) -> Batch:
    """Sequences without their padding and without what follows their first end of sequence.

    Raises:
        InputError: they are no sequences of token ids, or the mask has another shape.
    """
    ids, real = _padded(tokens, mask)
    ids, real = ids.to(device), real.to(device)
    if (
        ids.numel()
        and not -1 <= int(ids[real].min() if real.any() else 0) <= int(ids[real].max() if real.any() else 0) < size
    ):
        raise InputError(
            f"token ids must lie in 0 to {size - 1}, or be -1 where a token is not known, got {int(ids[real].min())} to "
            f"{int(ids[real].max())}; use the tokenizer of the model that the HMM was made for"
        )
    order = real.logical_not().to(torch.int8).argsort(dim=1, stable=True)  # real positions first, in their order
    ids = ids.gather(1, order)
    lengths = real.sum(1)
    inside = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    ends = torch.isin(ids, torch.tensor(eos, device=device)) & inside
    behind = ends.cumsum(1) - ends.long() > 0
    inside &= ~behind
    return Batch(ids.masked_fill(~inside, MISSING), inside.sum(1))


def _padded(tokens: Tokens, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, T) ids and which of them are real."""
    try:
        if isinstance(tokens, Sequence):
            if mask is not None:
                raise InputError("a mask goes with (B, T) ids; lists of ids need none: leave their padding out")
            nothing = torch.zeros(0, dtype=torch.long)
            rows = [torch.as_tensor(row) if len(row) else nothing for row in tokens]
            ids = torch.nn.utils.rnn.pad_sequence([*rows, nothing], batch_first=True)[:-1]
            lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
        else:
            ids = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"wanted lists of token ids, or (B, T) ids, got {type(tokens).__name__}: {error}") from error
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if ids.dim() != 2 or mask.shape != ids.shape or (ids.numel() and ids.is_floating_point()):
        raise InputError(
            f"wanted (B, T) token ids and a mask of their shape, got {ids.dtype} {tuple(ids.shape)} and {tuple(mask.shape)}; "
            "write [ids] for one sequence"
        )
    return ids.long(), mask
