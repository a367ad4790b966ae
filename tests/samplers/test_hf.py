"""Samplers as `custom_generate`: what `generate` returns, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrldecode import AutomatonPotential, CausalLM, ControlProcessor, TokenDFA, samplers
from ctrldecode.errors import InputError
from tests.toys import EOS, tiny_llama

PROMPTS = torch.tensor([[0, 5, 6], [1, 7, 8]])
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])


def automaton() -> AutomatonPotential:
    return AutomatonPotential(TokenDFA(np.random.default_rng(0).integers(-1, 4, (4, 50)), 0, [1, 2], EOS))


def call(name: str, **options):
    return tiny_llama().generate(
        PROMPTS,
        attention_mask=MASK,
        logits_processor=[ControlProcessor(automaton())],
        custom_generate=samplers.hf(name, rng=torch.Generator().manual_seed(0)),
        max_new_tokens=8,
        top_k=0,
        **{"do_sample": True, "num_return_sequences": 3, **options},
    )


@pytest.mark.parametrize("name", [name for name in samplers.SAMPLERS if name != "branching"])
def test_generate_returns_what_the_sampler_draws(name):
    found = call(name)
    direct = samplers.SAMPLERS[name](
        CausalLM(tiny_llama(), eos_token_ids=[EOS]),
        automaton(),
        PROMPTS,
        mask=MASK.bool(),
        num=3,
        max_new_tokens=8,
        rng=torch.Generator().manual_seed(0),
    )
    texts = [text for own in direct.tokens for text in own]
    assert torch.equal(found[:, :3], PROMPTS.repeat_interleave(3, dim=0))
    for row, text in zip(found[:, 3:].tolist(), texts, strict=True):
        assert row[: len(text)] == text
        assert all(token == 0 for token in row[len(text) :])
    output = call(name, return_dict_in_generate=True)
    assert torch.equal(output.sequences, found)
    assert torch.equal(output.log_weights, torch.cat(direct.log_weights))
    assert torch.equal(output.log_z, direct.log_z)


def test_branching_returns_distinct_texts():
    found = call("branching")
    assert len({tuple(row) for row in found.tolist()}) == 6


def test_without_a_generator_torchs_own_decides():
    def once(seed):
        torch.manual_seed(seed)
        return tiny_llama().generate(
            PROMPTS,
            attention_mask=MASK,
            custom_generate=samplers.hf("cars", automaton()),
            max_new_tokens=8,
            do_sample=True,
            top_k=0,
        )

    assert torch.equal(once(1), once(1))
    assert len({tuple(once(seed).flatten().tolist()) for seed in range(5)}) > 1


def test_what_would_void_the_weights_is_refused():
    with pytest.raises(InputError, match="there is no sampler"):
        samplers.hf("magic")
    with pytest.raises(InputError, match="TopK"):
        tiny_llama().generate(
            PROMPTS,
            attention_mask=MASK,
            custom_generate=samplers.hf("cars", automaton()),
            max_new_tokens=4,
            do_sample=True,
            top_k=5,
        )
    with pytest.raises(InputError, match="MaxTime"):
        call("cars", max_time=5.0)
    with pytest.raises(InputError, match="wants one potential"):
        tiny_llama().generate(
            PROMPTS, attention_mask=MASK, custom_generate=samplers.hf("cars"), max_new_tokens=4, top_k=0
        )
    for name in ("importance", "branching"):  # whose texts are there, and not whole
        with pytest.raises(InputError, match="raise max_lm_calls"):
            tiny_llama().generate(
                PROMPTS,
                attention_mask=MASK,
                custom_generate=samplers.hf(name, automaton(), max_lm_calls=1),
                max_new_tokens=8,
                top_k=0,
            )
    with pytest.raises(InputError, match="raise max_lm_calls"):
        tiny_llama().generate(
            PROMPTS,
            attention_mask=MASK,
            custom_generate=samplers.hf("cars", automaton(), max_lm_calls=2),
            max_new_tokens=8,
            do_sample=True,
            top_k=0,
            num_return_sequences=20,
        )


def test_temperature_is_that_of_the_model():
    cold = call("cars", temperature=0.05)
    lm = CausalLM(tiny_llama(), eos_token_ids=[EOS], temperature=0.05)
    direct = samplers.cars(
        lm, automaton(), PROMPTS, mask=MASK.bool(), num=3, max_new_tokens=8, rng=torch.Generator().manual_seed(0)
    )
    assert [
        row[: len(text)]
        for row, text in zip(cold[:, 3:].tolist(), [t for own in direct.tokens for t in own], strict=True)
    ] == [text for own in direct.tokens for text in own]
