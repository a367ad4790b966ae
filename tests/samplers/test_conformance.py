"""One test for all samplers: what they return, whatever they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrldecode import AutomatonPotential, TokenDFA, per_row
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.samplers import SAMPLERS, Samples
from tests.samplers.enumeration import EOS, LENGTH, TableLM, automaton

NAMES = list(SAMPLERS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check(found: Samples, prompts: int, num: int, length: int, eos: tuple[int, ...]) -> None:
    assert len(found.tokens) == len(found.log_weights) == prompts
    assert found.log_z.shape == found.ess.shape == (prompts,)
    assert found.log_z.dtype == found.ess.dtype == torch.float64
    for texts, weights, ess in zip(found.tokens, found.log_weights, found.ess.tolist(), strict=True):
        assert 0 < len(texts) <= num
        assert weights.shape == (len(texts),)
        assert weights.dtype == torch.float64
        assert not bool(weights.isnan().any() | weights.isposinf().any())
        assert 0 <= ess <= len(texts) * (1 + 1e-9)
        for text in texts:
            assert all(isinstance(token, int) for token in text)
            assert not any(token in eos for token in text[:-1])
            assert text[-1] in eos or len(text) == length
    assert found.lm_calls > 0
    assert found.stopped is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 16])
def test_batches_with_padding(name, batch):
    lm, potential = TableLM(0), automaton(0)
    prompts = torch.stack([torch.tensor([i % 4, (i + 1) % 4, i % 3]) for i in range(batch)])
    mask = torch.ones_like(prompts, dtype=torch.bool)
    mask[::2, 0] = False
    call = {"num": 5, "max_new_tokens": LENGTH, "mask": mask}
    found = SAMPLERS[name](lm, potential, prompts, rng=seeded(0), **call)
    check(found, batch, 5, LENGTH, (EOS,))
    again = SAMPLERS[name](lm, potential, prompts, rng=seeded(0), **call)
    assert again.tokens == found.tokens
    for texts in found.tokens:
        for text in texts:
            assert potential.dfa.accepts_tokens(text[:-1] if text[-1] == EOS else text)


@pytest.mark.parametrize("name", NAMES)
def test_a_constraint_of_its_own_for_every_prompt(name):
    lm, potentials = TableLM(0), [automaton(seed) for seed in range(3)]
    prompts = torch.tensor([[0], [1], [2]])
    found = SAMPLERS[name](lm, per_row(potentials), prompts, num=4, max_new_tokens=LENGTH, rng=seeded(0))
    check(found, 3, 4, LENGTH, (EOS,))
    for texts, potential in zip(found.tokens, potentials, strict=True):
        for text in texts:
            assert potential.dfa.accepts_tokens(text[:-1] if text[-1] == EOS else text)


@pytest.mark.parametrize("name", NAMES)
def test_one_token_and_one_text(name):
    everything = AutomatonPotential(TokenDFA(np.zeros((1, 5), int), 0, [0], EOS))
    found = SAMPLERS[name](TableLM(0), everything, [[0]], num=1, max_new_tokens=1, rng=seeded(0))
    check(found, 1, 1, 1, (EOS,))
    if name != "branching":  # which keeps one of five continuations, at the weight of all
        assert float(found.log_z[0]) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_several_ends_of_sequence(name):
    lm = TableLM(0)
    lm.eos_token_ids = (3, 4)
    dfa = TokenDFA(np.zeros((1, 5), int), 0, [0], [3, 4])
    found = SAMPLERS[name](lm, AutomatonPotential(dfa), [[0]], num=30, max_new_tokens=LENGTH, rng=seeded(0))
    check(found, 1, 30, LENGTH, (3, 4))
    assert {text[-1] for text in found.tokens[0]} >= {3, 4}


class Wide(LanguageModel):
    """50,257 ids, log-probabilities that depend on the last token; 64 different rows."""

    def __init__(self) -> None:
        self.size, self.eos_token_ids = 50_257, (0,)
        self.rows = torch.log_softmax(2 * torch.randn(64, self.size, generator=seeded(0)), -1)

    def init(self, prompts, mask=None, budget=None):
        return (prompts[:, -1], torch.zeros(len(prompts), dtype=torch.bool))

    def log_weights(self, state, tokens=None):
        weights = self.rows[state[0] % 64].masked_fill(state[1][:, None], 0.0)
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state, tokens):
        return (tokens, state[1] | (tokens == 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 16])
def test_a_vocabulary_of_fifty_thousand(name, batch):
    lm = Wide()
    odd = AutomatonPotential(TokenDFA(np.where(np.arange(lm.size) % 2, 0, -1)[None], 0, [0], 0))
    options = {"moves": 1} if name == "mcmc" else {}
    prompts = torch.arange(1, batch + 1)[:, None]
    found = SAMPLERS[name](lm, odd, prompts, num=2, max_new_tokens=3, rng=seeded(0), **options)
    check(found, batch, 2, 3, (0,))
    assert all(token % 2 == 1 or token == 0 for texts in found.tokens for text in texts for token in text)
    if name != "branching":
        assert float(found.log_z.exp().mean()) == pytest.approx(0.125, abs=0.1 if batch > 1 else 0.2)
