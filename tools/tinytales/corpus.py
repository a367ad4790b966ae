"""The corpus as documents: stories, stories behind a mood, stories before a card, cards; knows no tokens' ids."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.tinytales.cards import card_line, card_of
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import CARD, END, HAPPY, SAD

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["HELD_OUT_SHARE", "Forms", "document", "forms_of", "read_stories", "split"]

HELD_OUT_SHARE = 0.01
"""The last hundredth of the stories is never trained on: 268 stories, 0.2 MB, give nats per byte to about 1%."""

# Chances of a form, where the story has it. Sad stories are one in fifteen, so they take their mood's form more often;
# otherwise <|sad|> would hardly be seen. A card alone is rare: it is short, and its text is seen behind stories too.
_HAPPY_SHARE = 0.20
_SAD_SHARE = 0.60
_CARD_SHARE = 0.40
_CARD_ALONE_SHARE = 0.03


@dataclass(frozen=True)
class Forms:
    """A story with what may stand before it (`mood_code`, or empty) and after it (`card`, or empty)."""

    story: str
    mood_code: str
    card: str


def read_stories(path: Path) -> list[str]:
    """The stories of a gzipped file, stripped of outer white space, in order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        stories = (story.strip() for story in file.read().split(END))
        return [story for story in stories if story]


def split(stories: Sequence[str]) -> tuple[list[str], list[str]]:
    """Stories to train on, and the held-out last `HELD_OUT_SHARE`."""
    held_out = max(1, round(len(stories) * HELD_OUT_SHARE))
    return list(stories[:-held_out]), list(stories[-held_out:])


def forms_of(story: str) -> Forms:
    """The story with its mood's code and its card."""
    card = card_of(story)
    code = {"happy": HAPPY, "sad": SAD}.get(mood_of(story), "")
    return Forms(story, code, "" if card is None else card_line(card))


def document(forms: Forms, rng: random.Random) -> str:
    """One document of `forms` in a form drawn from `rng`, without the tokens of begin and end."""
    draw = rng.random()
    coded = {HAPPY: _HAPPY_SHARE, SAD: _SAD_SHARE}.get(forms.mood_code, 0.0)
    if draw < coded:
        return f"{forms.mood_code}{forms.story}"
    if forms.card and draw < coded + _CARD_SHARE:
        return f"{forms.story}{CARD}{forms.card}"
    if forms.card and draw < coded + _CARD_SHARE + _CARD_ALONE_SHARE:
        return f"{CARD}{forms.card}"
    return forms.story
