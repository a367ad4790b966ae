"""Time of grammar masks beside llguidance and xgrammar, in one process on the same tokens, and how many masks differ.

A step is: fill the packed mask, then consume the token, Python calls included. "Cold" is compiling the grammar anew and
running the traces, "warm" running them again with everything kept; a text in which a toolkit forbids a token ends there for
it, and is counted. Every time is the median over interleaved rounds, taken step by step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from tests.benchmarks.engines import Engine, LLGuidance, Ours, XGrammar, tekken, version
from tests.benchmarks.traces import CASES, Case, traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary

ROUNDS = 5
PATIENCE = 60.0  # seconds: a toolkit that took longer in all gets no further round
OURS, LLGUIDANCE, XGRAMMAR = "ctrldecode", "llguidance", "xgrammar"
HEAD = """
| toolkit | cold: compile and first trace, ms | compile and all traces, ms | warm step, µs | warm p99, µs | cold p99, µs | \
masks that differ | forbidden |
|---|---|---|---|---|---|---|---|"""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return tekken()


@pytest.mark.bench
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.grammar)
def test_masks(case: Case, vocabulary: Vocabulary) -> None:
    kinds = traces(case, vocabulary)
    tokens = list(chain.from_iterable(kinds.values()))
    engines = make_engines(case, vocabulary)
    timings = measured(engines, tokens)
    agreements = {name: compared(engines[OURS], engine, tokens) for name, engine in engines.items()}
    counts = ", ".join(f"{len(t)} {kind} of {sum(map(len, t))} tokens" for kind, t in kinds.items())
    print(f"\n\n### {case.name}: {counts}; median of {ROUNDS} rounds\n{HEAD}")
    for name, timing in timings.items():
        print(f"| {name} {version(name)} | {timing.row()} | {agreements[name].row()} |")
    print(f"\n{ratios(timings)}")
    assert agreements[OURS].forbidden == 0


def make_engines(case: Case, vocabulary: Vocabulary) -> dict[str, Engine]:
    engines: dict[str, Engine] = {
        OURS: Ours(vocabulary, case.grammar),
        LLGUIDANCE: LLGuidance(vocabulary, case.notation),
        XGRAMMAR: XGrammar(vocabulary, case.notation),
    }
    if case.grammar == "json":
        engines[f"{XGRAMMAR}, its own JSON grammar"] = XGrammar(vocabulary, None)
    return engines


@dataclass
class Timing:
    """Seconds of every round: of compiling (R,), and of every step of all traces (R, n), cold and warm."""

    first: int  # steps of the first trace
    compiling: list[float] = field(default_factory=list[float])
    cold: list[list[float]] = field(default_factory=list[list[float]])
    warm: list[list[float]] = field(default_factory=list[list[float]])

    def figures(self) -> list[float]:
        """Milliseconds of compiling and the first trace, and all; µs of a warm step, the 99th percentiles warm and cold."""
        compiling = np.array(self.compiling)
        cold, warm = np.array(self.cold), np.array(self.warm)
        middle, steady = np.median(cold, 0), np.median(warm, 0)
        return [
            float(np.median(compiling + cold[:, : self.first].sum(1))) * 1e3,
            float(np.median(compiling + cold.sum(1))) * 1e3,
            float(steady.mean()) * 1e6,
            float(np.percentile(steady, 99)) * 1e6,
            float(np.percentile(middle, 99)) * 1e6,
        ]

    def row(self) -> str:
        return " | ".join(f"{figure:.1f}" for figure in self.figures())


def measured(engines: dict[str, Engine], tokens: Sequence[Sequence[int]]) -> dict[str, Timing]:
    timings = {name: Timing(len(tokens[0])) for name in engines}
    took = dict.fromkeys(engines, 0.0)
    for engine in engines.values():  # kernels are loaded, memory is touched
        engine.compile()
        run(engine, tokens[0])
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            start = time.perf_counter()
            if took[name] < PATIENCE:
                one_round(engine, tokens, timings[name])
            took[name] += time.perf_counter() - start
    return timings


def one_round(engine: Engine, tokens: Sequence[Sequence[int]], timing: Timing) -> None:
    start = time.perf_counter()
    engine.compile()
    timing.compiling.append(time.perf_counter() - start)
    timing.cold.append([t for trace in tokens for t in run(engine, trace)])
    timing.warm.append([t for trace in tokens for t in run(engine, trace)])


def run(engine: Engine, trace: Sequence[int]) -> list[float]:
    """Seconds of every step, up to the first token that the engine forbids."""
    engine.restart()
    times: list[float] = []
    for token in trace:
        start = time.perf_counter()
        mask = engine.fill()
        filled = time.perf_counter()
        if not allows(mask, token):
            break
        again = time.perf_counter()
        engine.consume(token)
        times.append(time.perf_counter() - again + filled - start)
    return times


def allows(mask: NDArray[np.int32], token: int) -> bool:
    return bool(int(mask[token >> 5]) >> (token & 31) & 1)


class Agreement(NamedTuple):
    """Of the masks of one toolkit beside ours: how many there are, in how many either allows more, and tokens forbidden."""

    masks: int
    ours_more: int
    theirs_more: int
    differ: int
    forbidden: int

    def row(self) -> str:
        more = f" ({self.ours_more} allow less, {self.theirs_more} more)" if self.differ else ""
        return f"{self.differ} of {self.masks}{more} | {self.forbidden}"


def compared(ours: Engine, peer: Engine, tokens: Sequence[Sequence[int]]) -> Agreement:
    total = np.zeros(5, int)
    for trace in tokens:
        ours.restart()
        peer.restart()
        for token in trace:
            mask, other = ours.fill().copy(), peer.fill()
            less, more = (mask & ~other).any(), (other & ~mask).any()
            allowed = allows(other, token)
            total += [1, less, more, less or more, not allowed]
            if not allowed:
                break
            ours.consume(token)
            if peer is not ours:
                peer.consume(token)
    return Agreement(*total.tolist())


def ratios(timings: dict[str, Timing]) -> str:
    """What the figures are to be judged by; below 1 is for us."""
    figures = {name: timing.figures() for name, timing in timings.items()}
    cold, _, warm, warm_worst, cold_worst = figures[OURS]
    peers = {name: own for name, own in figures.items() if name != OURS}
    best = min(peers, key=lambda name: peers[name][2])
    xgrammar = min(own[0] for name, own in peers.items() if name.startswith(XGRAMMAR))
    return (
        f"Ours beside the others, below 1 is faster: warm step {warm / peers[best][2]:.2f} of {best}'s; cold "
        f"{cold / xgrammar:.2f} of xgrammar's and {cold / peers[LLGUIDANCE][0]:.2f} of llguidance's; 99th percentile "
        f"{warm_worst / peers[LLGUIDANCE][3]:.2f} of llguidance's warm, {cold_worst / peers[LLGUIDANCE][4]:.2f} cold"
    )
