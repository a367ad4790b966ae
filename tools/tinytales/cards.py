"""Reads a card (hero, kind, animals, things, mood) off a story by rules; knows words, not meaning."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tools.tinytales.mood import mood_of

__all__ = ["MOST_ITEMS", "Card", "Lists", "card_line", "card_of", "load_lists", "mentioned", "parse_card"]

MOST_ITEMS = 3
"""Most animals, and most things, on one card: three fit on a short line and few stories name more that matter."""

_NAMED = re.compile(r"\b([a-z]+),? (?:who was |was )?(?:named|called) ([A-Z][a-z]+)\b")
_NAME_WAS = re.compile(r"\b([A-Z][a-z]+) (?:was|is) an? (?:[a-z]+,? ){0,4}?([a-z]+)\b")
_WORD = re.compile(r"\b[a-z]+\b")
_TITLES = frozenset({"Mr", "Mrs", "Miss", "Dr"})
_PRONOUNS = frozenset({"He", "She", "It", "They", "This", "That", "There", "Everyone", "Mom", "Dad", "Today", "The"})


@dataclass(frozen=True)
class Card:
    """One card; `animals` and `things` hold at most `MOST_ITEMS` words each, in order of first mention."""

    hero: str
    kind: str
    animals: tuple[str, ...]
    things: tuple[str, ...]
    mood: str


@dataclass(frozen=True)
class Lists:
    """The closed lists of a card, and for each list the map from a word of a story to its listed word."""

    kinds: tuple[str, ...]
    animals: tuple[str, ...]
    things: tuple[str, ...]
    moods: tuple[str, ...]
    kind_words: dict[str, str]
    animal_words: dict[str, str]
    thing_words: dict[str, str]
    before: dict[str, frozenset[str]]


@cache
def load_lists() -> Lists:
    """The lists of `card_lists.toml`, with regular plurals added to the words that are looked up."""
    raw = tomllib.loads(Path(__file__).with_name("card_lists.toml").read_text(encoding="utf-8"))
    words = {name: _spellings(raw[name], raw[f"{name}_spellings"]) for name in ("kinds", "animals", "things")}
    return Lists(
        kinds=tuple(raw["kinds"]),
        animals=tuple(raw["animals"]),
        things=tuple(raw["things"]),
        moods=tuple(raw["moods"]),
        kind_words=words["kinds"],
        animal_words=words["animals"],
        thing_words=words["things"],
        before={word: frozenset(others) for word, others in raw["before"].items()},
    )


def card_of(story: str) -> Card | None:
    """The card of `story`, or None where no hero of a listed kind is named."""
    lists = load_lists()
    found = _hero(story, lists)
    if found is None:
        return None
    hero, kind = found
    animals = [word for word in mentioned(story, lists.animal_words, lists.before) if word != kind]
    things = mentioned(story, lists.thing_words, lists.before)
    return Card(hero, kind, tuple(animals[:MOST_ITEMS]), tuple(things[:MOST_ITEMS]), mood_of(story))


def card_line(card: Card) -> str:
    """The card as one line of JSON: keys in the order of `Card`, one space after each colon and comma."""
    return json.dumps(asdict(card))


def parse_card(line: str) -> Card | None:
    """The card written on `line`, or None unless `line` is exactly what `card_line` writes for a valid card."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(raw, dict) or list(raw) != list(Card.__dataclass_fields__):
        return None
    card = _checked(raw)
    return card if card is not None and card_line(card) == line else None


def _checked(raw: dict[str, object]) -> Card | None:
    lists = load_lists()
    hero, kind, mood = (raw[key] for key in ("hero", "kind", "mood"))
    if not (isinstance(hero, str) and re.fullmatch(r"[A-Z][a-z]+", hero)):
        return None
    if kind not in lists.kinds or mood not in lists.moods:
        return None
    animals, things = _items(raw["animals"], lists.animals), _items(raw["things"], lists.things)
    if animals is None or things is None:
        return None
    return Card(hero, str(kind), animals, things, str(mood))


def _items(raw: object, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    if not isinstance(raw, list) or len(raw) > MOST_ITEMS or any(word not in allowed for word in raw):
        return None
    return tuple(raw)


def _spellings(listed: list[str], others: dict[str, str]) -> dict[str, str]:
    singular = {word: word for word in listed} | others
    return {_plural(word): target for word, target in singular.items()} | singular


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def _hero(story: str, lists: Lists) -> tuple[str, str] | None:
    """The first named character of a listed kind; the name must be used again, or it is only mentioned."""
    uses = Counter(re.findall(r"[A-Z][a-z]+", story))
    named = [(name, kind) for kind, name in _NAMED.findall(story)]
    for name, kind in [*named, *_NAME_WAS.findall(story)]:
        if name in _TITLES or name in _PRONOUNS or uses[name] < 2:
            continue
        if kind in lists.kind_words:
            return name, lists.kind_words[kind]
    return None


def mentioned(story: str, words: dict[str, str], before: dict[str, frozenset[str]]) -> list[str]:
    """Listed words of `story` in order of first mention, each once."""
    tokens = _WORD.findall(story)
    found: dict[str, None] = {}
    for previous, token in zip(["", *tokens], tokens, strict=False):
        target = words.get(token)
        if target is not None and previous not in before.get(target, frozenset()):
            found[target] = None
    return list(found)
