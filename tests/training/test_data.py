"""Codes, encoding, splits and orders."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import pytest

from ctrldecode.errors import InputError
from ctrldecode.training.codes import Codes
from ctrldecode.training.data import BalancedOrder, Text, collate, encode, split
from tests.training.toy_texts import CODES, separable


def test_codes_are_special_tokens_if_there_are_such(tinytales_tokenizer) -> None:
    found = Codes.of(tinytales_tokenizer, ["happy", "sad"])
    assert (found.ids, found.start) == (((1,), (2,)), (0,))
    assert found.prefixes == ((0, 1), (0, 2))


def test_codes_are_words_else(tinytales_tokenizer) -> None:
    found = Codes.of(tinytales_tokenizer, ["garden", "happy"])
    assert [tinytales_tokenizer.decode(ids) for ids in found.ids] == [" garden", "<|happy|>"]


@pytest.mark.parametrize("names", [[], ["happy"], ["happy", "happy"], ["happy", ""]])
def test_names_that_are_wrong(tinytales_tokenizer, names) -> None:
    with pytest.raises(InputError, match="two or more different names"):
        Codes.of(tinytales_tokenizer, names)


def test_codes_that_are_one(tinytales_tokenizer) -> None:
    with pytest.raises(InputError, match=r"codes must differ in their tokens, got happy \[1\]"):
        Codes.of(tinytales_tokenizer, ["happy", "<|happy|>"])


def test_encode_ends_and_cuts(tinytales_tokenizer) -> None:
    texts = encode(tinytales_tokenizer, ["A dog.", "A dog ran and ran and ran."], [1, 0], CODES, 0, 8)
    assert texts[0] == Text([*tinytales_tokenizer("A dog.").input_ids, 0], 1)
    assert texts[1] == Text(tinytales_tokenizer("A dog ran and ran").input_ids[:5], 0)
    with pytest.raises(InputError, match="codes take 3 of 4 positions"):
        encode(tinytales_tokenizer, ["A"], [0], CODES, 0, 4)


def test_codes_in_texts_are_letters(tinytales_tokenizer) -> None:
    text = "A <|happy|> dog.<|endoftext|>"
    codes = Codes.of(tinytales_tokenizer, ["happy", "sad"])
    (found,) = encode(tinytales_tokenizer, [text], [0], codes, 0, 512)
    assert tinytales_tokenizer.decode(found.tokens[:-1]) == text
    assert found.tokens[-1] == 0
    assert not {0, 1, 2, 3}.intersection(found.tokens[:-1])
    assert {0, 1}.issubset(tinytales_tokenizer(text).input_ids)  # as prompts are read


def test_control_tokens_that_cannot_be_letters(tinytales_tokenizer) -> None:
    tokenizer = deepcopy(tinytales_tokenizer)
    tokenizer.add_tokens(["<|calm|>"])  # no special one
    codes = Codes.of(tokenizer, ["calm", "happy"])
    with pytest.raises(InputError, match=r"text 2 of the data, which begins 'a <\|calm\|> sea', has '<\|calm\|>'"):
        encode(tokenizer, ["a sea", "a <|calm|> sea"], [0, 1], codes, 0, 512)
    assert len(encode(tokenizer, ["calm and happy"], [0], Codes.of(tokenizer, ["calm", "happy"]), 0, 512)) == 1


def test_codes_that_begin_or_end_texts(tinytales_tokenizer) -> None:
    with pytest.raises(
        InputError, match=r"the code of 'endoftext' would be '<\|endoftext\|>', which begins, ends or pads"
    ):
        Codes.of(tinytales_tokenizer, ["endoftext", "happy"])


def test_split_is_of_each_class_and_seeded() -> None:
    texts = separable()
    kept, held = split(texts, CODES.names, 0.2, 0)
    assert Counter(text.label for text in held) == {0: 16, 1: 8}
    assert sorted(kept + held) == sorted(texts)
    assert split(texts, CODES.names, 0.2, 0) == (kept, held)
    assert split(texts, CODES.names, 0.2, 1) != (kept, held)
    with pytest.raises(InputError, match="class 'wild' has 1 texts; wanted at least 2"):
        split([*texts[1:3], texts[0]], CODES.names, 0.2, 0)


def test_order_is_balanced_and_new_in_every_epoch() -> None:
    texts = separable()
    order = BalancedOrder(texts, 7, 0)
    first, again = list(order), list(order)
    assert len(first) == len(order) == len(set(first)) == 80
    assert Counter(texts[row].label for row in first) == {0: 40, 1: 40}
    assert first == again
    order.set_epoch(1)
    assert list(order) != first
    everything = BalancedOrder(texts, 7, 0, balance=False)
    assert sorted(everything) == list(range(120))
    assert len(everything) == 120


def test_batches_have_texts_of_like_length() -> None:
    texts = separable()
    order = list(BalancedOrder(texts, 8, 0))
    spreads = []
    for start in range(0, 80, 8):
        lengths = [len(texts[row].tokens) for row in order[start : start + 8]]
        spreads.append(max(lengths) - min(lengths))
    assert sum(spreads) <= 10


def test_collate() -> None:
    fields = collate([Text([5, 6, 2], 1), Text([2], 0)])
    assert fields["tokens"].tolist() == [[5, 6, 2], [2, 0, 0]]
    assert fields["lengths"].tolist() == [3, 1]
    assert fields["labels"].tolist() == [1, 0]
