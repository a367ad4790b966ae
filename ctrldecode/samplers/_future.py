"""`Future`: a trie's bounds as a potential, so that a processor or a sampler can use what was learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ctrldecode.core.potential import Potential
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.samplers._trie import Trie

__all__ = ["Future", "FutureState"]


class FutureState(NamedTuple):
    """Where each row's text is in the trie.

    Attributes:
        nodes: (B,) int64, −1 where the trie knows nothing.
        ended: (B,) bool, whether an end of sequence was read.
    """

    nodes: NDArray[np.int64]
    ended: NDArray[np.bool_]


class Future(Potential[FutureState]):
    """ψ(x) = r(x), what a trie knows of the expected future in units of the potential it was learned for; 1 where it knows nothing.

    `Future(trie) * potential` is ASAp's c (Park et al. 2024): drawing from the model under it is one more sample of `asap`.

    Args:
        trie: what `asap` or `cars` learned.

    Raises:
        InputError: in `init`, if a budget is not the one that the trie was learned for.

    Example:
        >>> from ctrldecode.samplers import Future, Trie
        >>> future = Future(Trie(3, max_new_tokens=4, eos_token_ids=[2]))
        >>> future.log_weights(future.init(torch.tensor([[0]])))
        tensor([[0., 0., 0.]])
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.size: int = trie.size

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> FutureState:
        """Every row at the root of its prompt; see `Potential.init`."""
        if budget is not None and bool((budget != self.trie.max_new_tokens).any()):
            raise InputError(
                f"the trie was learned for max_new_tokens={self.trie.max_new_tokens}, and a budget of {budget.tolist()} was given; its bounds "
                "hold for that budget only"
            )
        shown = torch.ones_like(prompts, dtype=torch.bool) if mask is None else mask.bool()
        rows = [tuple(row[real].tolist()) for row, real in zip(prompts, shown, strict=True)]
        nodes = np.array([self.trie.roots.get(row, -1) for row in rows], np.int64)
        return FutureState(nodes, np.zeros(len(rows), np.bool_))

    def log_weights(self, state: FutureState, tokens: Tensor | None = None) -> Tensor:
        """log r(x·v) − log r(x), (B, V) or (B, K) float32."""
        weights = torch.zeros(len(state.nodes), self.size)
        for row, node in enumerate(state.nodes.tolist()):
            here = float(self.trie.log_ratio[node]) if node >= 0 else 0.0
            if node < 0 or state.ended[row] or here == -math.inf:
                continue
            below, ratios = self.trie.children(node)
            weights[row] = -here
            weights[row, torch.from_numpy(below)] = torch.from_numpy(ratios - here).float()
        return weights if tokens is None else weights.to(tokens.device).gather(1, tokens)

    def step(self, state: FutureState, tokens: Tensor) -> FutureState:
        """One more token a row."""
        ids: list[int] = tokens.tolist()
        ended = state.ended | np.isin(ids, self.trie.eos_token_ids)
        nodes = [
            -1 if done or node < 0 else self.trie.node_below(node, token)
            for node, token, done in zip(state.nodes.tolist(), ids, ended.tolist(), strict=True)
        ]
        return FutureState(np.array(nodes, np.int64), ended)

    def describe(self) -> str:
        """One line for error messages."""
        return f"the futures of {self.trie.nodes} prefixes"
