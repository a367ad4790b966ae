"""Sampling from a causal language model in batches: tokens, their log-probabilities, the hidden states that predict them.

It knows nothing of files, shards or hidden Markov models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrldecode.distill._cache import sampling_cache
from ctrldecode.errors import DistillationError
from ctrldecode.lm._cache import cache_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Sampled", "sample"]

PADDING = -1
# Finished rows cost as much as live ones, and dropping them copies the cache once: worth it when a good part has finished.
_DROP_AT = 0.15


class Sampled(NamedTuple):
    """n texts of up to T tokens, the prompt's among them, the begin token not; what follows the end of a text is padding.

    Attributes:
        tokens: (n, T) int32, −1 is padding.
        given: (n,) int32, how many tokens of each are its prompt.
        log_probs: (n, T) float32, log p(token | what stands before it), 0 at padding.
        hidden: (n, T, D) float16, the last layer's hidden state that predicts the token, 0 at padding; None if not kept.
    """

    tokens: Tensor
    given: Tensor
    log_probs: Tensor
    hidden: Tensor | None


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    length: int,
    *,
    begin: int,
    eos_token_ids: Sequence[int],
    rng: np.random.Generator,
    temperature: float = 1.0,
    keep_hidden: bool = False,
) -> Sampled:
    """Continue every prompt by up to `length` tokens.

    All rows advance together, a token at a time; inside its prompt a row takes the given token in place of the drawn one, so
    that prompts of different lengths need no padding.

    Args:
        model: a decoder-only model of transformers, in evaluation mode.
        prompts: n lists of token ids, without the begin token; may be empty lists.
        length: new tokens of each row, the end of sequence among them.
        begin: the token that stands before every text.
        eos_token_ids: ids that end a text.
        rng: draws one number a row and step, whatever the rows do.
        temperature: logits are divided by it; log-probabilities are those of what is drawn from.
        keep_hidden: whether hidden states are returned.

    Raises:
        DistillationError: the model's distribution or hidden states are not finite.
    """
    device = model.get_output_embeddings().weight.device
    forced = _padded(prompts, length).to(device)  # (n, T), −1 where the model is free
    given = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32)
    limits = given.to(device) + length
    ends = torch.tensor(sorted(eos_token_ids), device=device)
    rows, steps = forced.shape
    tokens = torch.full_like(forced, PADDING)
    log_probs = torch.zeros(forced.shape, device=device)
    hidden: Tensor | None = None
    cache, argument = sampling_cache(model.config, steps), cache_argument(model)
    live = torch.arange(rows, device=device)
    last = torch.full((rows,), begin, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)  # of the live rows
    for step in range(steps):
        output = model(input_ids=last[:, None], use_cache=True, output_hidden_states=keep_hidden, **{argument: cache})
        uniform = torch.from_numpy(rng.random(rows, dtype=np.float32)).to(device)[live]
        last, log_prob = _draw(output.logits[:, -1].float() / temperature, uniform, forced[live, step])
        tokens[live, step] = last.masked_fill(~running, PADDING).to(tokens.dtype)
        log_probs[live, step] = log_prob.masked_fill(~running, 0.0)
        if keep_hidden:
            state = output.hidden_states[-1][:, -1].to(torch.float16)
            if hidden is None:
                hidden = torch.zeros(rows, steps, state.shape[1], dtype=torch.float16, device=device)
            hidden[live, step] = state.masked_fill(~running[:, None], 0.0)
        running &= ~torch.isin(last, ends) & (limits[live] > step + 1)
        alive = float(running.float().mean())
        if alive == 0:
            break
        if alive < 1 - _DROP_AT:
            kept = running.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            live, last, running = live[kept], last[kept], running[kept]
    return _checked(Sampled(tokens.cpu(), given, log_probs.cpu(), None if hidden is None else hidden.cpu()))


def _padded(prompts: Sequence[Sequence[int]], length: int) -> Tensor:
    """(n, longest prompt + length) int32, −1 behind each prompt."""
    forced = np.full((len(prompts), max(map(len, prompts)) + length), PADDING, np.int32)
    for row, prompt in zip(forced, prompts, strict=True):
        row[: len(prompt)] = prompt
    return torch.from_numpy(forced)


def _draw(logits: Tensor, uniform: Tensor, forced: Tensor) -> tuple[Tensor, Tensor]:
    """A token a row by inversion of the distribution function, or the forced one; and its log-probability.

    logits (n, V), uniform (n,) in [0, 1), forced (n,).
    """
    log_probs = logits.log_softmax(-1)
    below = log_probs.exp().cumsum_(-1)
    drawn = torch.searchsorted(below, (uniform * below[:, -1])[:, None], right=True)
    drawn = drawn.clamp_(max=logits.shape[1] - 1)[:, 0]
    tokens = torch.where(forced >= 0, forced.to(drawn.dtype), drawn)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


def _checked(sampled: Sampled) -> Sampled:
    hidden = sampled.hidden
    if not bool(sampled.log_probs.isfinite().all()):
        raise DistillationError(
            "the model gave NaN, or probability 0, for a token of its text; wanted finite log-probabilities. Check "
            "that its weights are whole and that it does not overflow in its own precision"
        )
    if hidden is not None and not bool(hidden.isfinite().all()):
        raise DistillationError(
            "the model's hidden states are not finite in float16, in which they are kept; check that its weights "
            "are whole and that it does not overflow in its own precision"
        )
    return sampled
