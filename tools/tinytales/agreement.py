"""Agreement of the mood lexicon with a reader's labels: draws the stories to read, and counts the labels.

Run: python -m tools.tinytales.agreement show    to print stories not yet read, without a label, for reading;
     python -m tools.tinytales.agreement record  to fill the lexicon's column of `agreement.tsv`;
     python -m tools.tinytales.agreement count   to count agreement by round.
`agreement.tsv` has a line for each story read: round, number in the corpus, reader's label, lexicon's label. Round 1
served to settle the lexicon; round 2 was drawn, read and labelled after that and measures it.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import Counter
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.tinytales.corpus import read_stories
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import corpus_path

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

__all__ = ["LABELS", "Reading", "confusion", "drawn", "read_labels"]

LABELS = Path(__file__).with_name("agreement.tsv")

_SHARES = {"happy": 34, "sad": 33, "neutral": 33}
"""Stories drawn per label of the lexicon: equal parts, since in the corpus eight of ten are happy."""

_FROM_LAST = 1000
"""Drawn from this many stories at the end of the corpus, where enough sad ones are; the last 268 are held out."""


@dataclass(frozen=True)
class Reading:
    """One story read: `story` is its number in the corpus, `lexicon` is empty until recorded."""

    round: int
    story: int
    reader: str
    lexicon: str = ""


def drawn(stories: Sequence[str], already_read: Container[int]) -> list[int]:
    """Numbers of the stories to read, in an order that tells nothing of the lexicon's label."""
    rng = random.Random(100)  # any seed: it only makes the draw repeatable
    unread = [n for n in range(len(stories) - _FROM_LAST, len(stories)) if n not in already_read]
    numbers = []
    for mood, count in _SHARES.items():
        numbers += rng.sample([n for n in unread if mood_of(stories[n]) == mood], count)
    rng.shuffle(numbers)
    return numbers


def read_labels(path: Path = LABELS) -> list[Reading]:
    """The lines of `agreement.tsv`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [Reading(int(r["round"]), int(r["story"]), r["reader"], r["lexicon"]) for r in rows]


def confusion(readings: Sequence[Reading]) -> Counter[tuple[str, str]]:
    """How many readings have each pair (reader's label, lexicon's label)."""
    return Counter((reading.reader, reading.lexicon) for reading in readings)


def _record(readings: Sequence[Reading], stories: Sequence[str]) -> None:
    with LABELS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(field.name for field in fields(Reading))
        for reading in readings:
            writer.writerow(astuple(replace(reading, lexicon=mood_of(stories[reading.story]))))


def _count(readings: Sequence[Reading]) -> None:
    for number in sorted({reading.round for reading in readings}):
        pairs = confusion([reading for reading in readings if reading.round == number])
        agreed = sum(count for (reader, lexicon), count in pairs.items() if reader == lexicon)
        print(f"round {number}: {agreed} of {pairs.total()} agree")
        for (reader, lexicon), count in sorted(pairs.items()):
            print(f"  reader {reader}, lexicon {lexicon}: {count}")


def main() -> None:
    """Show, record or count."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("action", choices=["show", "record", "count"])
    action = parser.parse_args().action
    readings = read_labels()
    if action == "count":
        _count(readings)
        return
    stories = read_stories(corpus_path())
    if action == "record":
        _record(readings, stories)
        return
    for number in drawn(stories, {reading.story for reading in readings}):
        print(f"--- {number}\n{stories[number]}\n")


if __name__ == "__main__":
    main()
