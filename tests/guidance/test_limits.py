"""The class LM's context: told before anything is generated, and never met by rows that have ended."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ctrldecode.errors import InputError
from ctrldecode.guidance import GeDi, Prompted
from ctrldecode.lm import CausalLM
from tests.guidance.models import CODES, TableModel

CONTEXT = 12


@functools.cache
def short_sighted() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("ends", [[], [2], [2, 5]])
@pytest.mark.parametrize("first", [2, 5])
def test_rows_that_have_ended_do_not_run_out_of_context(ends, first):
    lm = CausalLM(short_sighted(), eos_token_ids=ends)
    gedi = GeDi(lm, {"a": [7], "b": [8]}, target="a", strength=2.0, eos_token_ids=[2, 5])
    prompts, mask = torch.tensor([[1, 12, 13, 14, 15, 16], [0, 0, 0, 0, 0, 1]]), torch.ones(2, 6, dtype=torch.bool)
    mask[1, :5] = False
    state, alone = gedi.init(prompts, mask), gedi.init(torch.tensor([[1]]))
    for token in (first, *range(20, 27)):
        pair = torch.tensor([token, 30 + token % 7])
        state, alone = gedi.step(state, pair), gedi.step(alone, pair[1:])
        weights = gedi.log_weights(state)
        assert bool((weights[0] == 0).all())
        assert torch.allclose(weights[1], gedi.log_weights(alone)[0], atol=1e-4)
    assert torch.allclose(gedi.log_posteriors(state)[1], gedi.log_posteriors(alone)[0], atol=1e-5)


def test_a_row_may_end_where_the_context_ends():
    gedi = GeDi(CausalLM(short_sighted(), eos_token_ids=[]), {"a": [7], "b": [8]}, target="a", eos_token_ids=[2])
    state = gedi.init(torch.arange(10, 10 + CONTEXT - 1)[None])
    state = gedi.step(gedi.step(state, torch.tensor([2])), torch.tensor([0]))
    assert bool((gedi.log_weights(state) == 0).all())


def test_ended_rows_cost_no_forward_pass():
    lm = CausalLM(short_sighted())
    gedi = GeDi(lm, {"a": [7], "b": [8]}, target="a")
    state = gedi.init(torch.tensor([[1, 12], [1, 13]]))
    assert lm.forward_passes.positions == 2 * 2 * 3
    state = gedi.step(state, torch.tensor([2, 20]))
    assert lm.forward_passes.positions == 2 * 2 * 3 + 2
    gedi.step(state, torch.tensor([0, 2]))
    assert lm.forward_passes.positions == 2 * 2 * 3 + 2


@pytest.mark.parametrize(
    ("start", "mask", "room"),
    [
        (None, None, CONTEXT - 6),  # 4 of the prompt, 2 of the longer code
        ([1], None, CONTEXT - 6),  # the prompt has the start already
        ([3], None, CONTEXT - 7),
        (None, [[False, False, True, True]], CONTEXT - 4),
    ],
)
def test_prompt_code_and_text_must_fit(start, mask, room):
    gedi = GeDi(CausalLM(short_sighted()), {"a": [7], "b": [8, 9]}, target="a", start=start)
    prompts, shown = torch.tensor([[1, 12, 13, 14]]), None if mask is None else torch.tensor(mask)
    gedi.check_context(prompts, room, shown)
    with pytest.raises(InputError, match=f"{CONTEXT - room} tokens and {room + 1} new ones .* at most {CONTEXT}"):
        gedi.check_context(prompts, room + 1, shown)
    state = gedi.init(prompts, shown)
    for _ in range(room):  # what was said to fit does
        state = gedi.step(state, torch.tensor([20]))
    with pytest.raises(InputError, match="reads at most"):
        gedi.step(state, torch.tensor([20]))


def test_what_has_no_limit_has_none():
    GeDi(TableModel(), CODES, target="a").check_context(torch.tensor([[1]]), 10**9)
    assert Prompted(CausalLM(short_sighted()), [3]).context == CONTEXT
