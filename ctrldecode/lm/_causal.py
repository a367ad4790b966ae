"""A Hugging Face causal language model as a `Potential`: ψ is the probability of the text, the state is a KV cache.

It knows nothing of constraints, of `generate` or of tokenizers. Being a potential, it multiplies with the others: DExperts is
`lm * (expert / antiexpert) ** alpha`, classifier-free guidance is `unconditional ** (1 - g) * conditional ** g`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ctrldecode.core._rows import left_padded, real_ids
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.core.potential import cat
from ctrldecode.errors import InputError, ModelError
from ctrldecode.lm._arguments import (
    check_integers,
    check_model,
    checked_mask,
    context_of,
    ends_of,
    fingerprint,
    head_width,
)
from ctrldecode.lm._cache import cache_argument, pack, unpack
from ctrldecode.lm._state import CausalLMState, beginning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["CausalLM", "CausalLMState", "ForwardPasses"]

# Logits that `score` holds at a time: 256 MB of float32.
_MOST_LOGITS = 2**26


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
        tokenizer: what reads arguments that are texts, such as the codes of `GeDi`; not needed otherwise.

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

    parallel = True

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Iterable[int] | None = None,
        temperature: float = 1.0,
        tokenizer: Any = None,
    ) -> None:
        check_model(model)
        if not 0 < temperature < float("inf"):
            raise InputError(
                f"temperature must be a positive number, got {temperature}; for greedy decoding take the argmax"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.config: Mapping[str, Any] = model.config.to_dict()
        self.temperature: float = float(temperature)
        self.size: int = head_width(model)
        self.eos_token_ids: tuple[int, ...] = ends_of(model, eos_token_ids, self.size)
        self.forward_passes: ForwardPasses = ForwardPasses()
        self.context: int | None = context_of(model)
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_some = "logits_to_keep" in accepted
        self._cache_argument = cache_argument(model)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # it reads all weights
        """Hex digest of the model and the settings."""
        return fingerprint(self.model, self.temperature, self.eos_token_ids)

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
        return self._read(prompts, mask, 1)[0]

    def log_weights(self, state: CausalLMState, tokens: Tensor | None = None) -> Tensor:
        """Log-probabilities log p(v | x), (B, V) or (B, K) float32; 0 for rows that have ended."""
        logits = state.logits if tokens is None else state.logits.gather(1, tokens.to(state.logits.device, torch.long))
        log_probs = self._tempered(logits) - state.log_total[:, None]
        return log_probs.masked_fill_(state.finished[:, None], 0.0) if bool(state.finished.any()) else log_probs

    def step(self, state: CausalLMState, tokens: Tensor) -> CausalLMState:
        """Run one more token a row, (B,). What is stepped after the end of a text has no effect, padding included.

        Raises:
            InputError: not one integer a row, an id outside the vocabulary, or more tokens than the model's context holds.
        """
        tokens = self._checked_tokens(tokens, state.finished)
        return self._advance(state, tokens[:, None], [self._ended(state.finished, tokens)])[0]

    def step_all(self, state: CausalLMState, tokens: Tensor) -> list[CausalLMState]:
        """The states after each of K more tokens a row, (B, K): one forward pass, or some where there would be too many logits.

        Raises:
            InputError: as in `step`.
        """
        states = [state]
        for piece in tokens.split(max(1, _MOST_LOGITS // max(1, len(tokens) * self.size)), dim=1):
            columns: list[Tensor] = []
            finished = [states[-1].finished]
            for column in piece.unbind(1):
                columns.append(self._checked_tokens(column, finished[-1]))
                finished.append(self._ended(finished[-1], columns[-1]))
            states += self._advance(states[-1], torch.stack(columns, dim=1), finished[1:])
        return states[1:]

    def _ended(self, finished: Tensor, tokens: Tensor) -> Tensor:
        return finished | _isin(tokens, self.eos_token_ids) & ~finished

    def _advance(self, state: CausalLMState, tokens: Tensor, finished: list[Tensor]) -> list[CausalLMState]:
        """The states after each of K checked tokens a row, (B, K), by one forward pass; `finished` (B,) after each."""
        count = tokens.shape[1]
        after = state.position[:, None] + torch.arange(1, count + 1, device=state.position.device)
        before = torch.stack([state.finished, *finished[:-1]], dim=1)
        self._check_context(after.masked_fill(before, 0))
        mask = torch.cat([state.mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        # A row that has ended may be stepped past the context; the embedding has no position there.
        positions = after - 1 if self.context is None else (after - 1).clamp_max(self.context - 1)
        cache = unpack(state.keys, state.values)
        last, logits = self._forward(cache, tokens, mask, positions, after[:, -1], finished[-1], count)
        logits = logits[:, -count:-1]
        totals = self._tempered(logits).logsumexp(-1)
        # Copies of logits, as in `_forward`; keys and values are views of the last state's, of which they are the beginning.
        return [
            beginning(last, at + 1 - count, after[:, at], logits[:, at].clone(), totals[:, at], finished[at])
            for at in range(count - 1)
        ] + [last]

    def resume(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> CausalLMState:
        """State after prompts and texts, by one forward pass over both; see `LanguageModel.resume`."""
        return self.init(*self._joined(prompts, mask, texts))

    def score(
        self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]
    ) -> tuple[CausalLMState, Tensor]:
        """The state after prompts and texts and log p(text | prompt), by one forward pass; see `LanguageModel.score`.

        Where there would be too many logits, some rows are read at a time, and a row that has too many alone is read in pieces.
        """
        padded, shown = self._joined(prompts, mask, texts)
        lengths = torch.tensor([len(text) for text in texts])
        longest = int(lengths.max())
        rows = _MOST_LOGITS // ((longest + 1) * self.size)
        if not rows:
            parts = [self._score_row(*row) for row in zip(padded, shown, lengths.tolist(), strict=True)]
            return cat([state for state, _ in parts]), torch.cat([total for _, total in parts])
        states: list[CausalLMState] = []
        totals: list[Tensor] = []
        for start in range(0, len(texts), rows):
            some = slice(start, start + rows)
            state, logits = self._read(padded[some], shown[some], longest + 1)
            states.append(state)
            totals.append(self._total(logits[:, -longest - 1 : -1], padded[some], lengths[some]))
        return cat(states), torch.cat(totals)

    def _score_row(self, padded: Tensor, shown: Tensor, length: int) -> tuple[CausalLMState, Tensor]:
        """State and log p (1,) of a row (W,) by its last tokens, in pieces that continue one another's cache."""
        ids = padded[shown][None]
        self._check_context(shown.sum()[None])
        state = self.init(ids[:, : ids.shape[1] - length])
        total = torch.zeros(1, dtype=torch.float64)
        pieces = ids[:, ids.shape[1] - length :].split(max(1, _MOST_LOGITS // self.size), dim=1) if length else ()
        for piece in pieces:
            count = piece.shape[1]
            read = self._checked_prompts(piece)
            mask = torch.cat([state.mask, torch.ones_like(read, dtype=torch.bool)], dim=1)
            positions = state.position[:, None] + torch.arange(count, device=read.device)
            cache, before = unpack(state.keys, state.values), state.logits[:, None]
            state, logits = self._forward(cache, read, mask, positions, state.position + count, state.finished, count)
            total += self._total(torch.cat([before, logits[:, -count:-1]], dim=1), read, torch.tensor([count]))
        return state, total

    def _total(self, logits: Tensor, padded: Tensor, lengths: Tensor) -> Tensor:
        """Σ log p of the last `lengths` (B,) tokens of rows (B, W) by logits (B, n, V) of what stands before each; (B,) float64."""
        longest = logits.shape[1]
        log_probs = torch.log_softmax(self._tempered(logits), dim=-1)
        read = padded[:, padded.shape[1] - longest :].to(logits.device)
        gained = log_probs.gather(2, read[:, :, None])[:, :, 0].double().cpu()
        return gained.masked_fill(torch.arange(longest) < longest - lengths[:, None], 0.0).sum(-1)

    def describe(self) -> str:
        """The model's class and size, for error messages."""
        return f"CausalLM({type(self.model).__name__}, V={self.size})"

    def _joined(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Prompts with their texts behind them, (B, P + longest) ids padded on the left, and which are no padding."""
        prompts = self._checked_prompts(prompts).cpu()
        kept = checked_mask(mask, prompts)
        rows = [[*ids, *text] for ids, text in zip(real_ids(prompts, kept), texts, strict=True)]
        return left_padded(rows, prompts.shape[1] + max(map(len, texts)))

    def _read(self, prompts: Tensor, mask: Tensor | None, keep: int) -> tuple[CausalLMState, Tensor]:
        """State after the prompts, and logits (B, n, V) of at least the last `keep` positions."""
        prompts = self._checked_prompts(prompts)
        mask = checked_mask(mask, prompts)
        position = mask.sum(-1)
        self._check_context(position)
        finished = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
        positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
        return self._forward(DynamicCache(), prompts, mask, positions, position, finished, keep)

    def _forward(
        self,
        cache: DynamicCache,
        tokens: Tensor,
        mask: Tensor,
        positions: Tensor,
        position: Tensor,
        finished: Tensor,
        keep: int,
    ) -> tuple[CausalLMState, Tensor]:
        """One forward pass of tokens (B, n) at positions (B, n) after what the cache holds; mask (B, T) covers both.

        Returns the state and logits (B, n', V) of at least the last `keep` positions.
        """
        self.forward_passes.calls += 1
        self.forward_passes.positions += tokens.numel()
        extra: dict[str, Any] = {self._cache_argument: cache}
        if self._keeps_some:
            extra["logits_to_keep"] = keep
        if self._takes_positions:
            extra["position_ids"] = positions
        with torch.no_grad():
            output = self.model(
                input_ids=tokens,
                attention_mask=mask.long(),
                use_cache=True,
                return_dict=True,
                **extra,
            )
        logits = self._checked_logits(output)
        keys, values = pack(getattr(output, self._cache_argument), self.describe())
        # A copy, since a view would keep the logits of the whole prompt in memory.
        last = logits[:, -1].clone()
        return CausalLMState(keys, values, mask, position, last, self._tempered(last).logsumexp(-1), finished), logits

    def _tempered(self, logits: Tensor) -> Tensor:
        """Logits over temperature, float32."""
        return logits.float() if self.temperature == 1 else logits.float() / self.temperature

    def _checked_logits(self, output: Any) -> Tensor:
        logits: Tensor | None = getattr(output, "logits", None)
        if logits is None:
            raise ModelError(f"{self.describe()} returned no logits; load it as AutoModelForCausalLM, with its head")
        if logits.shape[-1] != self.size:
            raise ModelError(
                f"{self.describe()} returned logits over {logits.shape[-1]} ids where its head has {self.size}; "
                "a wrapper around the head changes the width: pass the bare model"
            )
        return logits

    def _checked_prompts(self, prompts: Tensor) -> Tensor:
        """Prompts (B, P) on the model's device."""
        check_integers(prompts, "prompts", "(B, P)")
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
        check_integers(tokens, "tokens", "(B,)")
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
        if self.context is not None and read.numel() and int(read.max()) > self.context:
            raise InputError(
                f"{self.describe()} reads at most {self.context} tokens, got {int(read.max())}; shorten the prompt, or "
                "generate fewer tokens"
            )


def _isin(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(tokens, torch.tensor(ids, dtype=torch.long, device=tokens.device))
