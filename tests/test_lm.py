from __future__ import annotations

import functools
import math

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ctrldecode.core import laws
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.core.potential import cat, take
from ctrldecode.errors import InputError, ModelError
from ctrldecode.lm import CausalLM
from ctrldecode.lm._cache import cache_argument
from tests.toys import EOS, SIZE, tiny_llama

SMALL = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": EOS,
}
GPT2 = {
    "vocab_size": SIZE,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": EOS,
}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    "learned positions": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "no positions": lambda: BloomForCausalLM(BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=2, n_head=4)),
}


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[name]().eval()


def ids(rows, length, seed=0):
    return torch.randint(3, SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))


def recomputed(model, row):
    """log p(v | row) without cache, batch or padding."""
    with torch.no_grad():
        return torch.log_softmax(model(row[None], use_cache=False).logits[0, -1].float(), -1)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_agree_with_recomputation(family):
    model = build(family)
    lm = CausalLM(model, eos_token_ids=[])
    rows, mask = ids(3, 5), torch.ones(3, 5, dtype=torch.bool)
    mask[0, :3] = mask[1, :1] = False
    state = lm.init(rows, mask)
    for token in ids(3, 7, seed=1).T:
        state = lm.step(state, token)
        rows = torch.cat([rows, token[:, None]], 1)
        mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.bool)], 1)
    for row, real, got in zip(rows, mask, lm.log_weights(state), strict=True):
        assert torch.allclose(got, recomputed(model, row[real]), atol=1e-5)


def test_take_and_cat_agree_with_recomputation():
    model = tiny_llama()
    lm = CausalLM(model, eos_token_ids=[])
    mask = torch.tensor([[False, True, True], [True, True, True]])
    state = lm.step(lm.init(ids(2, 3), mask), torch.tensor([7, 8]))
    other = lm.step(lm.init(ids(1, 3, seed=5)), torch.tensor([9]))
    rows = [
        torch.cat([row[real], torch.tensor([token])]) for row, real, token in zip(ids(2, 3), mask, (7, 8), strict=True)
    ]
    rows.append(torch.cat([ids(1, 3, seed=5)[0], torch.tensor([9])]))
    joined = take(cat([state, other]), [2, 0, 0, 1])
    stepped = lm.step(joined, torch.tensor([4, 5, 6, 7]))
    for index, token, got in zip([2, 0, 0, 1], [4, 5, 6, 7], lm.log_weights(stepped), strict=True):
        row = torch.cat([rows[index], torch.tensor([token])])
        assert torch.allclose(got, recomputed(model, row), atol=1e-5)


def test_states_agree_with_generate():
    model = tiny_llama()
    lm = CausalLM(model)
    prompts, mask = ids(2, 4), torch.tensor([[False, False, True, True], [True] * 4])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        output = model.generate(
            prompts,
            attention_mask=mask.long(),
            max_new_tokens=8,
            do_sample=True,
            return_dict_in_generate=True,
            output_logits=True,
        )
    state = lm.init(prompts, mask)
    for at, logits in enumerate(output.logits):
        live = ~state.finished
        assert torch.allclose(lm.log_weights(state)[live], torch.log_softmax(logits, -1)[live], atol=1e-5)
        state = lm.step(state, output.sequences[:, 4 + at])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_laws_hold(family):
    lm = CausalLM(build(family), eos_token_ids=[EOS, 5])
    assert laws.check(lm, eos_token_ids=[EOS, 5], steps=3) == ("forbidden", "telescoping")


def test_the_sum_of_log_weights_is_the_log_probability_of_the_text():
    model = tiny_llama()
    prompt = ids(1, 4)

    def log_psi(tokens):
        row, total = prompt[0], 0.0
        for token in tokens:
            total += float(recomputed(model, row)[token])
            row = torch.cat([row, torch.tensor([token])])
        return total

    untested = laws.check(CausalLM(model), prompts=prompt, log_psi=log_psi, eos_token_ids=[EOS], steps=2, batch=2)
    assert untested == ("forbidden",)


def test_old_states_stay_valid():
    lm = CausalLM(tiny_llama(), eos_token_ids=[])
    state = lm.init(ids(2, 3))
    before = [tensor.clone() for tensor in (*state.keys, *state.values, state.mask, state.logits)]
    first = lm.log_weights(lm.step(state, torch.tensor([4, 5])))
    lm.step(state, torch.tensor([6, 7]))
    assert torch.equal(first, lm.log_weights(lm.step(state, torch.tensor([4, 5]))))
    after = (*state.keys, *state.values, state.mask, state.logits)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_finished_rows_are_neutral_and_take_any_token():
    lm = CausalLM(tiny_llama())
    assert lm.eos_token_ids == (EOS,)
    state = lm.step(lm.init(ids(2, 3)), torch.tensor([EOS, 4]))
    state = lm.step(state, torch.tensor([-1, 4]))
    assert state.finished.tolist() == [True, False]
    assert bool((lm.log_weights(state)[0] == 0).all())
    assert lm.log_weights(state)[1].exp().sum() == pytest.approx(1.0, abs=1e-5)


