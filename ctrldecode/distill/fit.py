"""The loop of EM over texts in memory: which step comes next, what is measured, and what is kept on disk.

All passes but the last are many small steps. The last is one step of plain EM over all texts: small steps end as noisy as a
small batch, and this averages it away. It knows nothing of how the texts or the start came to be.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ctrldecode.distill import checkpoint, data, em
from ctrldecode.distill._files import read_tensors, write_tensors
from ctrldecode.distill.checkpoint import Checkpoint, Log
from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ctrldecode.distill.recipe import Recipe
    from ctrldecode.distill.workers import Workers

__all__ = ["Event", "Result", "Task", "fit"]

# A checkpoint costs a write of the statistics, and a crash what was computed since the last one.
_CHECKPOINT_SECONDS = 60.0
# Held-out texts that are looked at after every step; all of them, at the ends of passes, would cost more than a small step.
_FEW = 100


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


class Task(NamedTuple):
    """What does not change while EM runs.

    Attributes:
        recipe: how to fit.
        training: texts to fit.
        held_out: texts to measure.
        prior: pseudocounts.
        folder: for checkpoints and metrics.jsonl.
        digest: names recipe and texts.
        device: where EM runs.
        workers: the processes that share the work.
    """

    recipe: Recipe
    training: data.Texts
    held_out: data.Texts
    prior: em.Prior
    folder: Path
    digest: str
    device: torch.device
    workers: Workers

    @property
    def best(self) -> Path:
        """File of the parameters that were best so far."""
        return self.folder / "best.safetensors"

    @property
    def steps(self) -> int:
        """Updates of a pass, but for the last one."""
        return data.steps(len(self.training.tokens), self.recipe.update)

    @property
    def few(self) -> data.Texts:
        """Some of the held-out texts, evenly from all kinds."""
        return self.held_out.every(max(1, len(self.held_out.tokens) // _FEW))


def fit(task: Task, start: Path) -> Generator[Event, None, Result]:
    """Run EM from where it stands, or from the counts in a file."""
    now, model = _resumed(task, start)
    log = Log(task.folder / "metrics.jsonl", now.state.updates) if task.workers.rank == 0 else None
    total = task.steps * (task.recipe.passes - 1) + 1
    saved = time.monotonic()
    while not now.finished:
        whole = _is_last(task, now)
        now, model, record = _step(task, now, model, whole=whole)
        if log is not None:
            log.add(record)
            if record["pass_ends"] or time.monotonic() - saved > _CHECKPOINT_SECONDS:
                _save(task, now, model if record["pass_ends"] else None)
                saved = time.monotonic()
        yield Event("fit", total if whole else now.state.updates, total, record)
    task.workers.wait()
    checkpoint.check(task.best, task.digest)
    tensors = read_tensors(task.best)
    best = em.Parameters(tensors["initial"], tensors["transition"], tensors["emission"])
    return Result(best, [] if log is None else log.records, min(now.passes), task.held_out.nats)


def _resumed(task: Task, start: Path) -> tuple[Checkpoint, em.Parameters]:
    """The checkpoint, or the start, measured; and its parameters.

    A checkpoint without the best parameters up to it leads nowhere, as they may be the result: then all begins anew.
    """
    path = task.folder / "checkpoint.safetensors"
    now = checkpoint.load(path, task.digest) if task.best.exists() else None
    if now is not None:
        checkpoint.check(task.best, task.digest)
    now = now or checkpoint.load(start, task.digest)
    if now is None:
        raise DistillationError(f"{start} is gone; go on with --resume, which makes it again")
    now = now._replace(state=em.move(now.state, task.device))
    model = em.parameters(now.state, task.prior)
    if not now.passes:
        now = now._replace(passes=(_nats(task, task.held_out, model),))
        if task.workers.rank == 0:
            _save(task, now, model)
    return now, model


def _is_last(task: Task, now: Checkpoint) -> bool:
    """Whether the next step is the one over all texts: enough passes were made, or the last one gained little.

    The first pass always counts, since it forgets the start.
    """
    if now.state.updates % task.steps:
        return False
    gained = now.passes[-2] - now.passes[-1] if len(now.passes) > 2 else np.inf
    return len(now.passes) >= task.recipe.passes or bool(gained < task.recipe.tolerance)


def _step(
    task: Task, now: Checkpoint, model: em.Parameters, *, whole: bool
) -> tuple[Checkpoint, em.Parameters, dict[str, float]]:
    """One step of EM, measured on held-out sequences: on all of them where a pass ends."""
    recipe, began = task.recipe, time.perf_counter()
    rows = data.rows_of(len(task.training.tokens), recipe.update, recipe.seed, None if whole else now.state.updates)
    dropout = (recipe.token_dropout, recipe.seed, now.state.updates)
    batches = data.batches(task.training, rows, recipe.batch, task.workers, task.device, dropout)
    counts = em.expect(model, batches, task.workers)
    state, info = em.step(now.state, counts, len(rows), 0.0 if whole else recipe.forgetting)
    model = em.parameters(state, task.prior)
    ends = whole or state.updates % task.steps == 0
    texts = task.held_out if ends else task.few
    tokens = int(task.training.lengths[rows].sum())
    record = {
        "update": state.updates,
        "training": -info.log_likelihood / tokens,
        "held_out": _nats(task, texts, model),
        "language_model": texts.nats,
        "pass_ends": int(ends),
        "rate": info.rate,
        "tokens": tokens,
        "seconds": time.perf_counter() - began,
    }
    if not np.isfinite([record["training"], record["held_out"]]).all():
        raise DistillationError(
            f"update {state.updates} of EM gave {record['training']} nats a token in training and {record['held_out']} held "
            "out; wanted finite numbers. A larger emission_prior in the recipe keeps every token possible in every state"
        )
    passes = (*now.passes, record["held_out"]) if ends else now.passes
    return Checkpoint(state, passes, finished=whole), model, record


def _save(task: Task, now: Checkpoint, model: em.Parameters | None) -> None:
    """Write a checkpoint; before it the parameters, if they are of the end of a pass and the best so far."""
    if model is not None and now.passes[-1] <= min(now.passes):
        write_tensors(task.best, model._asdict(), {"digest": task.digest})
    checkpoint.save(task.folder / "checkpoint.safetensors", now, task.digest)


def _nats(task: Task, texts: data.Texts, model: em.Parameters) -> float:
    """Nats a token of the model on some texts."""
    every = torch.arange(len(texts.tokens))
    batches = data.batches(texts, every, task.recipe.batch, task.workers, task.device, (0.0, 0, 0))
    return -em.log_likelihood(model, batches, task.workers) / int(texts.lengths.sum())
