from __future__ import annotations

from types import SimpleNamespace

import pytest

from ctrldecode.distill.recipe import Recipe, Samples
from ctrldecode.distill.source import source
from ctrldecode.errors import DistillationError
from tests.toys import EOS, SIZE, tiny_llama


class Tokenizer:
    """Ids by character: a is 3, b is 4 ...; ^ begins a text and $ ends it."""

    def __init__(self, begin: int | None = 1) -> None:
        self.bos_token_id = begin

    def __call__(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        assert not add_special_tokens
        special = {"^": 1, "$": EOS}
        return SimpleNamespace(input_ids=[special.get(letter, ord(letter) - ord("a") + 3) for letter in text])


def of(*prompts: str, length: int = 9, begin: int | None = 1, eos: tuple[int, ...] = (EOS,)):
    recipe = Recipe(samples=(Samples(300, length, prompts),), seed=3, temperature=0.5)
    return source(tiny_llama(), Tokenizer(begin), eos, recipe)


def test_prompts_lose_their_begin_token():
    made = of("ab", "^c", "")
    assert made.prompts == (((3, 4), (5,), ()),)
    assert (made.begin, made.size, made.width, made.seed, made.temperature) == (1, SIZE, 32, 3, 0.5)


def test_without_a_begin_token_the_end_begins():
    assert of("", begin=None).begin == EOS


def test_states_need_data():
    recipe = Recipe(states=101, clustered=10, samples=(Samples(300, 9, ("a",)),))
    with pytest.raises(DistillationError, match=r"101 states.*at most 100; ask for fewer --states"):
        source(tiny_llama(), Tokenizer(), (EOS,), recipe)


def test_what_cannot_be_sampled_is_told():
    with pytest.raises(DistillationError, match=r"no end-of-sequence token.*generation_config"):
        of("", eos=())
    with pytest.raises(DistillationError, match="'a\\$' has an end-of-sequence token"):
        of("a$")
    with pytest.raises(DistillationError, match="up to 257 tokens, do not fit into the 256"):
        of("", "ab", length=254)
    assert of("", "ab", length=253).prompts
