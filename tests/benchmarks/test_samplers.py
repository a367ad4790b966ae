"""The trie of samples: memory and time of learning, and what a step of a sampler adds to the model's forward pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ctrldecode import AutomatonPotential, TokenDFA
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.samplers import SAMPLERS, Trie, importance
from ctrldecode.samplers._trie import GrowingTrie, Seen

if TYPE_CHECKING:
    from ctrldecode.core.potential import Potential
    from tests.benchmarks.report import Report

pytestmark = pytest.mark.bench

SAMPLES, LENGTH, SIZE = 100_000, 64, 50_257


def test_a_hundred_thousand_texts_in_one_trie(report: Report):
    """Texts that part at once, the worst case: each of its prefixes is a node. The last token is a leaf, which takes none."""
    rng = np.random.default_rng(0)
    growing = GrowingTrie(Trie(SIZE, LENGTH, [0]))
    mass = -0.01 * np.ones(LENGTH)
    rest = np.full(LENGTH, np.nan)
    log_p = np.full(LENGTH - 1, -3.0, np.float32)
    log_p[0] = -np.log(SIZE)  # the first token is drawn evenly, so that half of all ids come below the root
    texts = rng.integers(1, SIZE, (SAMPLES, LENGTH - 1))
    growing.insert((0,), Seen(texts[0], log_p, mass, rest))
    began = time.perf_counter()
    for text in texts[1:]:
        growing.insert((0,), Seen(text, log_p, mass, rest))
    seconds = time.perf_counter() - began
    room = sum(array.nbytes for array in growing._arrays)
    trie = growing.frozen()
    assert trie.nbytes < 200e6
    times: list[float] = []
    for text in texts[:101]:
        began = time.perf_counter()
        assert trie.log_future((0,), text) < 0
        times.append(time.perf_counter() - began)
    found = float(np.median(times))
    report.add(
        "trie",
        ["texts", "tokens of each", "nodes", "MB", "MB while growing", "µs a token to learn", "µs to look a text up"],
        [
            [
                f"{SAMPLES:,}",
                str(LENGTH),
                f"{trie.nodes:,}",
                f"{trie.nbytes / 1e6:.0f}",
                f"{room / 1e6:.0f}",
                f"{1e6 * seconds / SAMPLES / LENGTH:.1f}",
                f"{1e6 * found:.0f}",
            ]
        ],
    )


class Fixed(LanguageModel[torch.Tensor]):
    """A language model whose forward pass costs nothing: random logits of 50,000 tokens."""

    fingerprint = "fixed"

    def __init__(self, size: int) -> None:
        self.size, self.eos_token_ids = size, (0,)
        self.logits = torch.log_softmax(torch.randn(64, size, generator=torch.Generator().manual_seed(0)), -1)
        self.logits[:, 0] = -20.0

    def init(self, prompts, mask=None, budget=None):
        return prompts[:, -1] % 64

    def log_weights(self, state, tokens=None):
        return self.logits[state]

    def step(self, state, tokens):
        return tokens % 64

    def resume(self, prompts, mask, texts):
        return torch.tensor(
            [(text[-1] if text else int(prompt[-1])) % 64 for prompt, text in zip(prompts, texts, strict=True)]
        )


def test_what_samplers_cost_beside_the_model(report: Report):
    lm = Fixed(SIZE)

    potential: Potential = AutomatonPotential(TokenDFA(np.zeros((1, SIZE), int), 0, [0], 0))
    importance(lm, potential, [[1]], num=8, max_new_tokens=2, rng=torch.Generator().manual_seed(0))
    names = ["importance", "rejection", "smc", "asap", "cars"]
    for rows in (1, 16):
        found: list[str] = []
        for name in names:
            prompts = torch.arange(rows)[:, None] + 1
            began = time.perf_counter()
            drawn = SAMPLERS[name](
                lm, potential, prompts, num=4, max_new_tokens=32, rng=torch.Generator().manual_seed(0)
            )
            seconds = time.perf_counter() - began
            tokens = sum(len(text) for own in drawn.tokens for text in own)
            found.append(f"{1e3 * seconds / tokens:.2f}")
        report.add("samplers", ["prompts", *(f"`{name}`" for name in names)], [[str(rows), *found]])
