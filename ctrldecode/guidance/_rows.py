"""Prompts with something put before them: a code, a condition. It knows token ids only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.core._rows import left_padded
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Heads", "heads_of", "padded"]


class Heads(NamedTuple):
    """A prompt in two parts: what stays in front of a code, and what goes behind it."""

    begin: list[int]
    rest: list[int]


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
    return left_padded(rows)
