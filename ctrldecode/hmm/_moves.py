"""The moves of an automaton out of the states of many rows, one after another, and what is looked up along them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moves", "along", "logsumexp_by"]


class Moves(NamedTuple):
    """For the rows that are alive: the automaton's moves out of their states, one after another."""

    rows: Tensor  # (N,) which row a move belongs to
    tilted: Tensor  # (N, H) belief · β_{r−1}(target), up to its scale
    log_scale: Tensor  # (N,)
    log_mass: Tensor  # (N,) log Σ num(v) over the tokens that take the move
    log_coarse: Tensor  # (N,) log of Σ num(v)/w(v) over Σ den(v): what the move is worth, whichever token takes it; empty if not asked for
    columns: Tensor  # (B, C) int32 index of the move that a class takes, −1 for none


def along(values: Tensor, columns: Tensor, otherwise: float) -> Tensor:
    """values[columns], and something else where the column is −1."""
    padded = torch.cat([values, values.new_full((1,), otherwise)])
    return padded[columns]


def logsumexp_by(values: Tensor, rows: Tensor, first: Tensor) -> Tensor:
    """log(exp(first[b]) + Σ_{n: rows[n] = b} exp(values[n])), (B,)."""
    top = first.scatter_reduce(0, rows, values, "amax")
    at = top.masked_fill(top.isneginf(), 0.0)
    total = (first - at).exp().index_add(0, rows, (values - at[rows]).exp())
    return total.log() + at
