"""Time of the E-step: against the matrix products that its arithmetic needs, and against hmmlearn and pomegranate; and its memory.

Medians of interleaved rounds, of processor time on one thread, which says the same on a machine that has other work too; random
parameters and tokens.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ctrldecode.hmm import HMM
from ctrldecode.kernels.hmm import _em_torch as kernel
from tests.benchmarks.report import losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.report import Report

ROUNDS = 5

pytestmark = pytest.mark.bench


def parameters(states: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    initial = torch.rand(states, generator=generator)
    transition = torch.rand(states, states, generator=generator)
    emission = torch.rand(size, states, generator=generator)
    return initial / initial.sum(), transition / transition.sum(1, keepdim=True), emission / emission.sum(0)


def texts(size: int, rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, size, (rows, steps), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return tokens, torch.full((rows,), steps)


def medians(*calls: Callable[[], Any]) -> list[float]:
    """Processor seconds of each call, after one of each that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(ROUNDS + 1):
        for call, times in zip(calls, seconds, strict=True):
            began = time.process_time()
            call()
            if number:
                times.append(time.process_time() - began)
    return [statistics.median(times) for times in seconds]


@pytest.mark.parametrize(("states", "size"), [(256, 3072), (1024, 3072), (1024, 50257)])
def test_e_step_against_its_products(states, size, report: Report):
    """6 H² operations a token: one product forward, one backward, one for the counts of moves."""
    rows, steps = 256, 64
    model, batch = parameters(states, size), texts(size, rows, steps)
    counts = kernel.zero_counts(states, size)
    wide = torch.rand(rows * steps, states)

    def products() -> None:
        _ = wide @ model[1]
        _ = wide @ model[1].T
        _ = wide.T @ wide

    e_step, floor = medians(lambda: kernel.expected_counts(*model, *batch, counts), products)
    rate = rows * steps / e_step
    columns = ["H", "V", "E-step, ms", "tokens a second", "its products, ms", "ratio"]
    figures = [str(states), str(size), f"{e_step * 1e3:.0f}", f"{rate:,.0f}", f"{floor * 1e3:.0f}"]
    report.add(
        "e-step", columns, [[*figures, f"{e_step / floor:.2f}"]], ["Where we lose: above 1, to the bare products."]
    )


def test_against_peers(report: Report):
    """H=64, V=1000, 500 texts of 64 tokens: one E-step of each, and for hmmlearn, which cannot part them, an M-step too; and
    log-likelihoods, which must agree.
    """
    hmmlearn: Any = pytest.importorskip("hmmlearn.hmm")
    states, size, rows, steps = 64, 1000, 500, 64
    initial, transition, emission = parameters(states, size)
    tokens, lengths = texts(size, rows, steps)
    counts = kernel.zero_counts(states, size)
    flat = tokens.numpy().reshape(-1, 1)

    def another() -> Any:
        peer = hmmlearn.CategoricalHMM(
            n_components=states, n_features=size, n_iter=1, tol=-np.inf, init_params="", implementation="scaling"
        )
        peer.startprob_, peer.transmat_, peer.emissionprob_ = (
            array.double().numpy() / array.double().numpy().sum(-1, keepdims=True)
            for array in (initial, transition, emission.T)
        )
        return peer

    own = ended(initial, transition, emission)
    lists = tokens.tolist()
    peer = pomegranate(initial, transition, emission)
    torch.set_num_threads(1)  # importing pomegranate sets it to the number of cores
    long = tokens.long()[:, :, None]
    names = ["ctrldecode", "hmmlearn", "pomegranate"]
    e_step = medians(
        lambda: kernel.expected_counts(initial, transition, emission, tokens, lengths, counts),
        lambda: another().fit(flat, [steps] * rows),
        lambda: peer.forward_backward(X=long),
    )
    likelihood = medians(
        lambda: own.log_prob(lists),
        lambda: another().score(flat, [steps] * rows),
        lambda: peer.log_probability(long),
    )
    assert own.log_prob(lists).sum() == pytest.approx(another().score(flat, [steps] * rows), rel=1e-5)
    assert own.log_prob(lists).sum() == pytest.approx(float(peer.log_probability(long).sum()), rel=1e-4)
    table = [
        [
            f"{name} {metadata.version(name)}",
            f"{1e3 * e:.0f}",
            f"{e / e_step[0]:.1f}",
            f"{1e3 * p:.0f}",
            f"{p / likelihood[0]:.1f}",
        ]
        for name, e, p in zip(names, e_step, likelihood, strict=True)
    ]
    figures = {name: {"E-step": e, "likelihood": p} for name, e, p in zip(names, e_step, likelihood, strict=True)}
    report.add(
        "hmm-peers",
        ["toolkit", "E-step, ms", "× ours", "log-likelihood, ms", "× ours"],
        table,
        [losses(figures.pop("ctrldecode"), figures)],
    )


def ended(initial: torch.Tensor, transition: torch.Tensor, emission: torch.Tensor) -> HMM:
    """Our HMM has an end of sequence: one more state, which is never entered, with one more token."""
    states, size = len(initial), len(emission)
    moves, emits = np.zeros((states + 1, states + 1)), np.zeros((states + 1, size + 1))
    moves[:states, :states], emits[:states, :size] = transition, emission.T
    moves[states, states] = emits[states, size] = 1
    return HMM(np.append(initial.numpy(), 0), moves, emits, eos_token_ids=[size])


def pomegranate(initial: torch.Tensor, transition: torch.Tensor, emission: torch.Tensor) -> Any:
    distributions: Any = pytest.importorskip("pomegranate.distributions")
    hmm: Any = pytest.importorskip("pomegranate.hmm")
    emits = [distributions.Categorical(column[None].contiguous()) for column in emission.T]
    return hmm.DenseHMM(emits, edges=transition.numpy(), starts=initial.numpy(), ends=np.ones(len(initial), np.float32))


def test_memory_at_a_large_vocabulary(report: Report):
    """V=50257, H=1024, in a process of its own, since a process only knows the most that it ever had."""
    command = [sys.executable, "-c", "from tests.benchmarks.test_distill import grown; grown()"]
    grew = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    columns = ["V", "H", "batches", "MB more than parameters and counts", "MB of the emission"]
    report.add("e-step-memory", columns, [["50257", "1024", "8 of 128 × 64 tokens", grew, "196"]])


def grown() -> None:
    """Print by how many MB memory grows beyond the parameters and the counts, in eight batches."""
    model, (tokens, lengths) = parameters(1024, 50257), texts(50257, 1024, 64)
    counts = kernel.zero_counts(1024, 50257)
    for tensor in counts:
        tensor.fill_(0)  # so that its pages are there
    before = peak()
    for part, of in zip(tokens.split(128), lengths.split(128), strict=True):
        kernel.expected_counts(*model, part, of, counts)
    print(f"{peak() - before:.0f}")


def peak() -> float:
    """MB that this process ever had. `ru_maxrss` would not do: what a parent had is in it, so that behind a large one nothing grows."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
