"""Log-probabilities of chosen tokens in reports: those of the scores that came in, or NaN, whoever writes over the scores later."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.potential import Support
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.processor import ControlProcessor
from tests.test_processor import DRAFTS, NEW, POTENTIALS, generate
from tests.toys import EOS, PAD, SIZE, Table, tiny_llama

PROMPT = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("inference", [False, True])
def test_what_is_known_of_drafts_is_what_the_model_said(mode, inference):
    known = 0
    for make in POTENTIALS.values():
        processor = ControlProcessor(make(), max_new_tokens=NEW, eos_token_ids=[EOS])
        with torch.inference_mode(inference):
            sequences = generate(PROMPT, processor, **dict(DRAFTS[mode])).sequences
        (row,) = processor.report(sequences)
        with torch.no_grad():
            log_probs = tiny_llama()(sequences).logits.log_softmax(-1)[0]
        for at, (token, found) in enumerate(zip(row.tokens, row.log_probs, strict=True), PROMPT.shape[1] - 1):
            assert math.isnan(found) or found == pytest.approx(float(log_probs[at, token]), abs=1e-4)
            known += not math.isnan(found)
    assert known


def test_scores_that_are_written_over_are_not_known_any_more():
    processor = ControlProcessor(Table(hard=0.0))
    ids, scores = torch.tensor([[5, 6], [7, 8]]), torch.zeros(2, SIZE)
    scores[:] = processor(ids, scores)
    longer = torch.tensor([[5, 6, 9], [7, 8, 9]])
    processor(longer, torch.zeros(2, SIZE))
    assert all(math.isnan(row.log_probs[0]) for row in processor.report())
    processor(torch.cat([longer, longer[:, :1]], 1), torch.zeros(2, SIZE))
    assert [row.log_probs[1] for row in processor.report()] == pytest.approx([-math.log(SIZE)] * 2, abs=1e-4)


HARD = {
    "mask": lambda hmm, automaton: AutomatonPotential(automaton),
    "exact lookahead": lambda hmm, automaton: Lookahead(hmm, automaton, max_new_tokens=4, limit="open"),
    "no detail, a power": lambda hmm, automaton: (
        Lookahead(hmm, automaton, max_new_tokens=4, limit="open", detail=0) ** 1.5
    ),
    "patience": lambda hmm, automaton: Lookahead(
        hmm, automaton, max_new_tokens=4, limit="open", detail=0.2, patience=8, urgency=0.8
    ),
}


@pytest.mark.parametrize("make", HARD.values(), ids=HARD)
@pytest.mark.parametrize("support", [None, Support(lambda log_probs, _: torch.arange(log_probs.shape[-1]) != 0)])
def test_ratios_weigh_samples_against_the_restricted_model_however_tokens_were_weighed(make, support):
    """Over all texts that can be sampled: the sum of q is 1, and the mean of p/q under q is the model's probability of them."""
    size, length = 5, 4
    automaton = TokenDFA(
        [[0, 0, -1, 1, 0], [1, 0, -1, 1, 1]], start=0, accepting=[1], eos_token_ids=[EOS]
    )  # 3, not then 1
    hmm = HMM([0.6, 0.4, 0], [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0, 0, 1]],
              [[0.3, 0.3, 0, 0.1, 0.3], [0.1, 0.2, 0, 0.6, 0.1], [0, 0, 1, 0, 0]], eos_token_ids=[EOS])  # fmt: skip
    texts = [
        [*body, *([EOS] if n < length else [])] + [PAD] * (length - n - 1)
        for n in range(length + 1)
        for body in itertools.product([0, 1, 3, 4] if support is None else [1, 3, 4], repeat=n)
        if automaton.accepts_tokens(list(body))
    ]
    prompt = torch.tensor([[1, 4]])
    sequences = torch.cat([prompt.expand(len(texts), -1), torch.tensor(texts)], 1)
    processor = ControlProcessor(make(hmm, automaton), max_new_tokens=length, eos_token_ids=[EOS], support=support)
    with torch.no_grad():
        logits = tiny_llama(size=size)(sequences).logits
    log_p = torch.zeros(len(texts), dtype=torch.float64)
    for at in range(2, 2 + length):
        processor(sequences[:, :at], logits[:, at - 1].clone())
        going = ~(sequences[:, 2:at] == EOS).any(1)
        log_p += going * logits[:, at - 1].double().log_softmax(-1).gather(1, sequences[:, at, None])[:, 0]
    rows = processor.report(sequences)
    log_q = torch.tensor([math.fsum(row.log_sampled) for row in rows], dtype=torch.float64)
    log_ratios = torch.tensor([row.log_ratio for row in rows], dtype=torch.float64)
    assert float(log_q.exp().sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(log_ratios, log_p - log_q, atol=1e-5, rtol=0)


@pytest.mark.parametrize("low", [-1e9, torch.finfo(torch.float32).min])
def test_scores_of_tokens_that_are_masked_by_a_number_do_not_swallow_the_total(low):
    processor = ControlProcessor(Table(hard=0.0))
    ids, scores = torch.tensor([[5, 6], [7, 8]]), torch.randn(2, SIZE, generator=torch.Generator().manual_seed(0))
    scores[:, 0] = low
    processor(ids, scores)
    found = processor.report(torch.cat([ids, torch.tensor([[9], [9]])], 1))
    expected = scores.log_softmax(-1)[:, 9].tolist()
    assert [row.log_probs[0] for row in found] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "make", [AutomatonPotential, lambda automaton: AutomatonPotential(automaton) * Table(hard=0.0)]
)
@pytest.mark.parametrize("ends", [[EOS], [EOS, 4]])
@pytest.mark.parametrize("mode", ["stop", "drop"])
def test_at_a_dead_end_the_model_is_asked_and_only_ends_can_be_sampled(make, ends, mode):
    row = [-1] * 3 + [1] + [-1] * (SIZE - 4)
    automaton = TokenDFA([row, row], start=0, accepting=[1], eos_token_ids=[EOS])  # only 3, once or more
    processor = ControlProcessor(make(automaton), on_dead_end=mode, eos_token_ids=ends)
    ids, scores = torch.tensor([[5, 6], [7, 8]]), torch.randn(2, SIZE, generator=torch.Generator().manual_seed(0))
    scores[0, 3] = -math.inf
    out = processor(ids, scores)
    dead, alive = processor.report(torch.cat([ids, torch.tensor([[EOS], [3]])], 1))
    assert (dead.dead_end, alive.dead_end) == (True, False)
    assert dead.log_ratio == dead.log_weight == -math.inf
    expected = scores.log_softmax(-1)
    assert dead.log_probs == pytest.approx([float(expected[0, EOS])], abs=1e-5)
    assert alive.log_probs == pytest.approx([float(expected[1, 3])], abs=1e-5)
    assert dead.log_sampled == ((-math.log(len(ends)),) if mode == "stop" else (-math.inf,))
    assert alive.log_sampled == pytest.approx([float(out[1].log_softmax(-1)[3])], abs=1e-5)


def test_padding_that_is_impossible_changes_no_ratio():
    processor = ControlProcessor(Table(hard=0.0), max_new_tokens=4)
    ids, scores = torch.tensor([[5, 6]]), torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0))
    processor(ids, scores)
    ended = torch.cat([ids, torch.tensor([[EOS]])], 1)
    scores = scores.clone()
    scores[:, PAD] = -math.inf
    processor(ended, scores)
    (row,) = processor.report(torch.cat([ended, torch.tensor([[PAD]])], 1))
    assert row.log_ratio == pytest.approx(row.log_probs[0] - row.log_sampled[0])


def test_a_token_that_was_forbidden_has_no_ratio():
    row = [-1] * 3 + [0] + [-1] * (SIZE - 4)
    processor = ControlProcessor(AutomatonPotential(TokenDFA([row], start=0, accepting=[0], eos_token_ids=[EOS])))
    ids = torch.tensor([[5, 6], [7, 8]])
    processor(ids, torch.zeros(2, SIZE))
    good, bad = processor.report(torch.cat([ids, torch.tensor([[3], [4]])], 1))
    assert good.log_ratio == pytest.approx(good.log_weight)
    assert math.isnan(bad.log_ratio)
