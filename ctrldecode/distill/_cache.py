"""A key-value cache for sampling whole batches: one buffer a layer, written in place, never copied to grow.

`DynamicLayer` concatenates at every token, which at batch 512 costs more than the model itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["sampling_cache"]


@final
class _BufferedLayer(DynamicLayer):
    """Keys and values of one layer, (B, heads, filled, width) views of buffers that hold `length` positions."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._keys, self._values = (
            x.new_empty(x.shape[0], x.shape[1], self._length, x.shape[3]) for x in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002  the signature of the base class
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._filled + key_states.shape[2]
        self._keys[:, :, self._filled : end] = key_states
        self._values[:, :, self._filled : end] = value_states
        self._show(end)
        return self.keys, self.values  # type: ignore[return-value]  they are tensors once shown

    def batch_select_indices(self, indices: Tensor) -> None:
        if self._filled:
            self._keys, self._values = self._keys[indices], self._values[indices]
            self._show(self._filled)

    def _show(self, end: int) -> None:
        self._filled = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]


def sampling_cache(config: Any, length: int) -> DynamicCache:
    """An empty cache for `length` positions; layers that are no plain attention (sliding windows ...) keep their own kind."""
    cache = DynamicCache(config=config)
    cache.layers = [_BufferedLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
