"""Guidance in every mode of `generate`, twelve prompts each, against an oracle that has neither cache nor state.

The oracle reads code, prompt and text anew for every row at every call, by the model alone, and applies the formula.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessor

from ctrldecode._resources import model_path
from ctrldecode.core.potential import per_row
from ctrldecode.guidance import GeDi, Prompted, cfg, dexperts
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tests.guidance.drafts import TOKENS, noisy, passes
from tests.test_processor import DRAFTS, MODES, generate
from tests.toys import EOS, PAD, SIZE, tiny_llama

NEW, LENGTH, ROWS = 6, 5, 12
CODES = {"x": [7], "y": [8, 9], "z": [10]}
STRENGTH, SCALE, BIAS = 9.0, 2.0, {"y": 0.3}


def log_probs(seed, rows):
    """log p(v | row) for rows of one length, without cache or padding."""
    with torch.no_grad():
        return tiny_llama(seed)(torch.tensor(rows), use_cache=False).logits.log_softmax(-1)


class GeDiOracle:
    def __init__(self, count_prompt=False):
        self.count_prompt = count_prompt

    def weights(self, prompt, text):
        """ω log P(x | text·v) for all v, less ω log P(x | text)."""
        start = 0 if self.count_prompt else len(prompt)
        evidence, after = [], []
        for code in CODES.values():
            found = log_probs(1, [[*code, *prompt, *text]])[0]
            read = [*prompt, *text]
            so_far = sum(float(found[len(code) - 1 + place, read[place]]) for place in range(start, len(read)))
            evidence.append(so_far)
            after.append(so_far + found[-1])
        count = len(prompt) + len(text) - start
        bias = torch.tensor([BIAS.get(name, 0.0) for name in CODES])
        now = (SCALE * torch.tensor(evidence) / max(count, 1) + bias).log_softmax(0)[0]
        then = (SCALE * torch.stack(after) / (count + 1) + bias[:, None]).log_softmax(0)[0]
        return STRENGTH * (then - now)

    def potential(self):
        lm = CausalLM(tiny_llama(1))
        said = {"strength": STRENGTH, "scale": SCALE, "bias": BIAS, "count_prompt": self.count_prompt}
        return GeDi(lm, CODES, target="x", **said)


class CFGOracle:
    gamma = 1.7

    def weights(self, prompt, text):
        rows = [*prompt, *text], [prompt[-1], *text]
        with_, without = (log_probs(0, [row])[0, -1] for row in rows)
        return (self.gamma - 1) * (with_ - without)

    def potential(self):
        lm = CausalLM(tiny_llama(0))
        return cfg(lm, Prompted(lm, keep=1, start=()), self.gamma)


class DExpertsOracle:
    def weights(self, prompt, text):
        expert, anti = (log_probs(seed, [[*prompt, *text]])[0, -1] for seed in (1, 2))
        return 0.6 * (expert - anti)

    def potential(self):
        return dexperts(CausalLM(tiny_llama(1)), CausalLM(tiny_llama(2)), 0.6)


ORACLES = {
    "gedi": GeDiOracle(),
    "gedi, prompts count": GeDiOracle(True),
    "cfg": CFGOracle(),
    "dexperts": DExpertsOracle(),
}


class Stateless(LogitsProcessor):
    def __init__(self, oracle, length, mask=None):
        self.oracle, self.length, self.mask = oracle, length, mask
        self.known = {}

    def __call__(self, input_ids, scores):
        out = torch.log_softmax(scores.float(), -1)
        for row, ids in enumerate(input_ids.tolist()):
            prompt, text = ids[: self.length], ids[self.length :]
            if self.mask is not None:
                mask = self.mask[row * len(self.mask) // len(out)].tolist()
                prompt = [token for token, real in zip(prompt, mask, strict=True) if real]
            if EOS in text:
                continue
            key = (tuple(prompt), tuple(text))
            if key not in self.known:
                self.known[key] = self.oracle.weights(prompt, text)
            out[row] += self.known[key]
        return out


def prompts(rows=ROWS, length=LENGTH, seed=0):
    return torch.randint(11, SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))


def agree(ids, name, processor=None, mask=None, **mode):
    oracle = ORACLES[name]
    processor = ControlProcessor(oracle.potential(), attention_mask=mask) if processor is None else processor
    got = generate(ids, processor, mask, NEW, **mode)
    want = generate(ids, Stateless(oracle, ids.shape[1], mask), mask, NEW, **mode)
    assert got.sequences.tolist() == want.sequences.tolist()
    for mine, theirs in zip(got.scores, want.scores, strict=True):
        assert torch.allclose(
            mine, theirs, atol=2e-4
        )  # found: 3e-5, nine times the log of a posterior behind a network
    return got.sequences


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ORACLES)
def test_every_mode_agrees_with_the_stateless_oracle(name, mode):
    agree(prompts(), name, **MODES[mode])


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("name", ORACLES)
def test_drafting_agrees_with_the_stateless_oracle(name, mode):
    processor = ControlProcessor(ORACLES[name].potential())  # one instance for all prompts
    for row in range(ROWS):
        ids = prompts(1, 4, seed=row)
        agree(torch.cat([ids, ids, ids[:, :2]], dim=1), name, processor, **DRAFTS[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gedi", "gedi, prompts count", "cfg"])
def test_left_padding_agrees_with_the_stateless_oracle(name, mode):
    ids = prompts()
    mask = torch.ones_like(ids, dtype=torch.bool)
    for row in range(ROWS):
        mask[row, : row % LENGTH] = False
    ids[~mask] = PAD
    agree(ids, name, mask=mask, **MODES[mode])


@pytest.mark.parametrize("name", ["gedi", "cfg"])
def test_one_instance_serves_many_calls(name):
    processor = ControlProcessor(ORACLES[name].potential())
    for seed, mode in enumerate(["greedy", "beams", "sampling", "greedy"]):
        agree(prompts(seed=seed), name, processor, **MODES[mode])
    agree(prompts(3, 3), name, processor)
    agree(prompts(1), name, processor, num_beams=3)


def test_rows_that_end_early_stay_neutral():
    ids = prompts(24, seed=5)
    sequences = agree(ids, "gedi", do_sample=True)
    assert len({EOS in row[LENGTH:-1] for row in sequences.tolist()}) == 2


def test_each_prompt_may_have_its_own_class():
    lm = CausalLM(tiny_llama(1))
    potential = per_row([GeDi(lm, CODES, target="xyz"[row % 3]) for row in range(ROWS)])
    ids = prompts()
    got = generate(ids, ControlProcessor(potential), new=NEW).sequences
    for row in range(ROWS):
        alone = ControlProcessor(GeDi(lm, CODES, target="xyz"[row % 3]))
        want = generate(ids[row : row + 1], alone, new=NEW).sequences[0].tolist()
        assert got[row].tolist()[: len(want)] == want


def guided_by_transformers(ids, **mode):
    """The library's own guidance, `guidance_scale`."""
    if "assistant_model" in mode:
        mode["assistant_model"] = tiny_llama(mode["assistant_model"])
    mask = torch.ones_like(ids)
    return tiny_llama().generate(ids, attention_mask=mask, max_new_tokens=NEW, guidance_scale=CFGOracle.gamma, **mode)


