"""The driver: from a language model and a recipe to the parameters of a hidden Markov model, in a folder that can be resumed.

It is a generator of `Event`s and shows nothing itself. Killed at any moment and started again, it comes to the same result bit
for bit: shards, orders and dropouts have seeds of their own, and checkpoints hold all that is carried on.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ctrldecode.distill import checkpoint, corpus, data, em, initial
from ctrldecode.distill._files import read_tensors, write_tensors
from ctrldecode.distill.checkpoint import Checkpoint, Log
from ctrldecode.errors import DistillationError
from ctrldecode.kernels.hmm import _em_torch as kernel

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from ctrldecode.distill.recipe import Recipe
    from ctrldecode.distill.workers import Workers

__all__ = ["Event", "Result", "distill"]

_CLUSTERING = 4  # word of a seed
# A checkpoint costs a write of the statistics, and a crash what was computed since the last one.
_CHECKPOINT_SECONDS = 60.0


class Event(NamedTuple):
    """Something that was done.

    Attributes:
        stage: "sample", "cluster" or "fit".
        done: how much of the stage is done, by this process.
        total: how much there is.
        record: figures of an update, as in metrics.jsonl.
    """

    stage: str
    done: int
    total: int
    record: dict[str, float] | None = None


class Result(NamedTuple):
    """What a distillation made.

    Attributes:
        model: the parameters, on the CPU.
        records: all figures of metrics.jsonl.
        held_out: nats a token of the model on the held-out sequences.
        language_model: nats a token of the language model on the same.
    """

    model: em.Parameters
    records: list[dict[str, float]]
    held_out: float
    language_model: float


class _Fit(NamedTuple):
    """What does not change while EM runs."""

    recipe: Recipe
    training: data.Texts
    held_out: data.Texts
    prior: em.Prior
    folder: Path
    digest: str
    device: torch.device
    workers: Workers


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
    fit = _prepare(recipe, source, folder, shards, device, workers)
    start = folder / "start.safetensors"
    yield Event("cluster", 0, 1)
    if workers.rank == 0 and not start.exists():
        _start(fit, source, shards, start)
    workers.wait()
    yield Event("cluster", 1, 1)
    return (yield from _fit(fit, start))


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
            "--sequences or a smaller --clustered, or choose another folder (--work)"
        )


def _prepare(
    recipe: Recipe,
    source: corpus.Source,
    folder: Path,
    shards: Sequence[corpus.Shard],
    device: torch.device,
    workers: Workers,
) -> _Fit:
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
    return _Fit(recipe, training, held_out, prior, folder, digest, device, workers)


def _start(fit: _Fit, source: corpus.Source, shards: Sequence[corpus.Shard], path: Path) -> None:
    """Write the counts of latent variable distillation."""
    recipe = fit.recipe
    hidden = initial.load_hidden(fit.folder / "samples", shards, recipe.clustered)
    counts = kernel.zero_counts(recipe.states, source.size)
    head = source.model.get_output_embeddings().weight.detach().cpu()
    rng = np.random.default_rng([recipe.seed, _CLUSTERING])
    initial.first_counts(hidden, recipe.states, head, source.eos_token_ids, rng, counts, temperature=recipe.temperature)
    state = em.init(counts.initial, counts.transition, counts.emission, len(hidden.tokens))
    checkpoint.save(path, Checkpoint(state, ()), fit.digest)


def _fit(fit: _Fit, start: Path) -> Generator[Event, None, Result]:
    path = fit.folder / "checkpoint.safetensors"
    now = checkpoint.load(path, fit.digest) or checkpoint.load(start, fit.digest)
    if now is None:
        raise DistillationError(f"{start} is gone; go on with --resume, which makes it again")
    state = em.move(now.state, fit.device)
    passes = now.passes or (_held_out(fit, em.parameters(state, fit.prior)),)
    if fit.workers.rank == 0 and not now.passes:
        _keep(fit, state)
    log = Log(fit.folder / "metrics.jsonl", state.updates) if fit.workers.rank == 0 else None
    _, updates = data.update_rows(len(fit.training.tokens), fit.recipe.update, fit.recipe.seed, 0)
    total = updates * fit.recipe.passes
    saved = time.monotonic()
    while state.updates < total and not _settled(passes, fit.recipe.tolerance):
        state, record = _update(fit, state)
        if log is not None:
            log.add(record)
        yield Event("fit", state.updates, total, record)
        ends = state.updates % updates == 0
        if ends:
            passes = (*passes, record["held_out"])
        if log is not None and (ends or time.monotonic() - saved > _CHECKPOINT_SECONDS):
            if ends and record["held_out"] <= min(passes):
                _keep(fit, state)
            checkpoint.save(path, Checkpoint(state, passes), fit.digest)
            saved = time.monotonic()
    fit.workers.wait()
    return _result(fit, log, min(passes))


def _keep(fit: _Fit, state: em.EMState) -> None:
    """Write the parameters: they are the best so far."""
    write_tensors(fit.folder / "best.safetensors", em.parameters(state, fit.prior)._asdict(), {"digest": fit.digest})


def _update(fit: _Fit, state: em.EMState) -> tuple[em.EMState, dict[str, float]]:
    """One step of EM, measured on the held-out sequences."""
    recipe, began = fit.recipe, time.perf_counter()
    rows, _ = data.update_rows(len(fit.training.tokens), recipe.update, recipe.seed, state.updates)
    dropout = (recipe.token_dropout, recipe.seed, state.updates)
    model = em.parameters(state, fit.prior)
    batches = data.batches(fit.training, rows, recipe.batch, fit.workers, fit.device, dropout)
    counts = em.expect(model, batches, fit.workers)
    state, info = em.step(state, counts, len(rows), recipe.forgetting)
    held_out = _held_out(fit, em.parameters(state, fit.prior))
    tokens = int(fit.training.lengths[rows].sum())
    record = {
        "update": state.updates,
        "training": -info.log_likelihood / tokens,
        "held_out": held_out,
        "language_model": fit.held_out.nats,
        "rate": info.rate,
        "tokens": tokens,
        "seconds": time.perf_counter() - began,
    }
    if not np.isfinite([record["training"], held_out]).all():
        raise DistillationError(
            f"update {state.updates} of EM gave {record['training']} nats a token in training and {held_out} held out; wanted "
            "finite numbers. A larger --emission-prior keeps every token possible in every state"
        )
    return state, record


def _held_out(fit: _Fit, model: em.Parameters) -> float:
    texts = fit.held_out
    every = torch.arange(len(texts.tokens))
    batches = data.batches(texts, every, fit.recipe.batch, fit.workers, fit.device, (0.0, 0, 0))
    return -em.log_likelihood(model, batches, fit.workers) / int(texts.lengths.sum())


def _settled(passes: Sequence[float], tolerance: float) -> bool:
    """Whether the last pass gained less than the tolerance; the first always counts, since it forgets the start."""
    return len(passes) > 2 and passes[-2] - passes[-1] < tolerance


def _result(fit: _Fit, log: Log | None, held_out: float) -> Result:
    tensors = read_tensors(fit.folder / "best.safetensors")
    model = em.Parameters(tensors["initial"], tensors["transition"], tensors["emission"])
    return Result(model, [] if log is None else log.records, held_out, fit.held_out.nats)
