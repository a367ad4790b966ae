"""The pull of a lookahead, held back until it decides: what `Lookahead(patience=, urgency=)` does with the model's own probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pulls"]


def pulls(probs: Tensor, move: Tensor, row: Tensor, worth: Tensor, exponent: Tensor, patience: float) -> Tensor:
    """Log-weights of moves of an automaton, each for all tokens that take it.

    With P the model's probability of a move, among the moves that it allows and whose ψ is known, and ρ = exponent · (log ψ of the
    move − the mean of log ψ over these moves by P), a move of ρ > 0 gets max(0, patience · (log P + ρ) − log P) in the place of ρ:
    for 1 that is ρ, and for more it is nothing until P·e^ρ comes near 1. Any other move gets ρ.

    Args:
        probs: (B, V) the model's, 0 where a token is forbidden; a row of NaN, where all are, gets 0.
        move: (B, V) which move a token takes, in 0..N−1.
        row: (N,) which row a move belongs to.
        worth: (N,) log ψ behind each move; −inf where nothing is known.
        exponent: (B,) > 0.
        patience: at least 1.

    Returns:
        (N,), 0 where nothing is known.
    """
    mass = torch.zeros_like(worth).index_add(0, move.flatten(), probs.flatten().to(worth.dtype))
    known = worth.isfinite() & (mass > 0)
    mass = mass.masked_fill(~known, 0.0)
    worth = worth.masked_fill(~known, 0.0)
    none = worth.new_zeros(len(probs))
    total = none.index_add(0, row, mass).clamp_min(torch.finfo(worth.dtype).tiny)
    mean = none.index_add(0, row, mass * worth) / total
    log_share = (mass / total[row]).log()
    tilt = exponent[row] * (worth - mean[row])
    held = (patience * (log_share + tilt) - log_share).clamp_min(0.0)
    return torch.where(tilt > 0, held, tilt).masked_fill(~known, 0.0)
