"""Latent variable distillation (Liu, Zhang & Van den Broeck 2023): from hidden states of the language model to first counts.

A position's latent state is the cluster of the hidden state from which the language model predicts its token, and the last
state where the text ends. Initial and transition counts are counts of these. For the emissions a position counts not the one
token that was drawn but the whole distribution that the language model has there, which costs no more text. Tokens of
prompts were not drawn and count as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ctrldecode.distill import cluster, corpus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from ctrldecode.kernels.hmm._em_torch import Counts

__all__ = ["Hidden", "first_counts", "load_hidden"]

_CHUNK = 4096  # positions at a time: 0.8 GB of probabilities at 50,000 tokens
# Where the mean |log p| by the output embedding is further than this from what the model said, its head does more than
# multiply (soft caps, scales); hidden states kept in float16 account for a hundredth.
_SAME = 0.05


class Hidden(NamedTuple):
    """Sequences with the hidden states that predict their tokens.

    Attributes:
        tokens: (n, T) int32, −1 is padding.
        drawn: (n, T) bool, whether the language model drew the token: neither prompt nor padding.
        log_probs: (n, T) of the language model.
        states: (n, T, D) float16.
    """

    tokens: Tensor
    drawn: Tensor
    log_probs: Tensor
    states: Tensor


def load_hidden(folder: Path, shards: Sequence[corpus.Shard], sequences: int) -> Hidden:
    """The first sequences of the shards that have hidden states, the kinds of text in proportion."""
    sampled = [corpus.read(folder, shard) for shard in shards if shard.hidden]
    total = sum(len(part.tokens) for part in sampled)
    width = max(part.tokens.shape[1] for part in sampled)

    def gather(tensors: Sequence[Tensor], value: float) -> Tensor:
        rows = [tensor[: -(-len(tensor) * sequences // total)] for tensor in tensors]
        out = rows[0].new_full((sum(map(len, rows)), width, *rows[0].shape[2:]), value)
        start = 0
        for tensor in rows:
            out[start : start + len(tensor), : tensor.shape[1]] = tensor
            start += len(tensor)
        return out

    tokens = gather([part.tokens for part in sampled], -1)
    given = torch.cat([part.given[: -(-len(part.given) * sequences // total)] for part in sampled])
    drawn = (tokens >= 0) & (torch.arange(width) >= given[:, None])
    states = [part.hidden for part in sampled if part.hidden is not None]
    return Hidden(tokens, drawn, gather([part.log_probs for part in sampled], 0.0), gather(states, 0.0))


def first_counts(
    hidden: Hidden,
    states: int,
    head: Tensor,
    eos_token_ids: Sequence[int],
    rng: np.random.Generator,
    counts: Counts,
    *,
    temperature: float = 1.0,
) -> None:
    """Fill counts, which are zero, from clustered hidden states.

    Args:
        hidden: the sequences.
        states: H; H − 1 of them are clusters.
        head: (V, D) output embedding of the language model.
        eos_token_ids: ids that end a text.
        rng: of k-means.
        counts: of (H,), (H, H), (V, H).
        temperature: of the sampling.

    Raises:
        DistillationError: there are fewer positions than clusters.
    """
    tokens = hidden.tokens.long()
    ends = torch.isin(tokens, torch.tensor(list(eos_token_ids)))
    inside = (tokens >= 0) & ~ends
    points = hidden.states[inside].float()
    mean, deviation = points.mean(0), points.std(0)
    points = (points - mean) / torch.where(deviation > 0, deviation, 1.0)  # every direction counts the same
    latent = torch.full(tokens.shape, -1)
    latent[inside] = cluster.assign(points, cluster.k_means(points, states - 1, rng))
    latent[ends] = states - 1
    counts.initial.add_(torch.bincount(latent[:, 0], minlength=states))
    before, after = latent[:, :-1].flatten(), latent[:, 1:].flatten()
    pairs = (before * states + after)[(before >= 0) & (after >= 0)]
    counts.transition.add_(torch.bincount(pairs, minlength=states * states).view(states, states))
    counts.emission.index_put_((tokens[ends], latent[ends]), torch.ones(int(ends.sum())), accumulate=True)
    _add_emissions(counts.emission, hidden, inside, latent, head.float() / temperature)


def _add_emissions(emission: Tensor, hidden: Hidden, inside: Tensor, latent: Tensor, head: Tensor) -> None:
    """Add distributions, or tokens where they were given or the head is no plain product, to the columns of their clusters."""
    soft = inside & hidden.drawn
    vectors, clusters = hidden.states[soft], latent[soft]
    first = (
        (vectors[:_CHUNK].float() @ head.T).log_softmax(-1).gather(1, hidden.tokens[soft][:_CHUNK, None].long())[:, 0]
    )
    if float((first - hidden.log_probs[soft][:_CHUNK]).abs().mean()) > _SAME:
        soft = torch.zeros_like(soft)
    hard = inside & ~soft
    emission.index_put_((hidden.tokens[hard].long(), latent[hard]), torch.ones(int(hard.sum())), accumulate=True)
    if bool(soft.any()):
        sums = torch.zeros(emission.shape[1], emission.shape[0])
        for part, where in zip(vectors.split(_CHUNK), clusters.split(_CHUNK), strict=True):
            sums.index_add_(0, where, (part.float() @ head.T).softmax(-1))
        emission += sums.T
