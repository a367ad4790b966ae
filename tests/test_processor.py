"""`ControlProcessor` in every mode of `generate`, against an oracle without state; its reports, its errors, its store.

Longer than other test files since all modes share the oracle and the toys above them.
"""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor

from ctrldecode._prefixes import PrefixStore, prefix_keys, state_bytes
from ctrldecode.assistants import light
from ctrldecode.core.potential import Support, per_row
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import DeadEnd, InputError, PotentialError
from ctrldecode.grammar import Grammar
from ctrldecode.guidance import GeDi
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tests.toys import EOS, PAD, SIZE, Automaton, Counting, Table, tiny_llama

NEW = 8


class Oracle(LogitsProcessor):
    """What the processor should return, from scratch for every row at every call."""

    def __init__(self, potential, length, mask=None, budget=NEW):
        self.potential, self.length, self.mask, self.budget = potential, length, mask, budget

    def __call__(self, input_ids, scores):
        out = torch.log_softmax(scores.float(), -1)
        if input_ids.shape[1] - self.length < self.budget:
            for row in range(len(out)):
                out[row] += self.weights(input_ids, row)
        return out

    def weights(self, ids, row):
        potential, mask = self.potential, self.mask
        if potential.rows is not None:
            potential = potential.potentials[row * potential.rows // len(ids)]
        if mask is not None:
            mask = mask[row * len(mask) // len(ids)][None].bool()
        state = potential.init(ids[row : row + 1, : self.length], mask, torch.tensor([self.budget]))
        for token in ids[row, self.length :]:
            if potential.log_weights(state)[0, token] == -math.inf:
                return torch.zeros(potential.size)  # a beam that is dead already
            state = potential.step(state, token[None])
        return potential.log_weights(state)[0]


def ratio():
    lms = [CausalLM(tiny_llama(seed), eos_token_ids=[EOS]) for seed in (1, 2)]
    return (lms[0] / lms[1]) ** 0.3


def gedi():
    return GeDi(CausalLM(tiny_llama(1)), {"x": [7], "y": [8, 9]}, target="x", strength=8.0, scale=2.0)


POTENTIALS = {
    "class posterior": gedi,
    "table": Table,
    "automaton": Automaton,
    "class model": ratio,
    "product": lambda: Table(seed=3, hard=0.0) ** 0.5 * Automaton(modulus=2) * ratio(),
}
MODES = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True},
    "return sequences": {"do_sample": True, "num_return_sequences": 3},
    "beams, return sequences": {"num_beams": 4, "num_return_sequences": 2},
}
DRAFTS = {
    "assisted": {"assistant_model": 4},
    "light drafts": {"assistant_model": 4, "light": True},
    "assisted sampling": {"assistant_model": 4, "do_sample": True},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "prompt lookup sampling": {"prompt_lookup_num_tokens": 2, "do_sample": True},
}


def prompts(rows=2, length=5, seed=0):
    return torch.randint(3, SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))


def generate(ids, processor, mask=None, new=NEW, seed=0, **mode):
    if "assistant_model" in mode:
        draft = tiny_llama(mode["assistant_model"])
        mode["assistant_model"] = light(draft) if mode.pop("light", False) else draft
    mask = torch.ones_like(ids) if mask is None else mask.long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tiny_llama().generate(
            ids,
            attention_mask=mask,
            max_new_tokens=new,
            logits_processor=[processor],
            return_dict_in_generate=True,
            output_scores=True,
            **mode,
        )


