"""A Hugging Face causal language model as a `Potential`: ψ is the probability of the text, the state is a KV cache.

It knows nothing of constraints, of `generate` or of tokenizers. Being a potential, it multiplies with the others: DExperts is
`lm * (expert / antiexpert) ** alpha`, classifier-free guidance is `unconditional ** (1 - g) * conditional ** g`.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ctrldecode.core.language_model import LanguageModel
from ctrldecode.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CausalLM", "CausalLMState", "ForwardPasses"]

# Numbers of each parameter that a fingerprint looks at: fine-tuning changes nearly all of them.
_SAMPLED = 32
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class CausalLMState:
    """What the model has read so far: B rows of T positions, padding among them.

    Attributes:
        keys: per layer (B, heads, T, width).
        values: per layer (B, heads, T, width).
        mask: (B, T) bool, False where a position is padding.
        position: (B,) position id of the next token: how many real tokens were read.
        logits: (B, V) of the next token, in the model's own precision.
        finished: (B,) bool, whether an end-of-sequence token was stepped.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    position: Tensor
    logits: Tensor
    finished: Tensor


@dataclass
class ForwardPasses:
    """How much a model was used; the only thing in `CausalLM` that changes, and nothing it returns depends on it.

    Attributes:
        calls: forward passes run.
        positions: rows times positions over all of them, padding included.
    """

    calls: int = 0
    positions: int = 0