def test_an_end_of_sequence_in_the_prompt_does_not_end_the_row():
    lm = CausalLM(tiny_llama())
    assert not bool(lm.init(torch.tensor([[EOS, 5]])).finished)


def test_temperature_divides_logits():
    model = tiny_llama()
    row = ids(1, 4)
    hot = CausalLM(model, temperature=2.0)
    wanted = torch.log_softmax(recomputed(model, row[0]) / 2.0, -1)
    assert torch.allclose(hot.log_weights(hot.init(row))[0], wanted, atol=1e-5)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="temperature"):
            CausalLM(model, temperature=temperature)


@pytest.mark.parametrize(
    "most", [1, 2 * SIZE, 5 * SIZE, 2**26]
)  # pieces of a token and of two, a row at a time, all at once
@pytest.mark.parametrize("family", ["llama", "learned positions"])
def test_scores_of_texts_agree_with_steps(family, most, monkeypatch):
    monkeypatch.setattr("ctrldecode.lm._causal._MOST_LOGITS", most)
    lm = CausalLM(build(family), eos_token_ids=[], temperature=1.3)
    mask = torch.tensor([[False, True, True], [True, True, True], [True, True, True]])
    texts = [[4, 5, 6, 7], [8], []]
    state, total = lm.score(ids(3, 3), mask, texts)
    assert total.dtype == torch.float64
    assert total[2] == 0
    for row, text in enumerate(texts):
        other, wanted = LanguageModel.score(lm, ids(3, 3)[row : row + 1], mask[row : row + 1], [text])
        assert float(total[row]) == pytest.approx(float(wanted), abs=1e-4)
        assert torch.allclose(lm.log_weights(state)[row], lm.log_weights(other)[0], atol=1e-4)


def test_a_long_row_is_scored_in_pieces(monkeypatch):
    monkeypatch.setattr("ctrldecode.lm._causal._MOST_LOGITS", 3 * SIZE)
    lm = CausalLM(build("llama"), eos_token_ids=[])
    lm.score(ids(1, 2), None, [[4, 5, 6, 7, 8, 9, 4]])
    assert (lm.forward_passes.calls, lm.forward_passes.positions) == (1 + 3, 2 + 7)


def test_texts_are_encoded_by_the_tokenizer_if_there_is_one():
    lm = CausalLM(tiny_llama())
    with pytest.raises(InputError, match=r"CausalLM\(model, tokenizer=tokenizer\)"):
        lm.encode("happy")


def test_forward_passes_are_counted():
    lm = CausalLM(tiny_llama())
    state = lm.init(ids(2, 3))
    lm.log_weights(lm.step(state, torch.tensor([4, 5])))
    assert (lm.forward_passes.calls, lm.forward_passes.positions) == (2, 8)


def test_half_precision_gives_float32_weights():
    config = LlamaConfig(**SMALL)
    lm = CausalLM(LlamaForCausalLM(config).to(torch.bfloat16).eval())
    state = lm.init(ids(2, 3))
    assert state.logits.dtype == torch.bfloat16
    assert lm.log_weights(state).dtype == torch.float32


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.bfloat16, 0.5)])
def test_the_laws_hold_in_half_precision(dtype, tolerance):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(**{**SMALL, "hidden_size": 128, "num_hidden_layers": 4, "initializer_range": 0.15})
        lm = CausalLM(LlamaForCausalLM(config).to(dtype).eval())
    laws.check(lm, eos_token_ids=[EOS], steps=3, tolerance=tolerance)


def test_the_size_is_that_of_the_head():
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    model.resize_token_embeddings(64)
    assert CausalLM(model).size == 64
    model.lm_head = torch.nn.Linear(32, 70, bias=False)
    assert CausalLM(model).size == 70
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(32, 70))
    with pytest.raises(ModelError, match="70 ids where its head has 64"):
        CausalLM(model).init(ids(1, 2))


