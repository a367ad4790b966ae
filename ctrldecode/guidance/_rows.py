"""Prompts with something put before them: a code, a condition. It knows token ids only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Heads", "heads_of", "padded", "real_ids"]


class Heads(NamedTuple):
    """A prompt in two parts: what stays in front of a code, and what goes behind it."""

    begin: list[int]
    rest: list[int]


def real_ids(prompts: Tensor, mask: Tensor | None) -> list[list[int]]:
    """The ids of each row of prompts (B, P) without padding."""
    if mask is None:
        return prompts.tolist()
    kept = mask.to(prompts.device, torch.bool)
    return [row[real].tolist() for row, real in zip(prompts, kept, strict=True)]


def heads_of(ids: Sequence[int], start: Sequence[int] | None, begins: Sequence[int]) -> Heads:
    """Where a code goes into a prompt: behind the tokens that begin a text.

    Args:
        ids: the prompt.
        start: what begins every text; put there if the prompt does not have it. None: whatever the prompt begins with of `begins`.
        begins: ids that begin texts.

    Example:
        >>> heads_of([0, 7, 8], None, [0]), heads_of([7, 8], [0], []), heads_of([0, 7, 8], [0], [])
        (Heads(begin=[0], rest=[7, 8]), Heads(begin=[0], rest=[7, 8]), Heads(begin=[0], rest=[7, 8]))
    """
    if start is None:
        count = next((place for place, token in enumerate(ids) if token not in begins), len(ids))
        return Heads(list(ids[:count]), list(ids[count:]))
    given = list(ids[: len(start)]) == list(start)
    return Heads(list(start), list(ids[len(start) :] if given else ids))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows as one tensor (n, W) padded on the left with 0, and a bool mask (n, W), False where it is padding.

    Raises:
        InputError: a row is empty: a language model needs a token to start from.
    """
    if not all(rows):
        raise InputError(
            "a prompt and its code are both empty, and a language model needs a token to start from; give the token that begins "
            "texts as start=[tokenizer.bos_token_id]"
        )
    width = max(map(len, rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor(row)
        mask[at, width - len(row) :] = True
    return ids, mask
