"""Evidence divided by at least so many tokens: against the definition, for every text."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ctrldecode.core import laws
from ctrldecode.core.language_model import replay
from ctrldecode.guidance import GeDi
from tests.guidance.models import CODES, EOS, SIZE, TableModel


def texts(length):
    """Every text of at most `length` tokens, ended or not."""
    every = (text for count in range(length + 1) for text in itertools.product(range(SIZE), repeat=count))
    return [text for text in every if EOS not in text[:-1]]


def by_definition(lm, prompt, text, *, least, scale, counted):
    """P(c | text), a list: evidence of prompt and text, or of the text alone, over max(n, least)."""
    scores = []
    for code in CODES.values():
        row, evidence = [*code, *prompt], []
        if counted:
            evidence = [lm.log_probs([*code, *prompt[:at]])[token] for at, token in enumerate(prompt)]
        for token in text:
            evidence.append(lm.log_probs(row)[token])
            row.append(token)
        scores.append(math.exp(scale * sum(evidence) / max(len(evidence), least)))
    return [score / sum(scores) for score in scores]


@pytest.mark.parametrize("least", [1, 2, 3, 9])
@pytest.mark.parametrize("counted", [False, True])
def test_posteriors_and_weights_are_those_of_the_definition_for_every_text(least, counted):
    lm, prompt, every = TableModel(), [1, 2], texts(4)
    gedi = GeDi(lm, CODES, target="b", strength=1.5, scale=3.0, count_prompt=counted, least=least)
    state = replay(gedi, gedi.init(torch.tensor([prompt]).repeat(len(every), 1)), every)
    posteriors = gedi.log_posteriors(state).exp()
    weights = gedi.log_weights(state)
    for row, text in enumerate(every):
        want = by_definition(lm, prompt, text, least=least, scale=3.0, counted=counted)
        assert posteriors[row].tolist() == pytest.approx(want, abs=1e-5)
        for token in range(SIZE) if EOS not in text else ():
            after = by_definition(lm, prompt, (*text, token), least=least, scale=3.0, counted=counted)
            assert float(weights[row, token]) == pytest.approx(1.5 * math.log(after[1] / want[1]), abs=1e-4)


def test_the_laws_hold():
    laws.check(GeDi(TableModel(), CODES, target="a", least=3), eos_token_ids=[EOS], prompts=torch.tensor([[1, 2]]))


def test_it_has_no_effect_where_evidence_is_not_normalised_but_a_fingerprint_of_its_own():
    one, two = (GeDi(TableModel(), CODES, target="a", normalise=False, least=least) for least in (1, 7))
    states = [gedi.step(gedi.init(torch.tensor([[1]])), torch.tensor([2])) for gedi in (one, two)]
    assert torch.equal(one.log_weights(states[0]), two.log_weights(states[1]))
    assert one.fingerprint != two.fingerprint
