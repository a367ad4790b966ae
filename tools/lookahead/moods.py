"""Writes stories with the label of a mood by the lexicon, for `ctrldecode fit-attribute`.

python -m tools.lookahead.moods --mood sad --out sad.jsonl

Happy and sad stories in equal parts, label 1 for the mood: sad ones are one in fourteen, and a fit to stories as they come says
little of them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tools.tinytales.corpus import read_stories
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import corpus_path

_TAIL = 5000  # stories at the end of the corpus that judges and comparisons are left


def main() -> None:
    """Write one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mood", choices=["happy", "sad"], default="happy")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    labelled = [(story, mood_of(story)) for story in read_stories(corpus_path())[:-_TAIL]]
    moods = {name: [story for story, mood in labelled if mood == name] for name in ("happy", "sad")}
    count = min(map(len, moods.values()))
    records = [
        {"text": story, "label": int(name == options.mood)} for name, some in moods.items() for story in some[:count]
    ]
    random.Random(0).shuffle(records)
    options.out.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
