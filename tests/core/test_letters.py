"""Texts as letters, with a tokenizer that parts no text: each known piece is a token, and all else is unknown."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from ctrldecode.core._letters import letters
from ctrldecode.errors import InputError

PIECES = ["<unk>", "<|end|>", "<|calm|>", "a", "b"]


class Pieces:
    all_special_ids = (0, 1)
    unk_token_id = 0

    def __call__(self, texts, *, add_special_tokens, split_special_tokens):
        assert (add_special_tokens, split_special_tokens) == (False, True)
        found = [re.findall("|".join(map(re.escape, PIECES)) + "|.", text) for text in texts]
        return SimpleNamespace(input_ids=[[PIECES.index(one) if one in PIECES else 0 for one in row] for row in found])

    def convert_ids_to_tokens(self, token):
        return PIECES[token]


def test_letters_that_a_tokenizer_does_not_know_are_no_control_tokens():
    assert letters(Pieces(), ["aé", "b"]) == [[3, 0], [4]]


@pytest.mark.parametrize("spelled", ["<unk>", "<|end|>"])
def test_a_tokenizer_that_makes_control_tokens_all_the_same_is_told_of(spelled):
    with pytest.raises(InputError, match=f"text 8 of the data, which begins .*, has '{re.escape(spelled)}'"):
        letters(Pieces(), ["a", f"a{spelled}"], first=7)


def test_control_tokens_are_those_of_the_caller_too():
    assert letters(Pieces(), ["a<|calm|>"]) == [[3, 2]]
    with pytest.raises(InputError, match="text 1 of the data"):
        letters(Pieces(), ["a<|calm|>"], control=[2])
