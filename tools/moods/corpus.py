"""Writes the corpus as labelled texts, happy and sad, for `ctrldecode train class-lm`.

Run: python -m tools.moods.corpus --out FOLDER
`train.jsonl` has the stories before the last 5,000, `tail.jsonl` those of them that tinytales was trained on too, and
`held-out.jsonl` the last 268, which no model was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tools.tinytales.corpus import read_stories, split
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import corpus_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL = 5000
"""Stories kept from the class LM: 341 sad ones among them, enough for accuracy to about two points."""


def main() -> None:
    """Write three files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    stories = read_stories(corpus_path())
    known, held_out = split(stories)
    _write(folder / "train.jsonl", stories[:-_TAIL])
    _write(folder / "tail.jsonl", known[len(stories) - _TAIL :])
    _write(folder / "held-out.jsonl", held_out)


def _write(path: Path, stories: Sequence[str]) -> None:
    labelled = [(story, mood_of(story)) for story in stories]
    lines = [json.dumps({"text": story, "label": mood}) for story, mood in labelled if mood != "neutral"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} texts")


if __name__ == "__main__":
    main()