@pytest.mark.parametrize(
    "mode", [{"num_beams": 4}, {"num_beams": 4, "num_return_sequences": 2}, {"assistant_model": 4}]
)
def test_guidance_of_transformers_is_wrong_where_ours_is_right(mode):
    theirs_wrong = 0
    for row in range(ROWS):
        ids = prompts(1, seed=row)
        right = generate(ids, Stateless(ORACLES["cfg"], LENGTH), new=NEW, **dict(mode)).sequences
        ours = generate(ids, ControlProcessor(ORACLES["cfg"].potential()), new=NEW, **dict(mode)).sequences
        assert ours.tolist() == right.tolist()
        theirs_wrong += guided_by_transformers(ids, **dict(mode)).tolist() != right.tolist()
    assert theirs_wrong > 0


def test_guidance_of_transformers_is_ours_where_it_works():
    for row in range(ROWS):
        ids = prompts(1, seed=row)
        ours = generate(ids, ControlProcessor(ORACLES["cfg"].potential()), new=NEW).sequences
        assert ours.tolist() == guided_by_transformers(ids).tolist()


def test_twelve_tokens_with_drafts_cost_at_most_half_as_many_class_lm_passes_more():
    """The draft is tinytales with noise on its weights: it is right mostly, as drafts are. Only what it drafts in vain costs."""
    model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
    plain, texts = passes(model, None, ROWS)
    assisted, same = passes(model, noisy(model, 0.1), ROWS)
    assert texts == same
    assert plain == TOKENS * ROWS
    assert plain <= assisted <= 1.5 * plain
