"""Writes the corpus as labelled texts, happy and sad, for `ctrldecode train class-lm`.

Run: python -m tools.moods.corpus --out FOLDER
`train.jsonl` has the stories that tinytales was trained on, `held-out.jsonl` the last 268 of the corpus.
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
    from collections.abc import Iterable

__all__ = ["labelled"]


def labelled(stories: Iterable[str]) -> str:
    """JSON lines with "text" and "label"; neutral stories are left out."""
    moods = [(story, mood_of(story)) for story in stories]
    return "".join(json.dumps({"text": story, "label": mood}) + "\n" for story, mood in moods if mood != "neutral")


def main() -> None:
    """Write two files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    known, held_out = split(read_stories(corpus_path()))
    (folder / "train.jsonl").write_text(labelled(known), encoding="utf-8")
    (folder / "held-out.jsonl").write_text(labelled(held_out), encoding="utf-8")


if __name__ == "__main__":
    main()
