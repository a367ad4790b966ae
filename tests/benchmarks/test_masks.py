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

from tests.benchmarks.engines import Engine, LLGuidance, Ours, OutlinesCore, XGrammar, tekken, version
from tests.benchmarks.report import losses, with_ratio
from tests.benchmarks.traces import CASES, REGEXES, Case, greedy, traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary
    from tests.benchmarks.report import Report

ROUNDS = 5
PATIENCE = 60.0  # seconds: a toolkit that took longer in all gets no further round
BUDGET = 1000  # tokens: more than any trace has
OURS, LLGUIDANCE, XGRAMMAR, OUTLINES = "ctrldecode", "llguidance", "xgrammar", "outlines-core"
FIGURES = {
    "cold": "cold: compile and first trace, ms",
    "all": "compile and all traces, ms",
    "warm step": "warm step, µs",
    "warm p99": "warm p99, µs",
    "cold p99": "cold p99, µs",
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return tekken()


@pytest.mark.bench
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.grammar)
def test_masks(case: Case, vocabulary: Vocabulary, report: Report) -> None:
    kinds = traces(case, vocabulary)
    counts = ", ".join(f"{len(t)} {kind} of {sum(map(len, t))} tokens" for kind, t in kinds.items())
    race(
        f"masks-{case.grammar}",
        make_engines(case, vocabulary),
        list(chain.from_iterable(kinds.values())),
        counts,
        report,
    )


@pytest.mark.bench
@pytest.mark.parametrize("name", REGEXES)
def test_regexes(name: str, vocabulary: Vocabulary, report: Report) -> None:
    """Regular languages, which outlines-core has too."""
    regex, texts = REGEXES[name]
    escaped = regex.replace("/", r"\/")
    index = {token: i for i, token in enumerate(vocabulary.tokens) if token}
    tokens = [greedy(text.encode(), index) for text in texts]
    engines: dict[str, Engine] = {
        OURS: Ours(vocabulary, f"start: /{escaped}/"),
        LLGUIDANCE: LLGuidance(vocabulary, f"start: /{escaped}/"),
        XGRAMMAR: XGrammar(vocabulary, regex, is_regex=True),
        OUTLINES: OutlinesCore(vocabulary, regex),
    }
    race(f"masks-{name}", engines, tokens, f"{len(texts)} texts of {sum(map(len, tokens))} tokens", report)


def race(table: str, engines: dict[str, Engine], tokens: Sequence[Sequence[int]], counts: str, report: Report) -> None:
    timings = measured(engines, tokens)
    agreements = {name: compared(engines[OURS], engine, tokens) for name, engine in engines.items()}
    rows = [
        [versioned(name), *timing.row(beside=None if name == OURS else timings[OURS]), *agreements[name].row()]
        for name, timing in timings.items()
    ]
    report.add(
        table,
        ["toolkit", *FIGURES.values(), "masks that differ", "forbidden"],
        rows,
        [f"{counts}; {', '.join(rounds(timings))}.", lost(timings)],
    )
    assert agreements[OURS].forbidden == 0


def versioned(name: str) -> str:
    """A toolkit, its version, and what more the name says."""
    toolkit, comma, more = name.partition(",")
    return f"{toolkit} {version(name)}{comma}{more}"


def rounds(timings: dict[str, Timing]) -> list[str]:
    """How many rounds each toolkit had."""
    counts = {name: len(timing.compiling) for name, timing in timings.items()}
    return [f"{ROUNDS} rounds", *(f"{name} {count}" for name, count in counts.items() if count < ROUNDS)]


def lost(timings: dict[str, Timing]) -> str:
    figures = {name: dict(zip(FIGURES, timing.figures(), strict=True)) for name, timing in timings.items()}
    peers = {name: own for name, own in figures.items() if not name.startswith(OURS)}
    return losses(figures[OURS], peers)


def make_engines(case: Case, vocabulary: Vocabulary) -> dict[str, Engine]:
    engines: dict[str, Engine] = {
        OURS: Ours.shipped(vocabulary, case.grammar),
        f"{OURS}, with a budget": Ours.shipped(vocabulary, case.grammar, BUDGET),
        LLGUIDANCE: LLGuidance(vocabulary, case.notation.llguidance()),
        XGRAMMAR: XGrammar(vocabulary, case.notation.xgrammar()),
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

    def row(self, *, beside: Timing | None) -> list[str]:
        """Cells, with how many times those of another they are."""
        if beside is None:
            return [f"{figure:.1f}" for figure in self.figures()]
        return [with_ratio(figure, ours) for figure, ours in zip(self.figures(), beside.figures(), strict=True)]


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

    def row(self) -> list[str]:
        more = f" ({self.ours_more} allow less, {self.theirs_more} more)" if self.differ else ""
        return [f"{self.differ} of {self.masks}{more}", str(self.forbidden)]


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
