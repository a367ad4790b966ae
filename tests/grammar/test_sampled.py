"""Texts that the embedded model samples under every shipped grammar: all parse with lark itself, and end within the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ctrldecode.grammar.grammar import Grammar
from ctrldecode.processor import ControlProcessor
from tests.grammar.strategies import opened, parses
from tests.grammars import golden

if TYPE_CHECKING:
    from ctrldecode.core.vocabulary import Vocabulary

# Tokens above the shortest text of a grammar: enough for its constructs to appear, few enough that many texts hit the end.
ROOM = 24
BATCH = 100


@pytest.mark.parametrize("name", golden.names())
def test_two_hundred_texts(name: str, tinytales: Any, tinytales_vocabulary: Vocabulary) -> None:
    check(name, 200, tinytales, tinytales_vocabulary)


@pytest.mark.soak
@pytest.mark.parametrize("name", golden.names())
def test_ten_thousand_texts(name: str, tinytales: Any, tinytales_vocabulary: Vocabulary) -> None:
    check(name, 10_000, tinytales, tinytales_vocabulary)


def check(name: str, number: int, model: Any, vocabulary: Vocabulary) -> None:
    file = golden.FOLDER / f"{name}.lark"
    grammar = Grammar.from_file(file)
    lark = opened(file.read_text(encoding="utf-8"), grammar.parser)
    assert lark is not None
    potential = grammar.compile(vocabulary)
    room = potential.shortest + ROOM
    processor = ControlProcessor(potential, max_new_tokens=room, eos_token_ids=vocabulary.eos_token_ids)
    start = vocabulary.eos_token_ids[0]
    with torch.random.fork_rng():
        torch.manual_seed(20)
        for _ in range(number // BATCH):
            sequences = model.generate(
                torch.full((BATCH, 1), start),
                attention_mask=torch.ones(BATCH, 1, dtype=torch.long),
                max_new_tokens=room,
                do_sample=True,
                top_k=0,
                logits_processor=[processor],
            )
            wrong = [text for row in sequences if not parses(lark, text := text_of(row, vocabulary))]
            assert not wrong, f"{len(wrong)} of {BATCH} texts, such as {wrong[0]!r}"
            assert all(report.log_weight <= 1e-4 for report in processor.report(sequences))


def text_of(row: torch.Tensor, vocabulary: Vocabulary) -> str:
    return vocabulary.bytes_of(row[1:].tolist()).decode()