def agree(ids, potential, processor, mask=None, new=NEW, seed=0, **mode):
    got = generate(ids, processor, mask, new, seed, **dict(mode))
    want = generate(ids, Oracle(potential, ids.shape[1], mask, new), mask, new, seed, **dict(mode))
    assert got.sequences.tolist() == want.sequences.tolist()
    assert len(got.scores) == len(want.scores)
    for mine, theirs in zip(got.scores, want.scores, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)
    return got.sequences


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", POTENTIALS)
def test_every_mode_of_generate_agrees_with_the_oracle(name, mode):
    potential = POTENTIALS[name]()
    agree(prompts(), potential, ControlProcessor(potential, max_new_tokens=NEW), **MODES[mode])


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("name", POTENTIALS)
def test_drafting_agrees_with_the_oracle(name, mode):
    potential = POTENTIALS[name]()
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    agree(ids, potential, ControlProcessor(potential, max_new_tokens=NEW), **DRAFTS[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["table", "class model", "class posterior"])
def test_left_padding_agrees_with_the_oracle(name, mode):
    potential = POTENTIALS[name]()
    ids = prompts(3, 6, seed=1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :3] = mask[1, :1] = False
    ids[~mask] = PAD
    processor = ControlProcessor(potential, max_new_tokens=NEW, attention_mask=mask)
    agree(ids, potential, processor, mask, **MODES[mode])


@pytest.mark.parametrize("mode", MODES)
def test_identical_prompts_can_have_different_constraints(mode):
    potential = per_row([Automaton(modulus=2), Table(seed=5), Automaton(modulus=4)])
    ids = prompts(1).repeat(3, 1)
    agree(ids, potential, ControlProcessor(potential, max_new_tokens=NEW), **MODES[mode])


@pytest.mark.parametrize("mode", MODES)
def test_hard_constraints_hold_within_the_budget(mode):
    potential = Automaton(modulus=4)
    sequences = generate(prompts(), ControlProcessor(potential, max_new_tokens=NEW), **MODES[mode]).sequences
    assert all(potential.accepts(row[5:].tolist()) for row in sequences)


def test_rows_that_end_early_stay_neutral():
    potential = Table(hard=0.0)
    potential.table[:, EOS] = torch.linspace(-1, 6, potential.states)
    ids = prompts(6)
    sequences = agree(ids, potential, ControlProcessor(potential, max_new_tokens=NEW), do_sample=True)
    lengths = {row.tolist().index(EOS, 5) if EOS in row[5:] else None for row in sequences}
    assert len(lengths) > 2


def test_one_instance_serves_many_calls():
    potential = Table(seed=8)
    processor = ControlProcessor(potential, max_new_tokens=NEW)
    first = agree(prompts(2), potential, processor)
    agree(prompts(2), potential, processor)  # the same prompts
    agree(prompts(2), potential, processor, do_sample=True, seed=1)
    agree(prompts(2, seed=1), potential, processor)  # others
    agree(prompts(3, 3, seed=2), potential, processor, num_beams=2)  # shorter
    agree(prompts(1, 9, seed=3), potential, processor)  # longer
    agree(prompts(2), potential, processor)  # the first ones again
    processor.begin()  # all of an earlier output: by content alone, the generation before might go on
    agree(first, potential, processor)
    longer = torch.cat([first, prompts(2, 3, seed=4)], dim=1)
    agree(longer, potential, processor, num_beams=3)  # an earlier output and more


def test_begin_forgets():
    potential = Table(seed=8)
    processor = ControlProcessor(potential, max_new_tokens=NEW)
    part = generate(prompts(), processor, new=4).sequences[:, :-1]
    processor.begin()
    agree(part, potential, processor)


@pytest.mark.parametrize("new", [2, 3, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_prompt_lookup_may_draft_past_the_budget(new, masked):
    lengths = []

    class Spy(ControlProcessor):
        def __call__(self, input_ids, scores):
            lengths.append(input_ids.shape[1])
            return super().__call__(input_ids, scores)

    potential = Table(hard=0.0)
    ids = torch.tensor([[9, 4, 6, 4, 9, 4, 6, 4, 9, 4, 6, 4, 9, 4, 6, 4]])
    mask = torch.ones_like(ids) if masked else None
    processor = Spy(potential, max_new_tokens=new, attention_mask=mask, eos_token_ids=[EOS])
    sequences = agree(ids, potential, processor, new=new, prompt_lookup_num_tokens=10)
    assert processor.report(sequences)[0].steps == sequences.shape[1] - 16
    assert max(lengths) >= 16 + new  # otherwise no draft ran past the budget, and nothing was tested


def letters(text, **settings):
    """A grammar over the tokens a, b and the end of text."""
    potential = Grammar(text).compile(Vocabulary([b"a", b"b", None], {2}))
    return ControlProcessor(potential, eos_token_ids=[2], **settings)


def allowed(processor, *rows):
    return [
        torch.isfinite(row).nonzero().flatten().tolist()
        for row in processor(torch.tensor(rows), torch.zeros(len(rows), 3))
    ]


def test_a_forbidden_token_makes_a_new_prompt():
    processor = letters('start: "a" "b"', max_new_tokens=5)
    assert allowed(processor, [1]) == [[0]]
    assert allowed(processor, [1, 1]) == [[0]]  # b was forbidden, so [1, 1] is a prompt, and the text begins after it
    assert allowed(processor, [1, 1, 0]) == [[1]]
    assert allowed(processor, [1, 1, 0, 1]) == [[2]]
    (report,) = processor.report(torch.tensor([[1, 1, 0, 1, 2]]))
    assert report.steps == 3
    assert allowed(processor, [1, 0], [1, 0]) == [
        [0],
        [0],
    ]  # another batch, though its rows continue prefixes seen before


def test_new_prompts_of_which_only_some_took_a_forbidden_token():
    processor = letters('start: "a" "b"', max_new_tokens=5)
    assert allowed(processor, [1, 0], [1, 1]) == [[0], [0]]
    assert allowed(processor, [1, 0, 0], [1, 1, 1]) == [[1], [0]]
    assert allowed(processor, [1, 0, 0, 1], [1, 1, 1, 0]) == [[2], [1]]


def test_a_refused_draft_does_not_disturb_what_goes_on():
    processor = letters('start: "a" "b" "a"', max_new_tokens=5)
    assert [allowed(processor, row) for row in ([1], [1, 1], [1, 1, 1])] == [[[0]]] * 3  # a draft of forbidden tokens
    assert allowed(processor, [1, 0]) == [[1]]
    assert allowed(processor, [1, 0, 1]) == [[0]]


def test_past_the_budget_only_the_end_is_allowed():
    processor = letters('start: "a"+', max_new_tokens=3)
    rows = [1], [1, 0], [1, 0, 0], [1, 0, 0, 0]
    assert [allowed(processor, row) for row in rows] == [[[0]], [[0, 2]], [[0, 2]], [[2]]]


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_holds_almost_nothing_only_costs_time(mode):
    potential = Table(hard=0.1)
    processor = ControlProcessor(potential, max_new_tokens=NEW, store_bytes=1)
    agree(prompts(), potential, processor, **MODES[mode])
    assert len(processor._seen._store) <= 2


@pytest.mark.parametrize("mode", DRAFTS)
def test_drafting_with_a_store_that_holds_almost_nothing(mode):
    potential = Table(hard=0.1)
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    agree(ids, potential, ControlProcessor(potential, max_new_tokens=NEW, store_bytes=1), **DRAFTS[mode])


@pytest.mark.parametrize("mode", MODES)
def test_one_step_a_token(mode):
    potential = Counting(Table(hard=0.0))
    potential.inner.table[:, EOS] = -math.inf
    generate(prompts(), ControlProcessor(potential, max_new_tokens=NEW), **MODES[mode])
    assert (potential.inits, potential.steps) == (1, NEW - 1)


def test_a_draft_costs_no_step_twice():
    potential = Counting(Table(hard=0.0))
    potential.inner.table[:, EOS] = -math.inf
    calls = set()

    class Spy(ControlProcessor):
        def __call__(self, input_ids, scores):
            calls.add(tuple(input_ids[0].tolist()))
            return super().__call__(input_ids, scores)

    generate(prompts(1), Spy(potential, max_new_tokens=NEW), assistant_model=4)
    assert potential.steps == len(calls) - 1  # all but the prompt


def test_with_a_store_that_holds_almost_nothing_a_round_of_drafting_costs_the_same_however_long_the_text_is():
    potential = Counting(Table(seed=2, hard=0.0))
    processor = ControlProcessor(potential, store_bytes=1)  # keeps the prompts, the newest batch and where rounds begin
    drafted, accepted, costs = 4, 2, []
    ids = prompts(1, 60, seed=6)
    processor(ids[:, :4], torch.zeros(1, SIZE))
    for start in range(5, 50, accepted + 1):
        before = potential.steps
        for length in [
            *range(start, start + drafted),
            *range(start, start + drafted + 1),
        ]:  # the draft, its verification
            processor(ids[:, :length], torch.zeros(1, SIZE))
        costs.append(potential.steps - before)
    assert max(costs[1:]) <= drafted - 1 + drafted + accepted + 1  # draft and verification step anew, once each


def test_hand_made_calls_may_permute_rows_and_jump_back_with_one():
    potential = Table(seed=2, hard=0.0)
    processor = ControlProcessor(potential, max_new_tokens=NEW)
    oracle = Oracle(potential, 4)
    ids = prompts(3, 9, seed=6)
    for rows, length in [
        ([0, 1, 2], 4),
        ([2, 0, 1], 5),
        ([0, 1, 2], 6),
        ([2, 2, 0, 1], 7),
        ([0, 2], 8),
        ([1], 6),
        ([1], 7),
        ([1], 5),
        ([1, 1], 4),
    ]:
        scores = torch.randn(len(rows), SIZE)
        assert torch.allclose(processor(ids[rows, :length], scores), oracle(ids[rows, :length], scores), atol=1e-5)


def test_rows_are_replayed_from_where_each_was_kept():
    potential = Table(seed=2, hard=0.0)
    processor = ControlProcessor(potential, max_new_tokens=NEW, store_bytes=1)  # keeps the prompts and the newest batch
    oracle = Oracle(potential, 4)
    ids = prompts(3, 9, seed=6)
    for rows, length in [
        ([0, 1, 2], 4),
        ([0, 1, 2], 5),
        ([0, 1, 2], 6),
        ([0], 6),
        ([0], 7),
        ([2], 5),
        ([2], 6),
        ([1], 7),
    ]:
        scores = torch.randn(len(rows), SIZE)
        assert torch.allclose(processor(ids[rows, :length], scores), oracle(ids[rows, :length], scores), atol=1e-5)


def test_the_same_ids_behind_another_prompt_are_another_state():
    potential = Table(hard=0.1)
    plain = generate(prompts(), ControlProcessor(potential, max_new_tokens=NEW)).sequences
    processor = ControlProcessor(potential, max_new_tokens=NEW)
    agree(plain[:, :6], potential, processor)
    agree(plain[:, :5], potential, processor)  # meets the ids of the call before, with another budget


def test_the_processor_has_exactly_two_parameters_and_leaves_scores_alone():
    processor = ControlProcessor(Table())
    assert list(inspect.signature(processor.__call__).parameters) == ["input_ids", "scores"]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        scores = torch.randn(2, SIZE).to(dtype)
        before = scores.clone()
        out = processor(prompts(), scores)
        assert out.dtype == torch.float32
        assert torch.equal(scores, before)


# ------------------------------------------------------------------------------------------------------------- weights


def test_importance_weights_have_the_partition_function_as_their_mean():
    size, eos, new = 5, 0, 4
    potential = Table(size, states=4, seed=1, hard=0.25, eos=eos)
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(0)) * 2
    prompt = [3, 1]

    def texts(prefix=()):
        if len(prefix) == new or (prefix and prefix[-1] == eos):
            yield prefix
        else:
            for token in range(size):
                yield from texts((*prefix, token))

    def scores(prefix):
        return logits[sum((i + 2) * t for i, t in enumerate(prefix)) % 7][None]

    processor = ControlProcessor(potential, max_new_tokens=new, eos_token_ids=[eos], on_dead_end="raise")
    mean = total = 0.0
    for text in texts():
        state = potential.init(torch.tensor([prompt]), None, torch.tensor([new]))
        log_p = log_psi = log_q = 0.0
        for at, token in enumerate(text):
            out = processor(torch.tensor([[*prompt, *text[:at]]]), scores(text[:at]))
            log_q += float(out.log_softmax(-1)[0, token])
            log_p += float(scores(text[:at]).log_softmax(-1)[0, token])
            log_psi += float(potential.log_weights(state)[0, token])
            state = potential.step(state, torch.tensor([token]))
            if log_psi == -math.inf:
                break
        if log_psi == -math.inf:
            continue
        (report,) = processor.report(torch.tensor([[*prompt, *text]]))
        assert report.log_weight == pytest.approx(log_p + log_psi - log_q, abs=1e-4)
        assert report.steps == len(text)
        total += math.exp(log_p + log_psi)
        mean += math.exp(log_q + report.log_weight)
    assert mean == pytest.approx(total, rel=1e-5)


def test_the_report_counts_what_was_masked_and_ends_at_the_end_of_sequence():
    potential = Automaton(modulus=2)
    ids = prompts(3)
    processor = ControlProcessor(potential, max_new_tokens=NEW, eos_token_ids=[EOS])
    output = generate(ids, processor, do_sample=True)
    model = tiny_llama()
    for row, report in zip(output.sequences, processor.report(output.sequences), strict=True):
        text = row[5:].tolist()
        text = text[: text.index(EOS) + 1]
        state = potential.init(row[None, :5], None, torch.tensor([NEW]))
        log_weight = 0.0
        for at, token in enumerate(text):
            probs = model(row[None, : 5 + at]).logits[0, -1].detach().softmax(-1)
            forbidden = potential.log_weights(state)[0].isneginf()
            assert report.masked[at].tokens == int(forbidden.sum())
            assert report.masked[at].mass == pytest.approx(float(probs[forbidden].sum()), abs=1e-5)
            log_weight += math.log(float(probs[~forbidden].sum()))
            state = potential.step(state, torch.tensor([token]))
        assert report.steps == len(text)
        assert not report.dead_end
        assert report.log_weight == pytest.approx(log_weight, abs=1e-3)


def test_reports_agree_with_and_without_sequences_and_with_padding():
    potential = Table(hard=0.2)
    for eos in ([], [EOS]):
        processor = ControlProcessor(potential, max_new_tokens=NEW, eos_token_ids=eos)
        output = generate(prompts(4), processor, do_sample=True)
        pairs = list(zip(processor.report(), processor.report(output.sequences), strict=True))
        assert len(pairs) == 4
        assert all(a.log_weight == b.log_weight for a, b in pairs)
        weights = [b.log_weight for _, b in pairs]
    processor = ControlProcessor(potential, max_new_tokens=NEW, store_bytes=1)
    output = generate(prompts(4), processor, do_sample=True)
    assert [r.log_weight for r in processor.report(output.sequences)] == pytest.approx(weights)


def test_reports_of_drafted_text_use_the_target_model():
    potential = Table(hard=0.2)
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    plain = ControlProcessor(potential, max_new_tokens=NEW, eos_token_ids=[EOS])
    want = plain.report(generate(ids, plain).sequences)[0].log_weight
    for mode in ({"assistant_model": 4}, {"prompt_lookup_num_tokens": 3}):
        processor = ControlProcessor(potential, max_new_tokens=NEW, eos_token_ids=[EOS])
        output = generate(ids, processor, **mode)
        assert processor.report(output.sequences)[0].log_weight == pytest.approx(want, abs=1e-3)


def test_reports_of_unknown_rows_raise():
    processor = ControlProcessor(Table())
    with pytest.raises(InputError, match="not been called"):
        processor.report()
    output = generate(prompts(), processor).sequences
    with pytest.raises(InputError, match="do not begin with prompts"):
        processor.report(output + 1)
    with pytest.raises(InputError, match="is not known"):
        processor.report(torch.cat([output[:, :6], output[:, 6:] + 1], dim=1))


# ----------------------------------------------------------------------------------------------------- dead ends, support


class Trap(Table):
    """A table whose every token is forbidden after three new tokens."""

    def log_weights(self, state, tokens=None):
        weights = super().log_weights(state, tokens)
        dead = torch.tensor([len(past) == 3 for past in state.history]) & ~state.finished
        return weights.masked_fill(dead[:, None], -math.inf)


def test_a_dead_end_raises():
    trap = Trap(hard=0.0)
    trap.table[:, EOS] = -math.inf
    with pytest.raises(DeadEnd) as caught:
        generate(prompts(), ControlProcessor(trap))
    assert caught.value.row == 0
    assert len(caught.value.prefix) == 8
    assert "Trap" in str(caught.value)


def test_a_dead_end_can_stop_the_row():
    trap = Trap(hard=0.0)
    trap.table[:, EOS] = -math.inf
    processor = ControlProcessor(trap, on_dead_end="stop", eos_token_ids=[EOS])
    sequences = generate(prompts(), processor, do_sample=True).sequences
    assert sequences[:, 8].tolist() == [EOS, EOS]
    for report in processor.report(sequences):
        assert report.dead_end
        assert report.log_weight == -math.inf
        assert report.steps == 4


def test_a_dead_end_can_be_dropped():
    trap = Trap(hard=0.0)
    trap.table[:, EOS] = -math.inf
    out = torch.zeros(2, SIZE)
    processor = ControlProcessor(trap, on_dead_end="drop")
    ids = prompts(2, 8)
    for length in range(5, 9):
        out = processor(ids[:, :length], torch.randn(2, SIZE))
    assert bool(out.isneginf().all())


def test_beams_that_took_a_forbidden_token_are_no_dead_end():
    class Single(Automaton):  # only the token 3, and nothing after any other token
        def log_weights(self, state, tokens=None):
            weights = torch.full((len(state.left), self.size), -math.inf)
            weights[:, 3] = torch.where(state.where < 0, -math.inf, 0.0)
            weights[state.finished] = 0.0
            return weights if tokens is None else weights.gather(1, tokens)

    fed = []

    class Spy(ControlProcessor):
        def __call__(self, input_ids, scores):
            fed.extend(input_ids[:, 5:].flatten().tolist())
            return super().__call__(input_ids, scores)

    for mode in ({}, {"do_sample": True}):
        sequences = generate(prompts(1), Spy(Single(), on_dead_end="raise"), num_beams=4, **mode).sequences
        assert sequences[0, 5:].tolist() == [3] * NEW
    assert set(fed) > {3}  # beam sampling draws tokens of probability zero when there are no others


def test_support_is_applied_after_the_potential():
    def likely(log_probs, log_weights):
        total = log_probs + log_weights
        return total >= total.max(-1, keepdim=True).values - 1.0

    potential = Table(hard=0.2)
    processor = ControlProcessor(potential, max_new_tokens=NEW, support=Support(likely, "likely"))
    scores = torch.randn(2, SIZE)
    want = Oracle(potential, 5)(prompts(), scores)
    want[want < want.max(-1, keepdim=True).values - 1.0] = -math.inf
    assert torch.allclose(processor(prompts(), scores), want, atol=1e-5)
    (report, _) = processor.report()
    assert report.masked[0].tokens == int(want[0].isneginf().sum())


def test_an_empty_support_raises():
    nothing = Support(lambda log_probs, _: torch.zeros_like(log_probs, dtype=torch.bool), "nothing")
    with pytest.raises(PotentialError, match="nothing keeps no token"):
        ControlProcessor(Table(), support=nothing)(prompts(), torch.randn(2, SIZE))


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_dead_end": "stop"}, "eos_token_ids"),
        ({"on_dead_end": "ignore"}, "'raise', 'stop' or 'drop'"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"eos_token_ids": [SIZE]}, r"\[0, 50\)"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ControlProcessor(Table(), **arguments)


def test_a_mask_belongs_to_its_prompts():
    processor = ControlProcessor(Table(), attention_mask=torch.ones(2, 4))
    with pytest.raises(InputError, match="begin"):
        processor(prompts(2, 5), torch.randn(2, SIZE))
    with pytest.raises(InputError, match="begin"):
        processor(prompts(3, 4), torch.randn(3, SIZE))
    processor(prompts(4, 4), torch.randn(4, SIZE))
    with pytest.raises(InputError, match="begin"):
        processor(prompts(2, 4, seed=1), torch.randn(2, SIZE))
    processor.begin(attention_mask=torch.ones(2, 4))
    processor(prompts(2, 4, seed=1), torch.randn(2, SIZE))


def test_rows_that_cannot_be_told_apart_raise():
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    with pytest.raises(InputError, match="same ids but other padding"):
        ControlProcessor(Table(), attention_mask=mask)(ids, torch.randn(2, SIZE))


def test_wrong_widths_and_rows_raise():
    with pytest.raises(InputError, match="as wide as the potential"):
        ControlProcessor(Table())(prompts(), torch.randn(2, SIZE + 1))
    with pytest.raises(InputError, match="multiple"):
        ControlProcessor(per_row([Table(), Table()]))(prompts(3), torch.randn(3, SIZE))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_and_broken_scores_are_told_apart(bad):
    potential = Table(hard=0.0)
    potential.table[:, 7] = bad
    with pytest.raises(PotentialError, match="NaN or"):
        ControlProcessor(potential)(prompts(), torch.randn(2, SIZE))
    scores = torch.randn(2, SIZE)
    scores[1, 3] = bad
    with pytest.raises(InputError, match="row 1: the scores"):
        ControlProcessor(Table())(prompts(), scores)


# ---------------------------------------------------------------------------------------------------------------- store


def test_keys_tell_rows_lengths_and_salts_apart():
    rows = [np.array(row) for row in itertools.product(range(3), repeat=3)]
    keys = {key for row in rows for salt in (b"1.0", b"1.1") for key in prefix_keys(row, 0, salt)}
    assert len(keys) == 2 * (1 + 3 + 9 + 27)


def test_the_store_gathers_in_order_and_evicts_the_least_recently_used():
    store = PrefixStore(max_bytes=10**6, max_batches=2)
    for name in "ab":
        store.put([f"{name}{i}".encode() for i in range(3)], [f"{name}{i}" for i in range(3)])
    places = [store.find(key) for key in (b"b2", b"a0", b"b0", b"a0")]
    assert store.gather(places) == ["b2", "a0", "b0", "a0"]
    store.gather([store.find(b"a1")])
    store.put([b"c0"], ["c0"])
    assert store.find(b"b1") is None
    assert store.gather([store.find(b"a1")]) == ["a1"]


def test_state_bytes_counts_tensors_wherever_they_are():
    block = torch.zeros(100, dtype=torch.float32)
    state = (block, [block, (block, None)], {"unknown": 1})
    assert 1200 <= state_bytes(state) < 2000
