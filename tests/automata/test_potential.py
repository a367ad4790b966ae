"""The mask of an automaton: against enumeration, under the laws, and inside `generate`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ctrldecode import laws
from ctrldecode.automata import (
    AutomatonPotential,
    TokenDFA,
    contains,
    contains_all,
    forbids,
    in_order,
    sentence_count,
    suffix,
    token_count,
    word_count,
)
from ctrldecode.core.potential import per_row
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import AutomatonError, BudgetError, InputError
from ctrldecode.processor import ControlProcessor
from tests.automata.test_algebra import BODIES, EOS, SIZE, automata
from tests.toys import tiny_llama

NONE = torch.zeros(1, 1, dtype=torch.long)
VOCABULARY = Vocabulary([b"a", b"b", b" ", b" ab", b"ba ", None, None], {6})


def start(potential: AutomatonPotential, budget: float, rows: int = 1):
    return potential.init(NONE.repeat(rows, 1), budget=torch.tensor([budget] * rows))


@settings(max_examples=40, deadline=None)
@given(automata())
def test_a_token_is_allowed_if_and_only_if_an_accepted_text_fits(dfa: TokenDFA) -> None:
    if dfa.is_empty:
        with pytest.raises(AutomatonError, match="accepts no text"):
            AutomatonPotential(dfa)
        return
    potential = AutomatonPotential(dfa)
    budget = 4
    language = {ids for ids in BODIES if len(ids) <= budget and dfa.accepts_tokens(ids)}
    if potential.shortest > budget:
        assert not language
        return
    prefixes = {ids[:cut] for ids in language for cut in range(len(ids) + 1)}
    states = {(): start(potential, budget)}
    for prefix in sorted(prefixes, key=len):
        allowed = torch.isfinite(potential.log_weights(states[prefix])[0]).tolist()
        wanted = [(*prefix, token) in prefixes for token in range(SIZE)]
        wanted[EOS] = prefix in language
        assert allowed == wanted, prefix
        for token in np.flatnonzero(wanted[:EOS]).tolist():
            states[*prefix, token] = potential.step(states[prefix], torch.tensor([token]))


@settings(max_examples=15, deadline=None)
@given(automata())
def test_laws_of_random_automata(dfa: TokenDFA) -> None:
    if not dfa.is_empty:
        laws.check(AutomatonPotential(dfa), eos_token_ids=[EOS])


@pytest.mark.parametrize("budget", [None, 9])
def test_laws(budget: int | None) -> None:
    dfa = contains_all(VOCABULARY, ["ab", "ba"]) & word_count(VOCABULARY, 2, 4) & forbids(VOCABULARY, "b")

    def log_psi(ids: list[int]) -> float:
        """By search: whether an accepted body that fits begins so; without a budget, one of at most 9 tokens is enough."""
        body = ids[: ids.index(6)] if 6 in ids else ids
        state = dfa.start
        for token in body:
            state = int(dfa.step([state], [token])[0])
        if state < 0 or (6 in ids and not dfa.accepting[state]):
            return -np.inf
        fits = dfa.accept_distance[state] + len(body) <= (budget or 99)
        return 0.0 if 6 in ids or fits else -np.inf

    assert laws.check(AutomatonPotential(dfa), VOCABULARY, budget=budget, steps=9, log_psi=log_psi) == ()


def test_the_end_of_sequence_need_not_fit() -> None:
    potential = AutomatonPotential(token_count(VOCABULARY, 2, 3))
    state = start(potential, 2)
    for _ in range(2):
        assert torch.isfinite(potential.log_weights(state)[0, 0])
        assert torch.isneginf(potential.log_weights(state)[0, [5, 6]]).all()
        state = potential.step(state, torch.tensor([0]))
    assert potential.log_weights(state)[0].isfinite().nonzero().flatten().tolist() == [6]


def test_budgets_that_cannot_be_kept_are_refused() -> None:
    potential = AutomatonPotential(contains(VOCABULARY, "ab ba"), "the phrase")
    assert potential.shortest == 3  # " ab", " ", "ba "
    with pytest.raises(BudgetError, match="the phrase needs 3 tokens, but only 2 are allowed"):
        start(potential, 2)
    assert start(potential, 3).left.tolist() == [3]
    assert potential.describe() == "the phrase"


def test_rows_of_their_own_budgets_and_after_the_end() -> None:
    potential = AutomatonPotential(contains(VOCABULARY, "ab"))
    state = potential.init(NONE.repeat(3, 1), budget=torch.tensor([1, 2, 50]))
    allowed = torch.isfinite(potential.log_weights(state)).int().tolist()
    assert allowed == [[0, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0, 0]]
    ended = potential.step(potential.step(state, torch.tensor([3, 3, 0])), torch.tensor([6, 2, 5]))
    assert potential.log_weights(ended)[0].tolist() == [0.0] * 7
    assert torch.isneginf(potential.log_weights(ended)[1:]).all(dim=1).tolist() == [False, True]
    words = potential.mask(ended)
    assert words.dtype == np.int32
    assert words[0].tolist() == [-1]
    with pytest.raises(InputError, match=r"scores must be \(3, 7\)"):
        potential.add_log_weights(state, torch.zeros(2, 7))
    with pytest.raises(InputError, match="tokens must be ids"):
        potential.step(state, torch.tensor([0, 0, 7]))


@pytest.mark.parametrize(
    "mode",
    [
        {},
        {"do_sample": True},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "do_sample": True},
    ],
    ids=str,
)
def test_generate_keeps_every_row_within_the_automaton(mode: dict[str, object]) -> None:
    """Strings of ids that hold 7 8 in this order and end within the budget; the model is a random one."""
    rows = np.zeros((3, 50), int)
    rows[0, 7], rows[1], rows[1, 8], rows[2] = 1, 1, 2, 2
    dfa = TokenDFA(rows, 0, [2], 2)
    ids = torch.randint(3, 50, (2, 5), generator=torch.Generator().manual_seed(0))
    potentials = per_row([AutomatonPotential(dfa), AutomatonPotential(~dfa)])
    torch.manual_seed(0)
    output = tiny_llama().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        logits_processor=[ControlProcessor(potentials, max_new_tokens=8)],
        **mode,
    )
    for row, sequence in enumerate(output[:, 5:].tolist()):
        body = list(itertools.takewhile(lambda token: token != 2, sequence))
        assert dfa.accepts_tokens(body) == (row < len(output) // 2), sequence


@pytest.mark.parametrize("mode", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}], ids=str)
def test_stories_of_the_embedded_model_meet_the_condition(
    mode, tinytales, tinytales_tokenizer, tinytales_vocabulary
) -> None:
    vocabulary = tinytales_vocabulary
    conditions = [
        contains_all(vocabulary, [["dog", "dogs"], "red ball"]) & word_count(vocabulary, 8, 14),
        forbids(vocabulary, ["the", "and", "was"], ignore_case=True) & sentence_count(vocabulary, 1, 2),
        in_order(vocabulary, ["boat", "fish"]) & suffix(vocabulary, " home."),
    ]
    prompts = tinytales_tokenizer(["Once upon a time"] * 3, return_tensors="pt")
    torch.manual_seed(0)
    output = tinytales.generate(
        **prompts,
        max_new_tokens=24,
        logits_processor=[ControlProcessor(per_row([AutomatonPotential(c) for c in conditions]), max_new_tokens=24)],
        **mode,
    )
    length = prompts["input_ids"].shape[1]
    for condition, sequence in zip(conditions, output[:, length:].tolist(), strict=True):
        text = vocabulary.bytes_of(sequence)
        assert condition.accepts(text), text
        assert condition.accepts_tokens(
            itertools.takewhile(lambda token: token not in vocabulary.eos_token_ids, sequence)
        )


def test_automata_of_words_stay_small(tinytales_vocabulary: Vocabulary) -> None:
    """A lookahead's table grows with states and edges: a bound a little above what they are."""
    dfa = contains_all(tinytales_vocabulary, ["dog", "red ball", "happy"])
    assert dfa.states <= 193
    assert len(dfa.edges()) <= 2550
    assert dfa.table.shape[1] <= 60
    assert word_count(tinytales_vocabulary, 20, 30).states == 61
