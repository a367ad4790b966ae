"""The sampled texts in memory, as token arrays, and the batches that EM takes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ctrldecode.distill import corpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ctrldecode.distill.workers import Workers

__all__ = ["Texts", "batches", "load", "rows_of", "steps", "token_distribution"]

_ORDER, _DROPOUT = 2, 3  # words of a seed; 0 and 1 are those of the shards


class Texts(NamedTuple):
    """Sequences and what the language model says of them.

    Attributes:
        tokens: (N, T) int32, −1 is padding.
        lengths: (N,) tokens of each.
        log_prob: (N,) float64, log p(x) of each under the language model.
    """

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor

    @property
    def nats(self) -> float:
        """The language model's own nats a token."""
        return -float(self.log_prob.sum()) / int(self.lengths.sum())

    def every(self, stride: int) -> Texts:
        """Every stride-th of them."""
        return Texts(*(part[::stride] for part in self))


def load(folder: Path, shards: Sequence[corpus.Shard]) -> Texts:
    """All sequences of some shards, in their order."""
    sampled = [corpus.read(folder, shard) for shard in shards]
    width = max(part.tokens.shape[1] for part in sampled)
    tokens = torch.cat([pad(part.tokens, (0, width - part.tokens.shape[1]), value=-1) for part in sampled])
    log_prob = torch.cat([part.log_probs.double().sum(1) for part in sampled])
    return Texts(tokens, (tokens >= 0).sum(1), log_prob)


def token_distribution(texts: Texts, size: int) -> Tensor:
    """(V,) how often each token comes, half a time more than it did, so that none is impossible."""
    counts = torch.bincount(texts.tokens[texts.tokens >= 0], minlength=size).double() + 0.5
    return (counts / counts.sum()).float()


def steps(sequences: int, update: int) -> int:
    """How many updates of about so many sequences a pass has."""
    return max(1, round(sequences / update))


def rows_of(sequences: int, update: int, seed: int, number: int | None) -> Tensor:
    """Which sequences an update sees: the number-th, or, without a number, all of them.

    Every pass shuffles anew and is cut into updates of nearly equal size.
    """
    if number is None:
        return torch.arange(sequences)
    parts = steps(sequences, update)
    order = np.random.default_rng([seed, _ORDER, number // parts]).permutation(sequences)
    return torch.from_numpy(np.array_split(order, parts)[number % parts])


def batches(
    texts: Texts, rows: Tensor, size: int, workers: Workers, device: torch.device, dropout: tuple[float, int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's batches of (tokens, lengths), on a device.

    Args:
        texts: where they are from.
        rows: which rows, dealt out batch by batch.
        size: rows a batch.
        workers: who takes which batch.
        device: where they go.
        dropout: (fraction of tokens that become −1, seed, number of the update). What is dropped does not depend on who
            takes the batch.
    """
    fraction, seed, update = dropout
    for number, chunk in workers.mine(list(enumerate(rows.split(size)))):
        lengths = texts.lengths[chunk]
        tokens = texts.tokens[chunk, : int(lengths.max())]
        if fraction:
            uniform = np.random.default_rng([seed, _DROPOUT, update, number]).random(tokens.shape, dtype=np.float32)
            tokens = tokens.masked_fill(torch.from_numpy(uniform < fraction), -1)
        yield tokens.to(device), lengths.to(device)
