"""Time of `ControlProcessor` around a grammar's masks: batch 1, 131,072 tokens, a JSON document, every mask seen before.

The scores are random and the same in every step. Beside it stands what no processor can do without, log_softmax of the row,
and a processor whose potential does nothing. A step is one call, as `generate` makes it. One thread: with more, on cores that
are not idle, torch waits for the slowest of them, and the figures say nothing of us.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ctrldecode import ControlProcessor, Grammar, Potential
from tests.benchmarks.engines import tekken
from tests.benchmarks.traces import DOCUMENTS, greedy
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tests.benchmarks.report import Report

ROUNDS = 7
PROMPT = 16


class Nothing(Potential[torch.Tensor]):
    """ψ = 1."""

    def __init__(self, size: int) -> None:
        self.size = size

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> Tensor:
        return torch.zeros(len(prompts))

    def log_weights(self, state: Tensor, tokens: Tensor | None = None) -> Tensor:
        return torch.zeros(len(state), self.size) if tokens is None else torch.zeros(tokens.shape)

    def step(self, state: Tensor, tokens: Tensor) -> Tensor:
        return state

    def add_log_weights(self, state: Tensor, scores: Tensor) -> None:
        pass


@pytest.mark.bench
def test_processor(report: Report) -> None:
    vocabulary = tekken()
    trace = greedy(DOCUMENTS[0].encode(), {token: i for i, token in enumerate(vocabulary.tokens) if token})
    grammar = Grammar.from_file(golden.FOLDER / "json.lark").compile(vocabulary)
    ids = torch.tensor([[*range(10, 10 + PROMPT), *trace]])
    scores = 5 * torch.randn(1, vocabulary.size, generator=torch.Generator().manual_seed(1))
    calls: dict[str, Callable[[Tensor], object]] = {
        "ControlProcessor(grammar)": Begun(grammar, scores),
        "ControlProcessor(a potential of 1)": Begun(Nothing(vocabulary.size), scores),
        "log_softmax alone": lambda _: torch.log_softmax(scores, -1),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = measured(calls, [ids[:, :length] for length in range(PROMPT, ids.shape[1])])
    finally:
        torch.set_num_threads(before)
    rows = []
    for name, rounds in times.items():
        steps = np.median(rounds, 0)
        figures = [np.median(rounds.min(0)), np.median(steps), np.percentile(steps, 99)]
        rows.append([name, *(f"{1e3 * figure:.3f}" for figure in figures)])
    heads = ["per step", f"least of {ROUNDS} rounds, ms", "median, ms", "99th percentile, ms"]
    report.add("processor", heads, rows, ["Where we lose: to log_softmax alone, which no processor can do without."])


class Begun:
    """A processor that forgets at every prompt, so that the prompt is new in every round."""

    def __init__(self, potential: Potential, scores: Tensor) -> None:
        self.processor, self.scores = ControlProcessor(potential), scores

    def __call__(self, ids: Tensor) -> Tensor:
        if ids.shape[1] == PROMPT:
            self.processor.begin()
        return self.processor(ids, self.scores)


def measured(rows: dict[str, Callable[[Tensor], object]], prefixes: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Seconds of every step of interleaved rounds (R, n); the first round, which fills the masks, is not among them."""
    times: dict[str, list[list[float]]] = {name: [] for name in rows}
    for _ in range(1 + ROUNDS):
        for name, call in rows.items():
            times[name].append([seconds(call, ids) for ids in prefixes])
    return {name: np.array(rounds[1:]) for name, rounds in times.items()}


def seconds(call: Callable[[Tensor], object], ids: Tensor) -> float:
    start = time.perf_counter()
    call(ids)
    return time.perf_counter() - start
