"""Drafts that are read at once: several steps in one, what stands behind a row, and assistants that cost no forward pass."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ctrldecode._drafts import Drafts
from ctrldecode.assistants import _without_networks, light
from ctrldecode.core import laws
from ctrldecode.core.potential import Potential, per_row, take
from ctrldecode.errors import InputError
from ctrldecode.guidance import GeDi, Prompted, dexperts
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tests.test_processor import generate
from tests.toys import EOS, SIZE, Automaton, Table, tiny_llama

NEW = 14


def class_posterior(lm=None):
    lm = CausalLM(tiny_llama(1)) if lm is None else lm
    return GeDi(lm, {"x": [7], "y": [8, 9]}, target="x", strength=8.0, scale=2.0)


def tiny_gpt2():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=SIZE, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3)
        return GPT2LMHeadModel(config).eval()


POTENTIALS = {
    "llama": lambda: CausalLM(tiny_llama(1)),
    "gpt2": lambda: CausalLM(tiny_gpt2(), eos_token_ids=[EOS]),
    "behind a prompt": lambda: Prompted(CausalLM(tiny_llama(1)), [5, 6]),
    "class posterior": class_posterior,
    "ratio": lambda: dexperts(CausalLM(tiny_llama(1)), CausalLM(tiny_llama(2)), 0.5),
    "product": lambda: class_posterior() * Automaton() * Table(hard=0.0),
    "one a row": lambda: per_row([class_posterior(), Table(), class_posterior() * Automaton()]),
    "table": Table,
}


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("end", [None, 0, 2, 4])
def test_several_steps_are_those_of_one_after_the_other(name, end):
    potential = POTENTIALS[name]()
    prompts = torch.randint(3, SIZE, (3, 4), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, True, True, True], [True] * 4, [True] * 4])
    tokens = torch.randint(10, SIZE, (3, 5), generator=torch.Generator().manual_seed(1))
    if end is not None:
        tokens[1, end] = EOS  # one row ends, others go on
    state = potential.init(prompts, mask)
    reached = potential.step_all(state, tokens)
    assert len(reached) == 5
    for at in range(5):
        state = potential.step(state, tokens[:, at])
        wanted = potential.log_weights(state)
        torch.testing.assert_close(potential.log_weights(reached[at]), wanted, rtol=1e-4, atol=1e-4)
        again = potential.step(take(reached[at], [2, 0, 1]), torch.tensor([11, 12, 13]))
        want = potential.step(take(state, [2, 0, 1]), torch.tensor([11, 12, 13]))
        torch.testing.assert_close(potential.log_weights(again), potential.log_weights(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", POTENTIALS)
def test_potentials_that_read_ahead_obey_the_laws(name):
    laws.check(POTENTIALS[name](), eos_token_ids=[EOS], tolerance=1e-3)


class TooShort(Table):
    def step_all(self, state, tokens):
        return [self.step(state, token) for token in tokens.T]


def test_the_laws_see_steps_that_are_not_those_of_step():
    with pytest.raises(Exception, match="several_steps"):
        laws.check(TooShort(), eos_token_ids=[EOS])


def test_several_steps_are_one_forward_pass_up_to_an_end():
    lm = CausalLM(tiny_llama(1))
    potential = class_posterior(lm)
    state = potential.init(torch.tensor([[5, 6]]))
    for tokens, passes in (
        ([10, 11, 12, 13], 1),
        ([10, 11, 12, EOS], 1),
        ([10, EOS, 12, 13], 1),
        ([10], 1),
        ([EOS], 0),
    ):
        before = lm.forward_passes.calls
        potential.step_all(state, torch.tensor([tokens]))
        assert lm.forward_passes.calls - before == passes


def test_many_logits_are_made_in_pieces(monkeypatch):
    lm = CausalLM(tiny_llama(1))
    state, tokens = lm.init(torch.tensor([[5, 6]])), torch.arange(10, 17)[None]
    whole = lm.step_all(state, tokens)
    monkeypatch.setattr("ctrldecode.lm._causal._MOST_LOGITS", 3 * SIZE)
    before = lm.forward_passes.calls
    parts = lm.step_all(state, tokens)
    assert lm.forward_passes.calls - before == 3
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(lm.log_weights(one), lm.log_weights(other), rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------- what stands behind a row


def test_what_stands_behind_a_slice_is_seen():
    whole, drafts = torch.arange(9)[None].clone(), Drafts()
    assert drafts.behind(whole[:, :6]).tolist() == [[6, 7, 8]]
    assert drafts.behind(whole[:, :7]).tolist() == [[7, 8]]
    assert drafts.behind(whole[:, :8]).tolist() == [[8]]
    assert drafts.behind(whole[:, :9]) is None


@pytest.mark.parametrize(
    "row",
    [
        torch.arange(5)[None],
        torch.arange(8)[None][:, 3:6],  # not from the beginning
        torch.arange(8)[None][:, ::2],
        torch.arange(8).view(2, 4)[:, :2],  # two rows
        torch.arange(8)[:4].view(1, 4),
        torch.arange(8)[None][:, :4].clone(),
    ],
)
def test_other_tensors_tell_nothing(row):
    assert Drafts().behind(row) is None


def test_who_fills_a_buffer_is_believed_twice():
    buffer, drafts = torch.zeros(1, 8, dtype=torch.long), Drafts()
    found = []
    for at in range(3, 7):
        found.append(drafts.behind(buffer[:, :at]))
        buffer[0, at] = 9
    assert [one is not None for one in found] == [True, True, False, False]


def test_a_buffer_that_is_filled_changes_no_number():
    lm = CausalLM(tiny_llama(1))
    processor, oracle = ControlProcessor(class_posterior(lm)), ControlProcessor(class_posterior())
    buffer, scores = torch.zeros(1, 12, dtype=torch.long), torch.randn(1, SIZE)
    buffer[0, :4] = torch.tensor([5, 6, 7, 8])
    for at in range(4, 12):
        torch.testing.assert_close(processor(buffer[:, :at], scores), oracle(buffer[:, :at].clone(), scores))
        buffer[0, at] = 10 + at


def short_sighted():
    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=20,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    "end", [list(range(10, 40)), [-100] * 5, [2**40], []], ids=["past the context", "ignored", "no ids", "nothing"]
)
def test_what_stands_behind_may_be_anything_as_long_as_it_does_not_come(end):
    ids = torch.tensor([[*range(10, 20), *end]])
    potential = class_posterior(CausalLM(short_sighted())) * Table(hard=0.0)
    processor, oracle, scores = ControlProcessor(potential), ControlProcessor(potential), torch.zeros(1, SIZE)
    for at in range(4, 11):
        torch.testing.assert_close(processor(ids[:, :at], scores), oracle(ids[:, :at].clone(), scores))


def test_what_does_not_fit_is_told_where_it_comes():
    ids = torch.arange(10, 40)[None]
    processor = ControlProcessor(class_posterior(CausalLM(short_sighted())))
    for at in range(4, 19):
        processor(ids[:, :at], torch.zeros(1, SIZE))
    with pytest.raises(InputError, match="reads at most 20"):
        processor(ids[:, :19], torch.zeros(1, SIZE))


def test_prompts_cut_from_a_longer_text_do_not_end_the_looking_ahead():
    text, draft, drafts = torch.arange(9)[None].clone(), torch.arange(20, 29)[None], Drafts()
    for cut, _ in itertools.product([4, 5, 3], range(2)):
        drafts.behind(text[:, :cut])
        assert drafts.behind(torch.cat([text[:, :cut], draft[:, :1]], 1)) is None  # plain decoding goes on with its own
        assert drafts.behind(draft[:, :7]).tolist() == [[27, 28]]
        assert drafts.behind(draft[:, :8]).tolist() == [[28]]


def test_no_slice_reaches_into_the_next_row():
    table = torch.arange(12).view(3, 4)
    assert Drafts().behind(table[1:2, :3]).tolist() == [[7]]
    assert Drafts().behind(table[1:2]) is None


# ------------------------------------------------------------------------------------------------------- light assistants


def prompt(seed):
    return torch.randint(11, SIZE, (1, 5), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inference", [False, True])
def test_a_light_assistant_costs_one_pass_a_text_more_than_plain_decoding(inference):
    """The draft is another random model, whose drafts are nearly always refused."""
    counts = {}
    for name, mode in {
        "plain": {},
        "draft": {"assistant_model": 4},
        "light": {"assistant_model": 4, "light": True},
    }.items():
        lm = CausalLM(tiny_llama(1))
        processor = ControlProcessor(class_posterior(lm))
        with torch.inference_mode(inference):
            texts = [generate(prompt(seed), processor, new=NEW, **mode).sequences.tolist() for seed in range(6)]
        counts[name] = lm.forward_passes.calls, texts
    assert counts["light"][1] == counts["plain"][1] == counts["draft"][1]
    assert counts["light"][0] <= counts["plain"][0] + 6
    assert counts["light"][0] < counts["draft"][0]


def hard_and_parallel():
    lm = CausalLM(tiny_llama(1))
    return lm, class_posterior(lm) * Automaton(modulus=2)


def test_a_light_assistant_obeys_what_costs_little():
    lm, potential = hard_and_parallel()
    seen = []

    class Spy(Automaton):
        def log_weights(self, state, tokens=None):
            seen.append(len(state[0]))
            return super().log_weights(state, tokens)

    processor = ControlProcessor(class_posterior(lm) * Spy(modulus=2))
    for seed in range(4):
        light_text = generate(prompt(seed), processor, new=NEW, assistant_model=4, light=True).sequences
        plain = generate(prompt(seed), ControlProcessor(potential), new=NEW).sequences
        assert light_text.tolist() == plain.tolist()
    assert seen


@pytest.mark.parametrize("make", [class_posterior, lambda: Automaton(modulus=2), lambda: hard_and_parallel()[1]])
def test_one_assistant_serves_many_calls_and_processors(make):
    draft = light(tiny_llama(4))
    processors = [ControlProcessor(make(), max_new_tokens=NEW, eos_token_ids=[EOS]) for _ in range(2)]
    model = tiny_llama()

    def text(ids, processor, **mode):
        mask = torch.ones_like(ids)
        settings = {"do_sample": False, "max_new_tokens": NEW, "logits_processor": [processor]}
        return model.generate(ids, attention_mask=mask, **settings, **mode)

    for seed in range(4):
        ids = prompt(seed)
        wanted = text(ids, ControlProcessor(make(), max_new_tokens=NEW, eos_token_ids=[EOS]))
        for processor in processors:
            processor.begin()
            assert torch.equal(text(ids, processor, assistant_model=draft), wanted)
        (row,) = processors[0].report(wanted)
        assert math.isfinite(row.log_weight)


def unhesitating(seed, tokens=5):
    """A random model that proposes so many tokens; by default `generate` ends a draft of which the assistant is not sure."""
    model = copy.copy(tiny_llama(seed))
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.assistant_confidence_threshold = 0.0
    model.generation_config.num_assistant_tokens = tokens
    return model


def drafted(ids, processor, draft, **mode):
    settings = {"max_new_tokens": NEW, "do_sample": False, "logits_processor": [processor], "assistant_model": draft}
    return tiny_llama().generate(ids, attention_mask=torch.ones_like(ids), **(settings | mode))


@pytest.mark.parametrize("make", [class_posterior, lambda lm: per_row([class_posterior(lm)])])
def test_long_drafts_that_are_refused_cost_no_more_than_short_ones(make):
    counts = []
    for draft in (None, light(unhesitating(4))):
        lm = CausalLM(tiny_llama(1))
        processor = ControlProcessor(make(lm))
        texts = [drafted(prompt(seed), processor, draft).tolist() for seed in range(6)]
        counts.append((lm.forward_passes.calls, texts))
    assert counts[0][1] == counts[1][1]
    assert counts[1][0] <= counts[0][0] + 6


def test_what_costs_little_is_kept_within_per_row():
    kept = _without_networks(per_row([class_posterior() * Automaton(modulus=2)]))
    assert not kept.parallel
    scores = torch.zeros(1, SIZE)
    found = ControlProcessor(kept, max_new_tokens=NEW)(prompt(0), scores)
    want = ControlProcessor(Automaton(modulus=2), max_new_tokens=NEW)(prompt(0), scores)
    assert torch.equal(found, want)
    assert _without_networks(per_row([class_posterior()])).hard


TRAPS = [*range(10, 27), 30, 31, 32, 33, 36, 38, 39, 40, 41, 44]


class Trap(Potential):
    """Behind some tokens comes nothing."""

    size = SIZE

    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts), dtype=torch.bool)

    def log_weights(self, state, tokens=None):
        width = self.size if tokens is None else tokens.shape[1]
        return torch.where(state, -math.inf, 0.0)[:, None].repeat(1, width)

    def step(self, state, tokens):
        return state | torch.isin(tokens, torch.tensor(TRAPS))


class NoTrap(Trap):
    """Forbids these tokens; it stands for a network."""

    parallel = True

    def log_weights(self, state, tokens=None):
        ids = torch.arange(self.size).expand(len(state), -1) if tokens is None else tokens
        return torch.where(torch.isin(ids, torch.tensor(TRAPS)), -math.inf, 0.0)


@pytest.mark.parametrize("on_dead_end", ["raise", "stop", "drop"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_draft_may_come_to_a_dead_end_where_the_text_does_not(on_dead_end, sampled):
    draft = light(unhesitating(4))
    for seed in range(4):
        processor = ControlProcessor(Trap() * NoTrap(), eos_token_ids=[EOS], on_dead_end=on_dead_end)
        text = drafted(prompt(seed), processor, draft, do_sample=sampled)
        assert not set(text[0, 5:].tolist()) & set(TRAPS)
        if not sampled:
            assert torch.equal(text, drafted(prompt(seed), ControlProcessor(Trap() * NoTrap()), None))


def test_other_processors_stay_with_the_draft():
    class Note:
        calls = 0

        def __call__(self, input_ids, scores):
            self.calls += 1
            return scores

    note, model = Note(), tiny_llama(4)
    draft = light(model)
    ids = prompt(0)
    draft.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, logits_processor=[note]
    )
    assert note.calls >= 1
    assert "generate" not in vars(model)  # the assistant itself stays as it is
