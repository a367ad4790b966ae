"""The mood of a story by a small weighted lexicon; it counts words and knows no plot."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Lexicon", "load_lexicon", "mood_of", "mood_score"]

_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Lexicon:
    """Signed word weights (happy positive) with the rules of `mood_lexicon.toml`."""

    weights: dict[str, float]
    negations: frozenset[str]
    reach: int
    happy_margin: float
    sad_margin: float


@cache
def load_lexicon() -> Lexicon:
    """The lexicon of `mood_lexicon.toml`."""
    raw = tomllib.loads(Path(__file__).with_name("mood_lexicon.toml").read_text(encoding="utf-8"))
    return Lexicon(
        weights=raw["happy"] | {word: -weight for word, weight in raw["sad"].items()},
        negations=frozenset(raw["negation"]["words"]),
        reach=raw["negation"]["reach"],
        happy_margin=raw["happy_margin"],
        sad_margin=raw["sad_margin"],
    )


def mood_score(story: str) -> float:
    """Sum of the weights of the story's words, in lexicon units; positive speaks for happy, negative for sad.

    The word at place i of n counts 3 (i/n)^2 times, which is once on average: a story is remembered by how it ends,
    and most happy ones have trouble in the middle.
    """
    lexicon = load_lexicon()
    words = _WORD.findall(story.lower())
    total = 0.0
    for place, word in enumerate(words):
        weight = lexicon.weights.get(word, 0.0)
        if weight:
            context = words[max(0, place - lexicon.reach) : place]
            total += _in_context(weight, context, lexicon) * 3.0 * ((place + 1) / len(words)) ** 2
    return total


def mood_of(story: str) -> str:
    """`happy`, `sad` or `neutral`."""
    lexicon = load_lexicon()
    score = mood_score(story)
    if score >= lexicon.happy_margin:
        return "happy"
    return "sad" if score <= -lexicon.sad_margin else "neutral"


def _in_context(weight: float, context: list[str], lexicon: Lexicon) -> float:
    """A negated happy word speaks for sad; a negated sad word ("don't be sad") speaks for nothing."""
    if lexicon.negations.isdisjoint(context):
        return weight
    return -weight if weight > 0 else 0.0
