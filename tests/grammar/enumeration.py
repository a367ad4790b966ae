"""Checks of grammar potentials against lark, by enumeration of every text of a small alphabet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ctrldecode import laws
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import GrammarError
from ctrldecode.grammar.grammar import Grammar
from tests.grammar.strategies import ALPHABET, language, texts

if TYPE_CHECKING:
    from ctrldecode.grammar.potential import GrammarPotential, GrammarState

LONGEST = 5
LETTERS = Vocabulary([b"a", b"b", b"c", None], {3})
PIECES = Vocabulary([b"a", b"b", b"c", None, b"ab", b"bc", b"aa", b"cab", b"abc"], {3})


def compiled(text: str, vocabulary: Vocabulary, parser: str) -> GrammarPotential | None:
    """The potential; None where the grammar has no text that the vocabulary spells."""
    try:
        return Grammar(text, parser=parser).compile(vocabulary)
    except GrammarError as error:
        if "spelled" not in str(error) and "ever ends" not in str(error):
            raise
        return None


def completions(accepted: set[str]) -> dict[str, int]:
    """For every prefix of an accepted text, the fewest letters that complete it."""
    shortest: dict[str, int] = {}
    for text in accepted:
        for cut in range(len(text) + 1):
            shortest[text[:cut]] = min(shortest.get(text[:cut], LONGEST), len(text) - cut)
    return shortest


def walk(potential: GrammarPotential, tokens: list[int], budget: float = math.inf) -> GrammarState:
    """The state after tokens."""
    state = potential.init(torch.zeros(1, 1, dtype=torch.long), budget=torch.tensor([budget]))
    for token in tokens:
        state = potential.step(state, torch.tensor([token]))
    return state


def masks_equal_enumeration(parser: str, text: str) -> None:
    """A token is allowed if and only if some text that lark takes, within the budget, goes on that way."""
    accepted = language(text, LONGEST, parser)
    if accepted is None:
        return
    potential = compiled(text, LETTERS, parser)
    if potential is None:
        assert not accepted
        return
    shortest = completions(accepted)
    for prefix in texts(LONGEST - 1):
        if potential.shortest > LONGEST:
            assert not accepted
            break
        tokens = [ALPHABET.index(letter) for letter in prefix]
        left = LONGEST - len(prefix)
        weights = potential.log_weights(walk(potential, tokens, LONGEST))[0]
        wanted = [shortest.get(prefix + letter, LONGEST) <= left - 1 for letter in ALPHABET]
        assert [bool(torch.isfinite(w)) for w in weights[:3]] == wanted, prefix
        assert bool(torch.isfinite(weights[3])) == (prefix in accepted), prefix


def every_tokenisation_of_every_text(parser: str, text: str) -> None:
    """Tokens that span lexemes are allowed wherever their letters are, and never lead to a dead end."""
    accepted = language(text, LONGEST, parser)
    potential = None if accepted is None else compiled(text, PIECES, parser)
    if accepted is None or potential is None:
        return
    prefixes = set(completions(accepted))
    waiting: list[tuple[list[int], str]] = [([], "")]
    while waiting:
        tokens, prefix = waiting.pop()
        weights = potential.log_weights(walk(potential, tokens))[0]
        assert bool(torch.isfinite(weights[3])) == (prefix in accepted), (tokens, prefix)
        for token, piece in enumerate(PIECES.tokens):
            if piece is None or len(longer := prefix + piece.decode()) > LONGEST:
                continue
            allowed = bool(torch.isfinite(weights[token]))
            if longer in prefixes:
                assert allowed, (tokens, piece)
                waiting.append(([*tokens, token], longer))
            elif allowed:  # then some longer text goes on this way, and following the least cost finds it
                assert finishes(potential, [*tokens, token], Grammar(text, parser=parser))


def finishes(potential: GrammarPotential, tokens: list[int], grammar: Grammar) -> bool:
    """Whether following the mask within the stated cost ends in a text that lark accepts."""
    state = walk(potential, tokens)
    position = state.positions[0]
    assert position is not None
    cost = int(position.cost)
    for left in range(cost, 0, -1):
        words = position.mask(left)
        token = next(t for t in range(PIECES.size) if t != 3 and int(words[t >> 5]) >> (t & 31) & 1)
        tokens = [*tokens, token]
        position = position.step(token)
        assert position is not None
    return position.accepts and grammar.accepts(PIECES.bytes_of(tokens).decode())


def laws_hold(parser: str, text: str) -> None:
    """The laws of potentials."""
    potential = None if language(text, 0, parser) is None else compiled(text, PIECES, parser)
    if potential is not None:
        laws.check(potential, PIECES)
