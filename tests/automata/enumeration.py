"""Automata against plain predicates of texts, over every string of tokens of a tiny vocabulary."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ctrldecode.automata._words import separators

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctrldecode.automata import TokenDFA
    from ctrldecode.core.vocabulary import Vocabulary

LONGEST = 6


def agree(dfa: TokenDFA, vocabulary: Vocabulary, predicate: Callable[[str], bool], longest: int = LONGEST) -> None:
    """A string of tokens is accepted if and only if the predicate holds of its text; broken UTF-8 is passed over."""
    ids, texts, spelled = strings(vocabulary, longest)
    wanted = np.array([judged(text, predicate) for text in texts])  # −1 where the text is broken
    states = np.array([dfa.start])
    for length in range(longest + 1):
        accepted = (states >= 0) & dfa.accepting[states]
        wrong = (accepted != wanted[spelled[length]]) & (wanted[spelled[length]] >= 0)
        assert not wrong.any(), [texts[i] for i in spelled[length][wrong][:5]]
        states = dfa.step(np.repeat(states, len(ids)), np.tile(ids, len(states)))
    for i in range(0, len(texts), max(1, len(texts) // 50)):
        assert wanted[i] in {-1, dfa.accepts(texts[i])}, texts[i]


@cache
def strings(vocabulary: Vocabulary, longest: int) -> tuple[np.ndarray, list[bytes], list[np.ndarray]]:
    """The ids of text, the distinct texts, and for each length the texts of all strings of tokens, last token fastest."""
    ids = [token for token, piece in enumerate(vocabulary.tokens) if piece]
    index = {b"": 0}
    level, spelled = [b""], [np.zeros(1, np.int64)]
    for _ in range(longest):
        level = [text + (vocabulary.tokens[token] or b"") for text, token in itertools.product(level, ids)]
        spelled.append(np.array([index.setdefault(text, len(index)) for text in level]))
    return np.array(ids), list(index), spelled


def judged(text: bytes, predicate: Callable[[str], bool]) -> int:
    try:
        return int(predicate(text.decode()))
    except UnicodeDecodeError:
        return -1


def pattern(phrases: Sequence[str], *, boundaries: bool = True) -> str:
    """A regular expression of Python that finds any of some phrases between the borders of words."""
    parting = "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in separators("".join(phrases)))
    word = f"[^{parting}]"

    def bordered(phrase: str) -> str:
        before = f"(?<!{word})" if boundaries and re.match(word, phrase[0]) else ""
        after = f"(?!{word})" if boundaries and re.match(word, phrase[-1]) else ""
        return before + re.escape(phrase) + after

    return "(?:" + "|".join(map(bordered, phrases)) + ")"
