"""Next-token scores of prefixes that were visited, the least recently used ones dropped to stay within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ScoreCache"]


class ScoreCache:
    """Scores (V,) by node of a trie. What it forgets is computed again.

    Args:
        limit: bytes.

    Example:
        >>> import torch
        >>> cache = ScoreCache(limit=24)
        >>> for node in range(3):
        ...     cache.put(node, torch.zeros(3))
        >>> cache.get(0), len(cache)
        (None, 2)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used: int = 0
        self._scores: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, node: int) -> Tensor | None:
        """The scores of a node; None if they are not here."""
        scores = self._scores.get(node)
        if scores is not None:
            self._scores.move_to_end(node)
        return scores

    def put(self, node: int, scores: Tensor) -> None:
        """Keep the scores of a node."""
        old = self._scores.pop(node, None)
        self.used += scores.nbytes - (0 if old is None else old.nbytes)
        self._scores[node] = scores
        while self.used > self.limit:
            _, dropped = self._scores.popitem(last=False)
            self.used -= dropped.nbytes
