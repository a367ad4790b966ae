"""Sampled texts on disk: which shards there are to be, how one is made, and how they are read.

A shard is named by its place and made from a seed of its own, so that shards can be made in any order, by any process, and
again after a crash. It knows nothing of hidden Markov models.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctrldecode.distill._files import read_metadata, read_tensors, write_tensors
from ctrldecode.distill.sample import Sampled, sample
from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Shard", "Source", "make", "missing", "plan", "read"]

_HELD_OUT, _TRAINING = 0, 1  # words of a shard's seed
_DIGESTED = 65536 // 4


class Shard(NamedTuple):
    """The rows [start, start + rows) of one part of the texts.

    Attributes:
        part: which of the recipe's kinds of text.
        held_out: whether it is for measuring, and not for training.
        start: its first row, counted in its part.
        rows: how many.
        length: new tokens a row.
        hidden: whether hidden states are kept.
    """

    part: int
    held_out: bool
    start: int
    rows: int
    length: int
    hidden: bool

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{'held-out' if self.held_out else 'training'}-{self.part}-{self.start:08d}.safetensors"


@dataclass(frozen=True)
class Source:
    """What all shards are sampled from.

    Attributes:
        model: a causal language model of transformers.
        prompts: for each part, its prompts as lists of ids; row i continues prompt i mod n.
        begin: the token before every text.
        eos_token_ids: ids that end a text.
        temperature: of the sampling.
        seed: of the whole corpus.
    """

    model: Any
    prompts: Sequence[Sequence[Sequence[int]]]
    begin: int
    eos_token_ids: Sequence[int]
    temperature: float
    seed: int

    @property
    def size(self) -> int:
        """V, the width of the model's head."""
        return self.model.get_output_embeddings().weight.shape[0]

    @property
    def width(self) -> int:
        """D, the width of its hidden states."""
        return self.model.get_output_embeddings().weight.shape[1]

    @cached_property
    def digest(self) -> str:
        """A name for all of the above; a shard with another one is not of this corpus.

        Of each weight it reads the first 64 KiB: enough to tell models apart, and quick where they have gigabytes.
        """
        settings = [self.prompts, self.begin, self.eos_token_ids, self.temperature, self.seed]
        result = hashlib.sha256(json.dumps(settings).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            result.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            result.update(tensor.detach().flatten()[:_DIGESTED].float().cpu().numpy().tobytes())
        return result.hexdigest()


def plan(parts: Sequence[tuple[int, int]], held_out: int, rows: int, hidden: int) -> list[Shard]:
    """All shards of a corpus.

    Args:
        parts: (sequences, length) of each part.
        held_out: further sequences that are kept for measuring, shared among the parts as their sequences are.
        rows: sequences a shard, at most.
        hidden: for about how many training sequences hidden states are kept, shared likewise; whole shards have them.

    Returns:
        Held-out shards first, then those with hidden states.
    """
    total = sum(sequences for sequences, _ in parts)
    shards: list[Shard] = []
    for part, (sequences, length) in enumerate(parts):
        few, kept = (-(-count * sequences // total) for count in (held_out, hidden))
        shards += [Shard(part, True, at, min(rows, few - at), length, False) for at in range(0, few, rows)]
        shards += [
            Shard(part, False, at, min(rows, sequences - at), length, at < kept) for at in range(0, sequences, rows)
        ]
    return sorted(shards, key=lambda shard: (not shard.held_out, not shard.hidden, shard.start, shard.part))


def missing(folder: Path, shards: Sequence[Shard], digest: str) -> list[Shard]:
    """Those that are not there yet.

    Raises:
        DistillationError: one is there that was sampled from something else.
    """
    absent: list[Shard] = []
    for shard in shards:
        path = folder / shard.name
        if not path.exists():
            absent.append(shard)
        elif not _is_of(read_metadata(path), shard, digest):
            raise DistillationError(
                f"{path} was sampled from another model, with other prompts, seed or lengths; remove the folder {folder}, "
                "or choose another one (--work)"
            )
    return absent


def _is_of(about: Mapping[str, str], shard: Shard, digest: str) -> bool:
    """Whether the metadata of a file are those of a shard of this corpus."""
    return (about.get("digest"), about.get("shard")) == (digest, json.dumps(list(shard)))


def make(source: Source, shard: Shard, folder: Path) -> None:
    """Sample a shard and write it."""
    kind = _HELD_OUT if shard.held_out else _TRAINING
    rng = np.random.default_rng([source.seed, kind, shard.part, shard.start])
    prompts = source.prompts[shard.part]
    sampled = sample(
        source.model,
        [prompts[row % len(prompts)] for row in range(shard.start, shard.start + shard.rows)],
        shard.length,
        begin=source.begin,
        eos_token_ids=source.eos_token_ids,
        rng=rng,
        temperature=source.temperature,
        keep_hidden=shard.hidden,
    )
    tensors = {name: tensor for name, tensor in sampled._asdict().items() if tensor is not None}
    write_tensors(folder / shard.name, tensors, {"digest": source.digest, "shard": json.dumps(list(shard))})


def read(folder: Path, shard: Shard) -> Sampled:
    """A shard from disk.

    Raises:
        DistillationError: it is damaged.
    """
    path = folder / shard.name
    tensors = read_tensors(path)
    wanted = {"tokens", "given", "log_probs"} | ({"hidden"} if shard.hidden else set())
    if not wanted <= set(tensors) or any(len(tensor) != shard.rows for tensor in tensors.values()):
        raise DistillationError(
            f"{path} is damaged: it is not {shard.rows} rows; remove it, and --resume makes it again"
        )
    return Sampled(tensors["tokens"], tensors["given"], tensors["log_probs"], tensors.get("hidden"))
