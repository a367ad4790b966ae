"""Every shipped grammar, compiled: its golden texts, and random walks under real and small vocabularies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.grammar.grammar import Grammar
from tests.grammars import golden

if TYPE_CHECKING:
    from pathlib import Path

    from ctrldecode.grammar.potential import GrammarPotential

BYTES = Vocabulary([*(bytes([b]) for b in range(256)), None], {256})
BUDGET_ABOVE_SHORTEST = 12
WALKS = 5


@pytest.fixture(scope="module", params=golden.names())
def grammar(request: pytest.FixtureRequest) -> Grammar:
    return Grammar.from_file(golden.FOLDER / f"{request.param}.lark")


def test_golden_texts(grammar: Grammar) -> None:
    potential = grammar.compile(BYTES)
    for wanted, suffix in ((True, "accept"), (False, "reject")):
        for text in golden.read(golden.FOLDER / f"{grammar.name}.{suffix}"):
            assert potential.accepts(text) == wanted, text


@pytest.mark.parametrize("name", ["gpt2", "llama2", "qwen2"])
def test_real_tokenizers(grammar: Grammar, name: str, shared: Path) -> None:
    """The tokenizer's own tokens of every golden text are allowed one after the other, and random walks end in the language."""
    vocabulary = real_vocabulary(shared / "tokenizers" / name)
    potential = grammar.compile(vocabulary)
    pieces = {piece: token for token, piece in enumerate(vocabulary.tokens) if piece is not None}
    for text in golden.read(golden.FOLDER / f"{grammar.name}.accept")[::5]:
        position = potential.init(torch.zeros(1, 1, dtype=torch.long)).positions[0]
        for token in greedy_tokens(text.encode(), pieces):
            assert position is not None
            assert allows(position.mask(), token), (text, token)
            position = position.step(token)
        assert position is not None
        assert position.accepts
    check_walks(grammar, potential, np.random.default_rng(7))


def test_random_walks_end_in_the_language(grammar: Grammar, tinytales_vocabulary: Vocabulary) -> None:
    check_walks(grammar, grammar.compile(tinytales_vocabulary), np.random.default_rng(1))


def real_vocabulary(folder: Path, cache: dict[Path, Vocabulary] = {}) -> Vocabulary:  # noqa: B006  one reading serves all tests
    if folder not in cache:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        cache[folder] = Vocabulary.from_tokenizer(tokenizer)
    return cache[folder]


def greedy_tokens(text: bytes, pieces: dict[bytes, int]) -> list[int]:
    """Longest-match tokens: one of the tokenisations of a text."""
    tokens: list[int] = []
    at = 0
    while at < len(text):
        end = next(end for end in range(min(len(text), at + 16), at, -1) if text[at:end] in pieces)
        tokens.append(pieces[text[at:end]])
        at = end
    return tokens


def allows(words: np.ndarray, token: int) -> bool:
    return bool(int(words[token >> 5]) >> (token & 31) & 1)


def check_walks(grammar: Grammar, potential: GrammarPotential, rng: np.random.Generator) -> None:
    """Uniformly random allowed tokens within a tight budget spell, without exception, a text that lark parses."""
    vocabulary = potential.vocabulary
    budget = potential.shortest + BUDGET_ABOVE_SHORTEST
    for _ in range(WALKS):
        state = potential.init(torch.zeros(1, 1, dtype=torch.long), budget=torch.tensor([budget]))
        tokens: list[int] = []
        for _ in range(budget):
            choices = np.flatnonzero(
                np.unpackbits(potential.mask(state)[0].view(np.uint8), bitorder="little")[: vocabulary.size]
            )
            token = int(rng.choice(choices))
            if token in vocabulary.eos_token_ids:
                break
            tokens.append(token)
            state = potential.step(state, torch.tensor([token]))
        text = vocabulary.bytes_of(tokens).decode()
        assert grammar.accepts(text), json.dumps(text)
