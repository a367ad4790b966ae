"""Log-probabilities of chosen tokens in reports: those of the scores that came in, or NaN, whoever writes over the scores later."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode.processor import ControlProcessor
from tests.test_processor import DRAFTS, NEW, POTENTIALS, generate
from tests.toys import EOS, SIZE, Table, tiny_llama

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
