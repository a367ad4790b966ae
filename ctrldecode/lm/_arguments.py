"""What `CausalLM` asks of its arguments and of a model, and what it reads off the model's configuration."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ctrldecode.errors import InputError, ModelError
from ctrldecode.lm._cache import cache_message

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_integers", "check_model", "checked_mask", "context_of", "ends_of", "fingerprint", "head_width"]

# Numbers of each parameter that a fingerprint looks at: fine-tuning changes nearly all of them.
_SAMPLED = 32
_NO_LIMIT = 2**31
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_integers(tokens: Tensor, name: str, shape: str) -> None:
    if not isinstance(tokens, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
        got = type(tokens).__name__
    elif tokens.dtype not in _INTEGERS:
        got = str(tokens.dtype)
    else:
        return
    raise InputError(
        f"{name} must be a tensor of token ids, {shape} integers, got {got}; write torch.tensor(ids, dtype=torch.long)"
    )


def checked_mask(mask: Tensor | None, prompts: Tensor) -> Tensor:
    """(B, P) bool: the mask, which may only hide positions on the left, or one that hides none."""
    if mask is None:
        return torch.ones_like(prompts, dtype=torch.bool)
    if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
        raise InputError(f"mask must be a tensor (B, P) of bool, got {type(mask).__name__}; write torch.tensor(mask)")
    mask = mask.to(prompts.device, torch.bool)
    if mask.shape != prompts.shape:
        raise InputError(
            f"mask must have the prompts' shape {tuple(prompts.shape)}, got {tuple(mask.shape)}; take both from one "
            "call of the tokenizer"
        )
    if not bool(mask[:, -1].all()) or bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise InputError(
            "padding must stand on the left, with no holes, so that every row's last position is a real token; "
            "set tokenizer.padding_side = 'left'"
        )
    return mask


def check_model(model: Any) -> None:
    name = type(model).__name__
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise InputError(
            f"CausalLM needs a model of transformers, got {name}; load one with AutoModelForCausalLM.from_pretrained(name)"
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder; CausalLM needs a decoder-only model (AutoModelForCausalLM)")
    if model.training:
        raise ModelError(f"{name} is in training mode, where dropout makes log-weights random; call model.eval() first")
    try:
        layers: list[Any] = DynamicCache(config=model.config).layers
    except Exception as error:  # a strange number of layers, say, and whatever transformers makes of it
        raise ModelError(f"{name} has a config that no cache can be made for ({error}); correct config.json") from error
    strange = sorted({type(x).__name__ for x in layers if type(x) not in (DynamicLayer, DynamicSlidingWindowLayer)})
    if strange:
        raise ModelError(cache_message(name, ", ".join(strange)))


def head_width(model: Any) -> int:
    """Width of the logits: that of the output embedding, which may be larger than the tokenizer."""
    head = model.get_output_embeddings()
    weight: Tensor | None = getattr(head, "weight", None)
    return int(model.config.get_text_config().vocab_size if weight is None else weight.shape[0])


def context_of(model: Any) -> int | None:
    """How many positions a model has; None if its configuration names no number, or one as large as stands for none (10^30)."""
    positions: Any = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions < _NO_LIMIT else None


def ends_of(model: Any, given: Iterable[int] | None, size: int) -> tuple[int, ...]:
    """The ids given, checked; else those of the model's configuration that its head can score."""
    if given is not None:
        ids = tuple(sorted({int(token) for token in given}))
        if ids and not 0 <= ids[0] <= ids[-1] < size:
            raise InputError(f"eos_token_ids must lie in [0, {size}), got {list(ids)}; use the model's own tokenizer")
        return ids
    generation: Any = getattr(model, "generation_config", None)
    found: Any = None if generation is None else generation.eos_token_id
    found = model.config.get_text_config().eos_token_id if found is None else found
    named: list[int] = [] if found is None else [found] if isinstance(found, int) else list(found)
    return tuple(sorted({token for token in named if 0 <= token < size}))


def fingerprint(model: Any, temperature: float, eos_token_ids: tuple[int, ...]) -> str:
    """Hex digest of the settings and of a few numbers of every parameter, with its sum: enough to tell models apart, cheap for large ones."""
    digest = hashlib.sha256(f"{temperature!r} {eos_token_ids}".encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED].float().cpu()
        total = parameter.detach().sum(dtype=torch.float64).item()  # a change anywhere, such as of one code's embedding
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype} {some.tolist()} {total!r}".encode())
    return digest.hexdigest()
