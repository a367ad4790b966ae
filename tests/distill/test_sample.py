"""Sampled texts against the model itself: lengths, prompts, log-probabilities, hidden states, and their distribution."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from ctrldecode.distill.sample import sample
from ctrldecode.errors import DistillationError
from tests.toys import EOS, SIZE, tiny_llama

BEGIN = 1
PROMPTS = [(), (5,), (6, 7, 8)] * 20
LENGTH = 9


def draw(model=None, prompts=PROMPTS, length=LENGTH, seed=0, **options):
    model = tiny_llama() if model is None else model
    rng = np.random.default_rng(seed)
    return sample(model, prompts, length, begin=BEGIN, eos_token_ids=[EOS], rng=rng, **options)


@pytest.fixture(scope="module")
def sampled():
    return draw(keep_hidden=True)


def test_texts_continue_their_prompts_until_they_end(sampled):
    ended = 0
    for row, prompt in zip(sampled.tokens.tolist(), PROMPTS, strict=True):
        text = row[: row.index(-1)] if -1 in row else row
        assert set(row[len(text) :]) <= {-1}
        assert tuple(text[: len(prompt)]) == prompt
        assert EOS not in text[:-1]
        assert text[-1] == EOS or len(text) == len(prompt) + LENGTH
        ended += text[-1] == EOS
    assert 0 < ended < len(PROMPTS)
    assert sampled.given.tolist() == [len(prompt) for prompt in PROMPTS]


def test_figures_are_those_of_one_pass_over_the_text(sampled):
    for tokens, log_probs, hidden in zip(sampled.tokens, sampled.log_probs, sampled.hidden, strict=True):
        text = tokens[tokens >= 0].long()
        with torch.inference_mode():
            output = tiny_llama()(torch.cat([torch.tensor([BEGIN]), text[:-1]])[None], output_hidden_states=True)
        wanted = output.logits[0].log_softmax(-1).gather(1, text[:, None])[:, 0]
        torch.testing.assert_close(log_probs[: len(text)], wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(hidden[: len(text)].float(), output.hidden_states[-1][0], rtol=2e-3, atol=2e-3)
        assert not log_probs[len(text) :].any()
        assert not hidden[len(text) :].any()


def test_first_tokens_have_the_models_distribution():
    """χ² of 4,000 draws within five standard deviations of its mean."""
    tokens = draw(prompts=[()] * 4000, length=1).tokens[:, 0]
    with torch.inference_mode():
        expected = tiny_llama()(torch.tensor([[BEGIN]])).logits[0, -1].softmax(-1) * 4000
    seen = torch.bincount(tokens, minlength=SIZE)
    common = expected >= 5
    chi = ((seen - expected)[common].square() / expected[common]).sum() + (
        (seen[~common].sum() - expected[~common].sum()).square() / expected[~common].sum().clamp(min=1)
    )
    freedom = int(common.sum())
    assert float(chi) < freedom + 5 * math.sqrt(2 * freedom)


def test_same_seed_same_texts():
    assert torch.equal(draw(seed=3).tokens, draw(seed=3).tokens)
    assert not torch.equal(draw(seed=3).tokens, draw(seed=4).tokens)


def test_a_low_temperature_takes_the_likeliest():
    cold = draw(prompts=[(5,)], temperature=1e-3)
    tokens = [BEGIN, 5]
    while tokens[-1] != EOS and len(tokens) < LENGTH + 2:
        with torch.inference_mode():
            tokens.append(int(tiny_llama()(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert cold.tokens[0][cold.tokens[0] >= 0].tolist() == tokens[1:]
    assert cold.hidden is None


def test_a_model_of_nan_is_refused():
    broken = copy.deepcopy(tiny_llama())
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(DistillationError, match="NaN"):
        draw(broken)


def test_hidden_states_out_of_float16_are_refused():
    large = copy.deepcopy(tiny_llama())
    with torch.no_grad():
        large.model.norm.weight.fill_(1e6)
        large.lm_head.weight.mul_(1e-6)
    with pytest.raises(DistillationError, match="float16"):
        draw(large, keep_hidden=True)
