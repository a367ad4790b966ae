"""The HMM's belief P(z_{t+1} | x_≤t) over a batch of prompts: what every potential of an HMM starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctrldecode.errors import InputError
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from ctrldecode.hmm.model import HMM

__all__ = ["after_prompts", "after_tokens", "is_end"]


def after_prompts(hmm: HMM, prompts: Tensor, mask: Tensor | None, *, condition: bool = True) -> Tensor:
    """The belief over the first state after each prompt, (B, H).

    An end of sequence in a prompt separates documents (often it stands first, as the beginning): the belief starts anew behind
    it. Padding is skipped. A token that the HMM cannot emit where it stands counts as missing.

    Args:
        hmm: the model.
        prompts: (B, P) ids.
        mask: (B, P) bool, False where a position is padding.
        condition: whether to heed the prompts at all.

    Raises:
        InputError: an id lies outside the vocabulary.
    """
    check_ids(prompts, hmm.size)
    first = hmm.initial.expand(len(prompts), -1)
    if not condition or not prompts.numel():
        return first.clone()
    ends = is_end(prompts, hmm.eos_token_ids)
    real = torch.ones_like(ends) if mask is None else mask.bool()
    belief = first.clone()
    for column in range(prompts.shape[1]):
        read = real[:, column] & ~ends[:, column]
        moved = after_tokens(hmm, belief, prompts[:, column].masked_fill(~read, -1))
        belief = torch.where(read.to(hmm.device)[:, None], moved, belief)
        again = (real[:, column] & ends[:, column]).to(hmm.device)
        belief = torch.where(again[:, None], first, belief)
    return belief


def after_tokens(hmm: HMM, belief: Tensor, tokens: Tensor) -> Tensor:
    """The belief (B, H) one token later; −1 is a token that nothing is known of."""
    _, following, _ = kernels.filter_step(hmm.emission, hmm.transition, belief, tokens.to(hmm.device))
    return following


def is_end(tokens: Tensor, eos_token_ids: tuple[int, ...]) -> Tensor:
    """Where tokens are ends of sequence, a bool of their shape."""
    return torch.isin(tokens, torch.tensor(eos_token_ids, device=tokens.device))


def check_ids(tokens: Tensor, size: int) -> None:
    """Raise unless tokens are integers in 0 to size − 1."""
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise InputError(f"token ids must be integers, got {tokens.dtype}; use dtype=torch.long")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
        raise InputError(
            f"token ids must lie in 0 to {size - 1}, the HMM's vocabulary; got {int(tokens.min())} to {int(tokens.max())}"
        )