class CausalLM(LanguageModel[CausalLMState]):
    """p(x | prompt)^(1/temperature, renormalised at every token), as log-weights log p(v | x).

    Rows are neutral once an end-of-sequence token was stepped. Every `step` makes its own cache from the state's tensors, so
    old states stay valid and any state can be branched.

    Args:
        model: a decoder-only model of `transformers`, in evaluation mode; it stays on the device where it is.
        eos_token_ids: ids that end a text; None takes those of the model's generation config, else of its config.
        temperature: logits are divided by it; > 0.

    Attributes:
        eos_token_ids: ids that end a text, sorted.
        forward_passes: a running count, for cost accounts.

    Raises:
        ModelError: the model is an encoder-decoder, is in training mode, or keeps something else than keys and values.
        InputError: it is no model at all, the temperature is not positive, or an id lies outside the vocabulary.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, max_position_embeddings=32)
        >>> lm = CausalLM(LlamaForCausalLM(config).eval(), eos_token_ids=[2])
        >>> state = lm.step(lm.init(torch.tensor([[1, 4], [1, 5]])), torch.tensor([3, 2]))
        >>> lm.log_weights(state).exp().sum(-1).round().tolist(), lm.forward_passes.calls
        ([1.0, 7.0], 2)
    """

    def __init__(self, model: Any, *, eos_token_ids: Iterable[int] | None = None, temperature: float = 1.0) -> None:
        _check_model(model)
        if not 0 < temperature < float("inf"):
            raise InputError(
                f"temperature must be a positive number, got {temperature}; for greedy decoding take the argmax"
            )
        self.model = model
        self.temperature = float(temperature)
        self.size = _head_width(model)
        self.eos_token_ids = _eos_token_ids(model, eos_token_ids, self.size)
        self.forward_passes = ForwardPasses()
        self.fingerprint = _fingerprint(model, self.temperature, self.eos_token_ids)
        self._context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def init(
        self,
        prompts: Tensor,
        mask: Tensor | None = None,
        budget: Tensor | None = None,  # noqa: ARG002
    ) -> CausalLMState:
        """Run the prompts.

        Args:
            prompts: (B, P) token ids, P ≥ 1.
            mask: (B, P) bool, False where a position is padding; padding stands on the left.
            budget: has no effect: a model has no limit of its own.

        Raises:
            InputError: no tokens at all, or not integers; ids outside the vocabulary; more tokens than the model's context
                holds; or padding that is not on the left.
            ModelError: the model returned a cache that is not one of keys and values.
        """
        prompts = self._checked_prompts(prompts)
        mask = _checked_mask(mask, prompts)
        position = mask.sum(-1)
        self._check_context(position)
        finished = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
        positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
        return self._forward(DynamicCache(), prompts, mask, positions, position, finished)

    def log_weights(self, state: CausalLMState, tokens: Tensor | None = None) -> Tensor:
        """Log-probabilities log p(v | x), (B, V) or (B, K) float32; 0 for rows that have ended."""
        log_probs = torch.log_softmax(state.logits.float() / self.temperature, dim=-1)
        log_probs.masked_fill_(state.finished[:, None], 0.0)
        return log_probs if tokens is None else log_probs.gather(1, tokens.to(log_probs.device, torch.long))

    def step(self, state: CausalLMState, tokens: Tensor) -> CausalLMState:
        """Run one more token a row, (B,). What is stepped after the end of a text has no effect, padding included.

        Raises:
            InputError: not one integer a row, an id outside the vocabulary, or more tokens than the model's context holds.
        """
        tokens = self._checked_tokens(tokens, state.finished)
        self._check_context((state.position + 1).masked_fill(state.finished, 0))
        mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
        finished = state.finished | _isin(tokens, self.eos_token_ids) & ~state.finished
        cache = _unpack(state.keys, state.values)
        # A row that has ended may be stepped past the context; the embedding has no position there.
        positions = state.position if self._context is None else state.position.clamp_max(self._context - 1)
        return self._forward(cache, tokens[:, None], mask, positions[:, None], state.position + 1, finished)

    def resume(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> CausalLMState:
        """State after prompts and texts, by one forward pass over both; see `LanguageModel.resume`."""
        prompts = self._checked_prompts(prompts).cpu()
        kept = _checked_mask(mask, prompts)
        rows = [[*prompt[real].tolist(), *text] for prompt, real, text in zip(prompts, kept, texts, strict=True)]
        width = prompts.shape[1] + max(map(len, texts))
        padded = torch.zeros(len(rows), width, dtype=torch.long)
        shown = torch.zeros(len(rows), width, dtype=torch.bool)
        for at, row in enumerate(rows):
            padded[at, width - len(row) :] = torch.tensor(row)
            shown[at, width - len(row) :] = True
        return self.init(padded, shown)

    def describe(self) -> str:
        """The model's class and size, for error messages."""
        return f"CausalLM({type(self.model).__name__}, V={self.size})"

    def _forward(
        self, cache: DynamicCache, tokens: Tensor, mask: Tensor, positions: Tensor, position: Tensor, finished: Tensor
    ) -> CausalLMState:
        """One forward pass of tokens (B, n) at positions (B, n) after what the cache holds; mask (B, T) covers both."""
        self.forward_passes.calls += 1
        self.forward_passes.positions += tokens.numel()
        extra: dict[str, Any] = dict(self._keeps_last)
        if self._takes_positions:
            extra["position_ids"] = positions
        with torch.no_grad():
            output = self.model(
                input_ids=tokens,
                attention_mask=mask.long(),
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
                **extra,
            )
        logits = self._last_logits(output)
        keys, values = _pack(output.past_key_values, self.describe())
        return CausalLMState(keys, values, mask, position, logits, finished)

    def _last_logits(self, output: Any) -> Tensor:
        """(B, V) of the last position; a copy, since a view would keep the logits of the whole prompt in memory."""
        logits: Tensor | None = getattr(output, "logits", None)
        if logits is None:
            raise ModelError(f"{self.describe()} returned no logits; load it as AutoModelForCausalLM, with its head")
        if logits.shape[-1] != self.size:
            raise ModelError(
                f"{self.describe()} returned logits over {logits.shape[-1]} ids where its head has {self.size}; "
                "a wrapper around the head changes the width: pass the bare model"
            )
        return logits[:, -1].clone()

    def _checked_prompts(self, prompts: Tensor) -> Tensor:
        """Prompts (B, P) on the model's device."""
        _check_integers(prompts, "prompts", "(B, P)")
        if prompts.dim() != 2 or not prompts.numel():
            raise InputError(
                f"prompts must be (B, P) token ids with at least one token a row, got shape {tuple(prompts.shape)}; for an empty "
                "prompt give the beginning-of-sequence token, or what the model was trained to start from"
            )
        prompts = prompts.to(self.model.device, torch.long)
        self._check_range(prompts, "prompt ids")
        return prompts

    def _checked_tokens(self, tokens: Tensor, finished: Tensor) -> Tensor:
        """Tokens (B,) on the model's device, 0 in rows that have ended."""
        _check_integers(tokens, "tokens", "(B,)")
        if tokens.shape != finished.shape:
            raise InputError(
                f"tokens must be one id a row, shape {tuple(finished.shape)}, got shape {tuple(tokens.shape)}; "
                "take(state, rows) repeats or drops rows of a state"
            )
        tokens = tokens.to(finished.device, torch.long).masked_fill(finished, 0)
        self._check_range(tokens, "ids that are stepped")
        return tokens

    def _check_range(self, tokens: Tensor, name: str) -> None:
        """An id out of range would be an IndexError on a CPU, and on a GPU the end of the process's use of it."""
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.size):
            raise InputError(
                f"{name} must lie in [0, {self.size}), got {int(tokens.min())} to {int(tokens.max())}; "
                "use the tokenizer that belongs to the model"
            )

    def _check_context(self, read: Tensor) -> None:
        """Positions past the context were never trained, or do not exist; `read` (B,) counts tokens without padding."""
        if self._context is not None and read.numel() and int(read.max()) > self._context:
            raise InputError(
                f"{self.describe()} reads at most {self._context} tokens, got {int(read.max())}; shorten the prompt, or "
                "generate fewer tokens"
            )


