"""Makes the end of sequence absorb: a state emits nothing but ends, or none. The new HMM gives every text the same probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ctrldecode.errors import InputError
from ctrldecode.hmm._checks import as_tensor, check_distributions, checked_eos

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

__all__ = ["absorbing"]

# A state that emits other tokens than ends this rarely is taken for a state of ends: float32 rows of 50,000 values sum to 1
# within about this much, so that what is left beside a probability of one may be rounding.
_PURE = 1e-6


def absorbing(
    initial: Any, transition: Any, emission: Any, eos_token_ids: Iterable[int] | int
) -> tuple[Tensor, Tensor, Tensor]:
    """An HMM in which the end of sequence absorbs, equal to the one given on every text.

    A state h that emits an end e with probability E(h, e) and other tokens too is split: its other emissions are divided by
    1 − Σ_e E(h, e), and what led to h leads to it with that probability, and with E(h, e) to a new state that emits e for
    ever. The probability of every sequence up to and with its first end of sequence stays the same; what would come after
    an end is dropped. A state that emits ends alone (up to 1e-6) is kept where it is, and stays among the states of its end.

    Args:
        initial: (H,) probabilities.
        transition: (H, H), rows sum to 1.
        emission: (H, V), rows sum to 1.
        eos_token_ids: ids that end a text.

    Returns:
        initial (H',) and transition (H', H') as float64 tensors, and emission (H', V) in its own precision, with H' = H plus one state
        for each end that mixed states emit.

    Raises:
        InputError: shapes disagree; a value is negative or not finite; or a distribution does not sum to 1 within 0.001.

    Example:
        >>> initial, transition, emission = absorbing([1.0], [[1.0]], [[0.75, 0.25]], eos_token_ids=1)
        >>> initial.tolist(), transition.tolist(), emission.tolist()
        ([0.75, 0.25], [[0.75, 0.25], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    start, moves = as_tensor(initial, "initial").double(), as_tensor(transition, "transition").double()
    emits = as_tensor(emission, "emission")
    if start.dim() != 1 or moves.shape != (len(start), len(start)) or emits.dim() != 2 or len(emits) != len(start):
        raise InputError(
            f"absorbing needs initial (H,), transition (H, H) and emission (H, V), got {tuple(start.shape)}, "
            f"{tuple(moves.shape)} and {tuple(emits.shape)}"
        )
    ends = list(checked_eos(eos_token_ids, emits.shape[1]))
    for values, name in ((start[None], "initial"), (moves, "transition"), (emits, "emission")):
        check_distributions(values, name, over=1)
    mass = emits[:, ends].double().sum(1)  # (H,)
    pure = mass > 1 - _PURE
    split = emits[:, ends].double() * ~pure[:, None]  # (H, number of ends)
    added = [k for k in range(len(ends)) if bool(split[:, k].any())]
    stays = torch.where(pure, 1.0, 1 - mass)
    return (
        torch.cat([start * stays, start @ split[:, added]]),
        _transition(moves, stays, split[:, added], pure),
        _emission(emits, pure, ends, [ends[k] for k in added]),
    )


def _transition(moves: Tensor, stays: Tensor, split: Tensor, pure: Tensor) -> Tensor:
    """(H', H'): states of ends stay where they are, the others come to a state or to the end that it would have emitted."""
    states, added = split.shape
    result = torch.eye(states + added, dtype=moves.dtype, device=moves.device)
    result[:states][~pure] = torch.cat([moves * stays, moves @ split], dim=1)[~pure]
    return result


def _emission(emits: Tensor, pure: Tensor, ends: Sequence[int], added: Sequence[int]) -> Tensor:
    """(H', V): states of ends emit ends only, others none, new ones theirs."""
    kept = emits.clone()
    kept[:, ends] = 0.0
    kept[pure] = 0.0
    kept[pure.nonzero(), torch.tensor(ends, device=emits.device)] = emits[pure][:, ends]
    kept /= kept.sum(1, keepdim=True)
    if not added:
        return kept
    new = torch.zeros(len(added), emits.shape[1], dtype=emits.dtype, device=emits.device)
    new[torch.arange(len(added)), list(added)] = 1.0
    return torch.cat([kept, new])