@pytest.mark.parametrize(
    ("prompts", "mask", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.long), None, "beginning-of-sequence"),
        (torch.tensor([4, 5]), None, r"\(B, P\)"),
        (torch.tensor([[4, SIZE]]), None, r"\[0, 50\)"),
        (torch.tensor([[4, -1]]), None, "got -1 to 4"),
        (torch.tensor([[4, 5]]), torch.tensor([[True]]), "prompts' shape"),
        (torch.tensor([[4, 5]]), torch.tensor([[True, False]]), "padding_side = 'left'"),
        (torch.tensor([[4, 5, 6]]), torch.tensor([[True, False, True]]), "padding_side = 'left'"),
        (torch.tensor([[4, 5]]), torch.tensor([[False, False]]), "padding_side = 'left'"),
        ([[4, 5]], None, "prompts must be a tensor of token ids.*got list"),
        (torch.tensor([[4.0, 5.0]]), None, r"got torch\.float32; write torch\.tensor\(ids, dtype=torch\.long\)"),
        (torch.tensor([[True, False]]), None, r"got torch\.bool"),
        (torch.tensor([[4, 5]]), [[True, True]], "mask must be a tensor.*got list"),
        (torch.full((1, 257), 4), None, "reads at most 256 tokens, got 257; shorten the prompt"),
    ],
)
def test_wrong_prompts_raise(prompts, mask, message):
    with pytest.raises(InputError, match=message):
        CausalLM(tiny_llama()).init(prompts, mask)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([4, 5], "got list"),
        (torch.tensor([4.0, 5.0]), r"got torch\.float32"),
        (torch.tensor([4, SIZE]), r"ids that are stepped must lie in \[0, 50\), got 4 to 50"),
        (torch.tensor([-1, 4]), "got -1 to 4"),
        (torch.tensor([4]), r"one id a row, shape \(2,\), got shape \(1,\)"),
    ],
)
def test_wrong_steps_raise(tokens, message):
    lm = CausalLM(tiny_llama())
    with pytest.raises(InputError, match=message):
        lm.step(lm.init(ids(2, 3)), tokens)


@pytest.mark.parametrize("family", ["llama", "learned positions"])
def test_the_context_is_the_limit_of_rows_that_have_not_ended(family):
    model = build(family)
    model.config.max_position_embeddings = 64
    lm = CausalLM(model, eos_token_ids=[EOS])
    state = lm.step(lm.init(ids(2, 63)), torch.tensor([EOS, 4]))
    with pytest.raises(InputError, match="reads at most 64 tokens, got 65"):
        lm.step(state, torch.tensor([4, 4]))
    ended = lm.step(lm.step(take(state, [0]), torch.tensor([4])), torch.tensor([4]))
    assert bool((lm.log_weights(ended) == 0).all())


@pytest.mark.parametrize("positions", [10**30, 2**31])
def test_a_context_without_a_limit(positions):
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    model.config.max_position_embeddings = positions
    lm = CausalLM(model)
    assert lm.context is None
    assert lm.log_weights(lm.step(lm.init(ids(1, 3)), torch.tensor([5]))).isfinite().all()


def test_padding_does_not_count_towards_the_context():
    lm = CausalLM(tiny_llama())
    mask = torch.ones(1, 300, dtype=torch.bool)
    mask[:, :100] = False
    assert lm.init(torch.full((1, 300), 4), mask).position.tolist() == [200]


def test_wrong_models_raise():
    for wrong in ("gpt2", None, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match=r"got (str|NoneType|Linear); load one with AutoModelForCausalLM"):
            CausalLM(wrong)
    with pytest.raises(ModelError, match="returned no logits; load it as AutoModelForCausalLM"):
        CausalLM(tiny_llama().model).init(ids(1, 2))
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        CausalLM(LlamaForCausalLM(LlamaConfig(**SMALL)))
    with pytest.raises(ModelError, match="keeps LinearAttentionLayer"):
        CausalLM(MambaForCausalLM(MambaConfig(vocab_size=SIZE, hidden_size=32, num_hidden_layers=1)).eval())
    t5 = T5Config(vocab_size=SIZE, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)
    with pytest.raises(ModelError, match="encoder-decoder"):
        CausalLM(T5ForConditionalGeneration(t5).eval())
    with pytest.raises(InputError, match="eos_token_ids"):
        CausalLM(tiny_llama(), eos_token_ids=[SIZE])


def test_a_model_that_returns_another_cache_raises(monkeypatch):
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    forward = type(model).forward
    name = cache_argument(model)

    @functools.wraps(forward)
    def other(self, **arguments):
        output = forward(self, **arguments)
        setattr(output, name, DynamicCache(config=model.config))
        return output

    monkeypatch.setattr(type(model), "forward", other)
    with pytest.raises(ModelError, match="one key and value tensor per layer"):
        CausalLM(model).init(ids(1, 2))


def test_a_config_without_a_number_of_layers_raises():
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    model.config.num_hidden_layers = -1
    with pytest.raises(ModelError, match="no cache can be made for"):
        CausalLM(model)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_laws_hold_on_cuda():
    lm = CausalLM(build("llama").cuda(), eos_token_ids=[EOS])
    cpu = CausalLM(build("llama"), eos_token_ids=[EOS])
    state, other = lm.init(ids(2, 4)), cpu.init(ids(2, 4))
    for token in ids(2, 3, seed=1).T:
        state, other = lm.step(state, token), cpu.step(other, token)
    assert torch.allclose(lm.log_weights(state).cpu(), cpu.log_weights(other), atol=1e-4)
    laws.check(lm, eos_token_ids=[EOS], steps=3)
