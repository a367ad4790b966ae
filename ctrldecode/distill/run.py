"""The driver: from a language model and a recipe to the parameters of a hidden Markov model, in a folder that can be resumed.

It is a generator of `Event`s and shows nothing itself. Killed at any moment and started again, it comes to the same result bit
for bit: shards, orders and dropouts have seeds of their own, and checkpoints hold all that is carried on.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.distill import checkpoint, corpus, data, em, initial
from ctrldecode.distill import fit as fitting
from ctrldecode.distill.checkpoint import Checkpoint
from ctrldecode.distill.fit import Event, Result, Task
from ctrldecode.errors import DistillationError
from ctrldecode.kernels.hmm import _em_torch as kernel

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    import torch

    from ctrldecode.distill.recipe import Recipe
    from ctrldecode.distill.workers import Workers

__all__ = ["Event", "Result", "distill"]

_CLUSTERING = 4  # word of a seed


def distill(
    recipe: Recipe, source: corpus.Source, folder: Path, device: torch.device, workers: Workers
) -> Generator[Event, None, Result]:
    """Sample, start, fit.

    Args:
        recipe: what to do.
        source: the language model and its prompts; the model is where it samples.
        folder: for shards, checkpoints and metrics.jsonl; what is there already is not done again.
        device: where EM runs.
        workers: the processes that share the work.

    Returns:
        The model after the best pass (of the generator: by `yield from`, or in StopIteration).

    Raises:
        DistillationError: the data are too few, something is not finite, or the disk is full; what is in the folder stays
            whole, and the same call goes on.
    """
    kinds = [(kind.sequences, kind.length) for kind in recipe.samples]
    shards = corpus.plan(kinds, recipe.held_out, recipe.batch, recipe.clustered)
    yield from _sample(source, folder / "samples", shards, workers)
    task = _prepare(recipe, source, folder, shards, device, workers)
    start = folder / "start.safetensors"
    yield Event("cluster", 0, 1)
    if workers.rank == 0 and not start.exists():
        _start(task, source, shards, start)
    workers.wait()
    yield Event("cluster", 1, 1)
    return (yield from fitting.fit(task, start))


def _sample(source: corpus.Source, folder: Path, shards: Sequence[corpus.Shard], workers: Workers) -> Iterator[Event]:
    absent = corpus.missing(folder, shards, source.digest)
    _require_space(folder, absent, source.width)
    mine = [
        shard for shard in workers.mine(shards) if shard in absent
    ]  # each shard has one process, whoever comes late
    total = sum(shard.rows for shard in mine)
    done = 0
    yield Event("sample", done, total)
    for shard in mine:
        corpus.make(source, shard, folder)
        done += shard.rows
        yield Event("sample", done, total)
    workers.wait()


def _require_space(folder: Path, shards: Sequence[corpus.Shard], width: int) -> None:
    """8 bytes a token, and 2 for each number of a hidden state."""
    needed = sum(shard.rows * shard.length * (8 + 2 * width * shard.hidden) for shard in shards)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DistillationError(
            f"the samples need up to {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; ask for fewer "
            "--sequences or a smaller number of clustered ones (in the recipe), or choose another folder (--work)"
        )


def _prepare(
    recipe: Recipe,
    source: corpus.Source,
    folder: Path,
    shards: Sequence[corpus.Shard],
    device: torch.device,
    workers: Workers,
) -> Task:
    samples = folder / "samples"
    training = data.load(samples, [shard for shard in shards if not shard.held_out])
    held_out = data.load(samples, [shard for shard in shards if shard.held_out])
    tokens = data.token_distribution(training, source.size)
    prior = em.Prior(
        tokens.to(device),
        tuple(source.eos_token_ids),
        len(training.tokens),
        recipe.emission_prior,
        recipe.transition_prior,
    )
    digest = hashlib.sha256((source.digest + recipe.to_toml()).encode()).hexdigest()
    return Task(recipe, training, held_out, prior, folder, digest, device, workers)


def _start(task: Task, source: corpus.Source, shards: Sequence[corpus.Shard], path: Path) -> None:
    """Write the counts of latent variable distillation."""
    recipe = task.recipe
    hidden = initial.load_hidden(task.folder / "samples", shards, recipe.clustered)
    counts = kernel.zero_counts(recipe.states, source.size)
    head = source.model.get_output_embeddings().weight.detach().cpu()
    rng = np.random.default_rng([recipe.seed, _CLUSTERING])
    initial.first_counts(hidden, recipe.states, head, source.eos_token_ids, rng, counts, temperature=recipe.temperature)
    state = em.init(counts.initial, counts.transition, counts.emission, len(hidden.tokens))
    checkpoint.save(path, Checkpoint(state, (), finished=False), task.digest)
