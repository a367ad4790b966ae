"""Tokens that no text may hold."""

from __future__ import annotations

import pytest
import torch

from ctrldecode.core import laws
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError
from ctrldecode.guidance import ForbiddenTokens, GeDi, without_codes
from tests.guidance.models import EOS, TableModel


@pytest.mark.parametrize("size", [3, 32, 33, 64, 70])
def test_weights_are_zero_where_tokens_are_forbidden(size):
    banned = {0, size - 2}
    potential = ForbiddenTokens(banned, size=size, eos_token_ids=[size - 1])
    state = potential.init(torch.tensor([[0], [1]]))
    want = [token in banned for token in range(size)]
    assert potential.log_weights(state).isneginf().tolist() == [want, want]
    scores = torch.zeros(2, size)
    potential.add_log_weights(state, scores)
    assert scores.isneginf().tolist() == [want, want]
    state = potential.step(state, torch.tensor([size - 1, 1]))
    assert potential.log_weights(state).isneginf().tolist() == [[False] * size, want]


def test_the_laws_hold():
    laws.check(ForbiddenTokens([1, 3], size=5, eos_token_ids=[EOS]), eos_token_ids=[EOS])


def test_control_tokens_of_codes_are_forbidden_and_words_are_not():
    vocabulary = Vocabulary([b"a", None, b"c", None, None, None], eos_token_ids=[EOS])
    gedi = GeDi(TableModel(size=8), {"x": [1], "y": [2, 3], "z": [7, EOS]}, target="x", vocabulary=vocabulary)
    assert without_codes(gedi, vocabulary).tokens == (1, 3)


def test_fingerprints_tell_them_apart():
    made = [([1], 5), ([2], 5), ([1], 6), ([], 5)]
    assert len({ForbiddenTokens(ids, size=size, eos_token_ids=[4]).fingerprint for ids, size in made}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [5]}, r"tokens must lie in \[0, 5\), got \[5\]"),
        ({"tokens": ["x"]}, "tokens must be a list of token ids"),
        ({"size": 0}, "size must be a whole number"),
        ({"eos_token_ids": [9]}, "eos_token_ids must lie in"),
    ],
)
def test_wrong_arguments(arguments, message):
    said = {"tokens": [1], "size": 5, "eos_token_ids": [4], **arguments}
    with pytest.raises(InputError, match=message):
        ForbiddenTokens(said.pop("tokens"), **said)
