"""Walks through a coded emission matrix block by block, so that no second dense matrix exists, and scales it to sum to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ctrldecode.kernels.hmm import Emission

__all__ = ["blocks", "normalised", "state_sums"]

_BLOCK = 1 << 22  # entries of a block: 16 MiB of float32, small beside any matrix that needs blocks


def blocks(emission: Emission) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (N,) and their rows (N, H) float32, for all tokens in order."""
    size, states = emission.values.shape
    for ids in torch.arange(size, device=emission.values.device).split(max(1, _BLOCK // states)):
        yield ids, kernels.rows(emission, ids)


def state_sums(emission: Emission) -> Tensor:
    """Σ_v E(v, h), (H,) float64."""
    sums = emission.values.new_zeros(emission.values.shape[1], dtype=torch.float64)
    for _, rows in blocks(emission):
        sums += rows.sum(0, dtype=torch.float64)
    return sums


def normalised(emission: Emission) -> Emission:
    """The emission with its factors of states set so that the decoded probabilities of each state sum to 1."""
    if emission.values.dtype == torch.float32:
        return emission
    return emission._replace(state_scale=(emission.state_scale / state_sums(emission)).float())
