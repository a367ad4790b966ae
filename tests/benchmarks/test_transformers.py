"""Beside transformers' own processors: bad words, a prefix function, and classifier-free guidance.

All run in one process on the same scores and prefixes, one thread; a step is one call as `generate` makes it, its own forward passes
included. What they return is compared too. Constrained beam search left transformers in version 5, so there is no peer to it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    NoBadWordsLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
)

from ctrldecode import AutomatonPotential, CausalLM, ControlProcessor, Prompted, TokenDFA, cfg

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.benchmarks.report import Report

pytestmark = pytest.mark.bench

SIZE, PROMPT, STEPS, ROUNDS = 50_257, 8, 40, 7
OURS = "ctrldecode"


def ids(rows: int) -> Tensor:
    return torch.randint(300, SIZE, (rows, PROMPT + STEPS), generator=torch.Generator().manual_seed(0))


def scores(rows: int) -> Tensor:
    return 5 * torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(1))


def compared(ways: dict[str, Callable[[], Any]], rows: int) -> dict[str, float]:
    """Median milliseconds a step of each way, over interleaved rounds; the processors must return the same distribution."""
    texts, given = ids(rows), scores(rows)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        found: dict[str, list[Tensor]] = {name: [] for name in ways}
        for name, make in ways.items():
            processor = make()
            for length in range(PROMPT, PROMPT + STEPS):
                began = time.perf_counter()
                found[name].append(processor(texts[:, :length], given))
                if number:
                    times[name].append(time.perf_counter() - began)
        for mine, other in zip(*found.values(), strict=True):
            assert torch.allclose(mine.softmax(-1), other.softmax(-1), atol=1e-5)
    return {name: 1e3 * float(np.median(seconds)) for name, seconds in times.items()}


def told(report: Report, what: str, rows: int, found: dict[str, float]) -> None:
    own, other = found.values()
    report.add(
        "transformers",
        ["what", "rows", "ours, ms a step", "transformers', ms a step", "ratio"],
        [[what, str(rows), f"{own:.2f}", f"{other:.2f}", f"{own / other:.2f}"]],
        ["Where we lose: ratios above 1."],
        ["transformers"],
    )


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("words", [10, 1000])
def test_bad_words(words: int, rows: int, report: Report):
    """Token sequences of two that must not occur; the last token of each is forbidden behind the first."""
    rng = np.random.default_rng(0)
    bad = rng.integers(300, SIZE, (words, 2))
    made = forbidden(bad)
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: ControlProcessor(made),
        "NoBadWordsLogitsProcessor": lambda: NoBadWordsLogitsProcessor(bad.tolist(), eos_token_id=0),
    }
    told(report, f"{words} forbidden pairs of tokens", rows, compared(ways, rows))


def forbidden(pairs: np.ndarray) -> AutomatonPotential:
    """State 0, and one for every first token, from which the second ones are dead."""
    firsts = np.unique(pairs[:, 0])
    row = np.zeros(SIZE, int)
    row[firsts] = 1 + np.arange(len(firsts))
    table = np.tile(row, (1 + len(firsts), 1))
    table[np.searchsorted(firsts, pairs[:, 0]) + 1, pairs[:, 1]] = -1
    return AutomatonPotential(TokenDFA(table, 0, list(range(len(table))), 0))


@pytest.mark.parametrize("rows", [1, 8])
def test_a_prefix_function(rows: int, report: Report):
    """A list of 1,000 tokens allowed everywhere: ours as an automaton of one state, theirs as a function that returns the list."""
    allowed = np.random.default_rng(0).choice(np.arange(1, SIZE), 1000, replace=False)
    table = np.full((1, SIZE), -1)
    table[0, allowed] = 0
    texts = ids(rows)
    texts[:, PROMPT:] = torch.from_numpy(np.random.default_rng(1).choice(allowed, (rows, STEPS)))
    made = AutomatonPotential(TokenDFA(table, 0, [0], 0))
    listed = [0, *allowed.tolist()]
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: Fixed(ControlProcessor(made), texts),
        "PrefixConstrainedLogitsProcessor": lambda: Fixed(
            PrefixConstrainedLogitsProcessor(lambda _, __: listed, num_beams=1), texts
        ),
    }
    told(report, "a list of 1,000 allowed tokens", rows, compared(ways, rows))


class Fixed:
    """A processor that is called with other texts than it is given."""

    def __init__(self, processor: Any, texts: Tensor) -> None:
        self.processor, self.texts = processor, texts

    def __call__(self, prefix: Tensor, given: Tensor) -> Tensor:
        return self.processor(self.texts[:, : prefix.shape[1]], given)


@pytest.mark.parametrize("rows", [1, 8])
def test_classifier_free_guidance(rows: int, report: Report):
    """Greedy texts of `generate`, a whole call: theirs runs the unconditional prompt beside the model, ours both prompts anew."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=SIZE, n_embd=64, n_layer=2, n_head=2, n_positions=256, eos_token_id=0, pad_token_id=0
        )
        network = GPT2LMHeadModel(config).eval()
    prompts = ids(rows)[:, :PROMPT]
    lm = CausalLM(network, eos_token_ids=[])
    given = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": STEPS, "min_new_tokens": STEPS}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        OURS: lambda: {"logits_processor": [ControlProcessor(cfg(lm, Prompted(lm, keep=1, start=()), 1.7))]},
        "guidance_scale": lambda: {"guidance_scale": 1.7},
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        texts: list[list[list[int]]] = []
        for name, make in ways.items():
            began = time.perf_counter()
            texts.append(network.generate(prompts, **given, **make()).tolist())
            if number:
                times[name].append((time.perf_counter() - began) / STEPS)
        assert texts[0] == texts[1]
    found = {name: 1e3 * float(np.median(seconds)) for name, seconds in times.items()}
    told(report, "classifier-free guidance in `generate`", rows, found)