def _check_integers(tokens: Tensor, name: str, shape: str) -> None:
    if not isinstance(tokens, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
        got = type(tokens).__name__
    elif tokens.dtype not in _INTEGERS:
        got = str(tokens.dtype)
    else:
        return
    raise InputError(
        f"{name} must be a tensor of token ids, {shape} integers, got {got}; write torch.tensor(ids, dtype=torch.long)"
    )


def _checked_mask(mask: Tensor | None, prompts: Tensor) -> Tensor:
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


def _check_model(model: Any) -> None:
    name = type(model).__name__
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise InputError(
            f"CausalLM needs a model of transformers, got {name}; load one with AutoModelForCausalLM.from_pretrained(name)"
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder; CausalLM needs a decoder-only model (AutoModelForCausalLM)")
    if model.training:
        raise ModelError(f"{name} is in training mode, where dropout makes log-weights random; call model.eval() first")
    layers: list[Any] = DynamicCache(config=model.config).layers
    strange = sorted({type(x).__name__ for x in layers if type(x) not in (DynamicLayer, DynamicSlidingWindowLayer)})
    if strange:
        raise ModelError(_cache_message(name, ", ".join(strange)))


def _cache_message(name: str, got: str) -> str:
    return (
        f"{name} keeps {got} between tokens; CausalLM needs one key and value tensor per layer (a plain DynamicCache). "
        "Use a model with full or sliding attention in every layer, or write a Potential that carries this model's own state"
    )


def _head_width(model: Any) -> int:
    """Width of the logits: that of the output embedding, which may be larger than the tokenizer."""
    head = model.get_output_embeddings()
    weight: Tensor | None = getattr(head, "weight", None)
    return int(model.config.get_text_config().vocab_size if weight is None else weight.shape[0])


def _eos_token_ids(model: Any, given: Iterable[int] | None, size: int) -> tuple[int, ...]:
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


def _fingerprint(model: Any, temperature: float, eos_token_ids: tuple[int, ...]) -> str:
    """Hex digest of the settings and of a few numbers of every parameter: enough to tell models apart, cheap for large ones."""
    digest = hashlib.sha256(f"{temperature!r} {eos_token_ids}".encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED].float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype} {some.tolist()}".encode())
    return digest.hexdigest()


def _isin(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(tokens, torch.tensor(ids, dtype=torch.long, device=tokens.device))


def _pack(cache: Any, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of a cache that a forward pass has filled."""
    layers: list[Any] = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer or not layer.is_initialized for layer in layers):
        kinds = sorted({type(layer).__name__ for layer in layers}) or [type(cache).__name__]
        raise ModelError(_cache_message(name, ", ".join(kinds)))
    return tuple(layer.keys for layer in layers), tuple(layer.values for layer in layers)


def _unpack(keys: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> DynamicCache:
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
