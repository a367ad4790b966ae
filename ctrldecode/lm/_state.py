"""The state of `CausalLM`: a KV cache with what belongs to it, and how such states are joined and cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctrldecode.core._records import align

__all__ = ["CausalLMState", "beginning"]


@dataclass(frozen=True)
class CausalLMState:
    """What the model has read so far: B rows of T positions, padding among them.

    Attributes:
        keys: per layer (B, heads, T, width).
        values: per layer (B, heads, T, width).
        mask: (B, T) bool, False where a position is padding.
        position: (B,) position id of the next token: how many real tokens were read.
        logits: (B, V) of the next token, in the model's own precision.
        log_total: (B,) float32, log Σ exp of the logits over temperature.
        finished: (B,) bool, whether an end-of-sequence token was stepped.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    position: Tensor
    logits: Tensor
    log_total: Tensor
    finished: Tensor


@align.register
def _(first: CausalLMState, records: list[CausalLMState]) -> list[CausalLMState]:
    """All with as many positions as the longest, by padding on the left, which the mask hides."""
    longest = max(record.mask.shape[-1] for record in records)
    if first.mask.shape[-1] == longest and all(record.mask.shape == first.mask.shape for record in records):
        return records
    return [_widened(record, longest - record.mask.shape[-1]) for record in records]


def beginning(
    state: CausalLMState, end: int, position: Tensor, logits: Tensor, log_total: Tensor, finished: Tensor
) -> CausalLMState:
    """The state before its last positions, those from `end` on, were read."""
    keys = tuple(part[:, :, :end] for part in state.keys)
    values = tuple(part[:, :, :end] for part in state.values)
    return CausalLMState(keys, values, state.mask[:, :end], position, logits, log_total, finished)


def _widened(state: CausalLMState, more: int) -> CausalLMState:
    def wider(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(torch.nn.functional.pad(tensor, (0, 0, more, 0)) for tensor in tensors)

    mask = torch.nn.functional.pad(state.mask, (more, 0))
    return replace(state, keys=wider(state.keys), values=wider(state.values), mask=mask)
