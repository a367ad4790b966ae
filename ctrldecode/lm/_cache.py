"""KV caches as plain tensors of a state, and back: only caches of one key and value tensor a layer."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ctrldecode.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cache_argument", "cache_message", "pack", "unpack"]


def cache_argument(model: Any) -> str:
    """What a model calls its KV cache, as an argument and in its output: `cache` from transformers 5.24 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def cache_message(name: str, got: str) -> str:
    return (
        f"{name} keeps {got} between tokens; CausalLM needs one key and value tensor per layer (a plain DynamicCache). "
        "Use a model with full or sliding attention in every layer, or write a Potential that carries this model's own state"
    )


def pack(cache: Any, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of a cache that a forward pass has filled."""
    layers: list[Any] = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer or not layer.is_initialized for layer in layers):
        kinds = sorted({type(layer).__name__ for layer in layers}) or [type(cache).__name__]
        raise ModelError(cache_message(name, ", ".join(kinds)))
    return tuple(layer.keys for layer in layers), tuple(layer.values for layer in layers)


def unpack(keys: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> DynamicCache:
    """A cache over a state's tensors. `DynamicLayer.update` concatenates into new tensors, so the state's are never written.

    All layers are full ones, for sliding-window models too: their window is then applied by the attention mask.
    """
    cache = DynamicCache()
    for key, value in zip(keys, values, strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(key, value)
        layer.keys, layer.values = key, value
        cache.layers.append(layer)
    return cache
